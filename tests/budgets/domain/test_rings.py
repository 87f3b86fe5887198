"""Rolling windows as rows: booked, taken back, aged, and always explained by the journal."""

from datetime import datetime, timedelta

import pytest

from budgets.domain.rings import turn_due
from budgets.domain.suspense import correct_spent, write_off_due
from budgets.domain.usage import book_usage
from budgets.domain.verify import verify
from budgets.models import Balance, Budget, Transfer
from enforcement.rules.policy import Mode
from tests.budgets.world import (
    ACTOR,
    NOW,
    World,
    amounts,
    call,
    make_balance,
    make_budget,
    make_lease,
    ms,
)

HOUR = timedelta(hours=1)
pytestmark = pytest.mark.django_db


@pytest.fixture
def budget(world: World) -> Budget:
    """A day of soft dollars, moving on by the hour."""
    return make_budget(
        world, window_kind="rolling", rolling_s=86_400, rolling_parts=24, mode=Mode.SOFT
    )


def book(world: World, at: datetime, charge: int = 1_500) -> None:
    event = call(world, started_at_ms=ms(at), charge_nanos=charge)
    book_usage(organization_id=world.id, sidecar_id=None, events=[event], now=at)


def test_use_counts_for_a_day_and_a_part(world: World, budget: Budget) -> None:
    book(world, NOW)
    book(world, NOW + 20 * HOUR, charge=400)
    assert amounts(budget) == (1_900, 0, 0, 0)
    assert turn_due(now=NOW + 24 * HOUR) == 1  # it followed; nothing has left yet
    assert amounts(budget) == (1_900, 0, 0, 0)
    assert turn_due(now=NOW + 25 * HOUR) == 1
    assert amounts(budget) == (400, 0, 0, 0)
    assert [t.amount for t in Transfer.objects.filter(kind="age")] == [1_500]
    assert verify().holds
    assert turn_due(now=NOW + 90 * HOUR) == 1
    assert turn_due(now=NOW + 91 * HOUR) == 0  # nothing stands there any more
    assert (amounts(budget), verify().holds) == ((0, 0, 0, 0), True)


def test_late_news_is_counted_where_it_belongs(world: World, budget: Budget) -> None:
    book(world, NOW + 30 * HOUR)
    event = call(world, started_at_ms=ms(NOW + 8 * HOUR), charge_nanos=7)
    old = call(world, started_at_ms=ms(NOW), charge_nanos=9)
    now = NOW + 30 * HOUR
    book_usage(organization_id=world.id, sidecar_id=None, events=[event, old], now=now)
    assert amounts(budget) == (1_507, 0, 0, 0)
    turn_due(now=NOW + 33 * HOUR)
    assert amounts(budget) == (1_500, 0, 0, 0)
    assert verify().holds


def test_a_hard_one_takes_what_fits_and_tells_the_rest(world: World) -> None:
    budget = make_budget(world, window_kind="rolling", rolling_s=3_600, limit_amount=2_000)
    book(world, NOW)
    book(world, NOW + timedelta(minutes=1))
    assert amounts(budget) == (2_000, 0, 0, 1_000)
    turn_due(now=NOW + 2 * HOUR)
    assert amounts(budget) == (0, 0, 0, 0)
    kinds = Transfer.objects.values_list("kind", "amount").order_by("sequence")
    assert sorted(kinds) == [
        ("age", 2_000),
        ("age_overrun", 1_000),
        ("overrun", 1_000),
        ("usage", 500),
        ("usage", 1_500),
    ]
    assert verify().holds


def test_a_correction_leaves_the_ring_in_order(world: World, budget: Budget) -> None:
    book(world, NOW)
    book(world, NOW + 3 * HOUR, charge=400)
    balance = Balance.objects.get(budget=budget)
    correct_spent(
        organization_id=world.id,
        balance_id=balance.id,
        amount=500,
        actor=ACTOR,
        reason="the engine says so",
        now=NOW + 4 * HOUR,
    )
    balance.refresh_from_db()
    assert sorted(balance.ring_spent or ())[-2:] == [0, 1_400]
    assert verify().holds


def test_suspense_of_a_rolling_window_is_written_off_into_its_part(world: World) -> None:
    budget = make_budget(world, window_kind="rolling", rolling_s=172_800, rolling_parts=48)
    balance = make_balance(
        budget,
        ring_bucket_ms=3_600_000,
        ring_newest=ms(NOW) // 3_600_000,
        ring_spent=[0] * 49,
        ring_overrun=[0] * 49,
    )
    lease = make_lease(balance, amount=300)
    lease.state = "suspended"
    lease.save(update_fields=["state"])
    Balance.objects.filter(id=balance.id).update(held_amount=0, suspense_amount=300)
    Transfer.objects.create(
        organization_id=world.id, balance=balance, lease=lease, kind="expire", amount=300, at=NOW
    )
    assert write_off_due(now=NOW + 23 * HOUR) == 0
    assert write_off_due(now=NOW + 25 * HOUR) == 1
    balance.refresh_from_db()
    assert (balance.spent_amount, (balance.ring_spent or [])[-26]) == (300, 300)
    assert verify().holds


def test_a_new_one_finds_what_was_used_before(world: World) -> None:
    for hours, charge in ((30, 1), (23, 10), (2, 100), (0, 1_000)):
        book(world, NOW - hours * HOUR, charge=charge)
    budget = make_budget(world, window_kind="rolling", rolling_s=86_400, limit_amount=1_050)
    assert amounts(budget) == (1_110, 0, 0, 0)
    balance = Balance.objects.get(budget=budget)
    assert [part for part in balance.ring_spent or () if part] == [10, 100, 1_000]
    turn_due(now=NOW + 2 * HOUR)
    assert amounts(budget) == (1_100, 0, 0, 0)
    balance.refresh_from_db()
    assert (balance.cap_amount, verify().holds) == (1_100, True)
