"""The checker finds any row that is not what its journal says."""

from uuid import uuid4

import pytest

from budgets.domain.usage import book_usage
from budgets.domain.verify import Amounts, verify
from budgets.models import Balance, Lease, Transfer
from enforcement.rules.policy import Mode
from enforcement.rules.wire import Part
from tests.budgets.constraints.attack import sql
from tests.budgets.world import (
    NOW,
    World,
    call,
    make_balance,
    make_budget,
    make_lease,
    make_world,
)

STORY = [
    ("settle", 300),
    ("release", 100),
    ("expire", 600),
    ("late_settle", 200),
    ("late_release", 150),
    ("write_off", 250),
    ("overrun", 40),
]


@pytest.fixture
def lease(world: World) -> Lease:
    """A lease of 1,000 that went all ways: settled, expired, settled late, written off."""
    balance = make_balance(make_budget(world))
    lease = make_lease(balance, amount=1_000)
    for kind, amount in STORY:
        Transfer.objects.create(
            organization_id=world.id, balance=balance, lease=lease, kind=kind, amount=amount, at=NOW
        )
    sql(
        "UPDATE budgets_balance SET spent_amount = 750, held_amount = 0, overrun_amount = 40"
        " WHERE id = %s",
        balance.id,
    )
    moved = "used_amount = 750, returned_amount = 250, overrun_amount = 40, closed_at = now()"
    sql("UPDATE budgets_lease SET state = 'suspended' WHERE id = %s", lease.id)
    sql(f"UPDATE budgets_lease SET state = 'written_off', {moved} WHERE id = %s", lease.id)
    return lease


def test_a_whole_story_adds_up(lease: Lease) -> None:
    report = verify()
    assert (report.balances, report.differences, report.holds) == (1, [], True)
    assert report.unexplained == {lease.balance_id: 790}
    assert verify(explain=False) == report._replace(unexplained={})


@pytest.mark.parametrize(
    ("column", "row"),
    [
        ("spent", Amounts(751, 0, 0, 40, 0)),
        ("held", Amounts(750, 1, 0, 40, 0)),
        ("suspense", Amounts(750, 0, 1, 40, 0)),
        ("overrun", Amounts(750, 0, 0, 41, 0)),
        ("given", Amounts(750, 0, 0, 40, 1)),
    ],
)
def test_a_forged_amount_is_found(lease: Lease, column: str, row: Amounts) -> None:
    sql(
        f"UPDATE budgets_balance SET {column}_amount = {column}_amount + 1 WHERE id = %s",
        lease.balance_id,
    )
    (difference,) = verify().differences
    assert (difference.balance_id, difference.row) == (lease.balance_id, row)
    assert difference.journal == Amounts(750, 0, 0, 40, 0)


def test_a_forged_lease_is_found(world: World) -> None:
    lease = make_lease(make_balance(make_budget(world)), amount=100)
    assert verify().holds
    sql("UPDATE budgets_lease SET used_amount = 10 WHERE id = %s", lease.id)
    (difference,) = verify().differences
    assert (difference.row.held, difference.leased_held) == (100, 90)


def test_a_correction_lowers_what_is_spent(world: World) -> None:
    budget = make_budget(world, mode=Mode.SOFT)
    book_usage(organization_id=world.id, sidecar_id=None, events=[call(world)], now=NOW)
    balance = Balance.objects.get(budget=budget)
    Transfer.objects.create(
        organization_id=world.id,
        balance=balance,
        kind="correction",
        amount=500,
        at=NOW,
        actor="Olive",
        reason="the engine says so",
    )
    assert not verify().holds
    sql("UPDATE budgets_balance SET spent_amount = 1000 WHERE id = %s", balance.id)
    assert verify().holds


def test_events_explain_what_leases_settled(world: World) -> None:
    budget = make_budget(world)
    lease = make_lease(make_balance(budget), amount=2_000)
    Transfer.objects.create(
        organization_id=world.id,
        balance=lease.balance,
        lease=lease,
        kind="settle",
        amount=1_500,
        at=NOW,
    )
    sql("UPDATE budgets_lease SET used_amount = 1500 WHERE id = %s", lease.id)
    sql(
        "UPDATE budgets_balance SET spent_amount = 1500, held_amount = 500 WHERE id = %s",
        lease.balance_id,
    )
    assert verify().unexplained == {lease.balance_id: 1_500}
    paid = [Part(str(budget.id), "", str(lease.id), 1_500)]
    book_usage(organization_id=world.id, sidecar_id=None, events=[call(world, parts=paid)], now=NOW)
    assert verify().unexplained == {}


def test_parts_that_name_nothing_explain_nothing(world: World) -> None:
    budget = make_budget(world)
    for lease in ("", str(uuid4()), "not-an-id"):
        paid = [Part(str(budget.id), "", lease, 10)]
        event = call(world, parts=paid)
        book_usage(organization_id=world.id, sidecar_id=None, events=[event], now=NOW)
    assert verify().holds


def test_one_organization_at_a_time(world: World) -> None:
    other = make_world("other")
    wrong = make_balance(make_budget(other), spent_amount=5)
    assert [d.balance_id for d in verify(organization_id=other.id).differences] == [wrong.id]
    assert verify(organization_id=world.id).holds
