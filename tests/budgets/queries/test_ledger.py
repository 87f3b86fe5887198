from datetime import timedelta

from budgets import queries
from budgets.models import Balance, Transfer
from tests.budgets.constraints.attack import sql
from tests.budgets.world import NOW, World, make_balance, make_budget, make_lease, make_world

MINUTE = timedelta(minutes=1)


def move(balance: Balance, kind: str, amount: int, minutes: int) -> None:
    Transfer.objects.create(
        organization_id=balance.organization_id,
        balance=balance,
        kind=kind,
        amount=amount,
        at=NOW + minutes * MINUTE,
        actor="Olive",
        reason="test",
    )


def test_a_balance_in_detail(world: World) -> None:
    balance = make_balance(make_budget(world))
    live = make_lease(balance, amount=500, open_amount=120)
    done = make_lease(balance, amount=300, used_amount=300, state="settled", closed_at=NOW)
    sql(
        "UPDATE budgets_balance SET held_amount = 500, suspense_amount = 40 WHERE id = %s",
        balance.id,
    )
    detail = queries.balance_detail(organization_id=world.id, balance_id=balance.id)
    assert detail is not None
    assert detail.leases == [live]
    assert done not in detail.leases
    assert (detail.exposure, detail.open_amount) == (540, 120)
    assert {(row.kind, row.amount) for row in detail.transfers} == {("grant", 300), ("grant", 500)}


def test_a_balance_of_another_organization_is_none(world: World) -> None:
    balance = make_balance(make_budget(world))
    other = make_world("other")
    assert queries.balance_detail(organization_id=other.id, balance_id=balance.id) is None


def test_the_course_of_a_balance(world: World) -> None:
    balance = make_balance(make_budget(world))
    assert queries.burn_down(balance, now=NOW) == []
    move(balance, "usage", 100, 0)
    move(balance, "limit", 999, 0)
    move(balance, "usage", 50, 0)
    move(balance, "overrun", 7, 10)
    move(balance, "correction", 30, 10)
    points = queries.burn_down(balance, now=NOW + 20 * MINUTE)
    assert [((point.at - NOW) // MINUTE, point.used) for point in points] == [
        (0, 0),
        (1, 150),
        (10, 150),
        (11, 127),
        (20, 127),
    ]


def test_a_long_course_has_few_points(world: World) -> None:
    balance = make_balance(make_budget(world))
    for day in range(90):
        move(balance, "usage", 1, day * 24 * 60)
    points = queries.burn_down(balance, now=NOW + timedelta(days=90))
    assert len(points) <= 2 * queries.MAX_POINTS
    assert points[-1].used == 90


def test_the_course_ends_with_its_window(world: World) -> None:
    end = NOW + timedelta(hours=1)
    balance = make_balance(make_budget(world), window_start=NOW, window_end=end)
    move(balance, "usage", 5, 1)
    points = queries.burn_down(balance, now=NOW + timedelta(days=3))
    assert points[-1].at == end
