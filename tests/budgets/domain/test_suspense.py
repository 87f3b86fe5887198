"""Suspense ends as spent, never as a refund; corrections say who and why."""

from datetime import timedelta
from typing import Any

import pytest

from budgets.domain.suspense import (
    correct_spent,
    free_permits_due,
    write_off_due,
    write_off_lease,
)
from budgets.domain.verify import verify
from budgets.errors import CorrectionError, LeaseNotFoundError, LeaseNotSuspendedError
from budgets.models import Balance, Budget, Lease, Transfer
from controlplane.audit.models import AuditEntry
from enforcement.rules.policy import Unit
from tests.budgets.constraints.attack import sql
from tests.budgets.world import (
    ACTOR,
    NOW,
    World,
    amounts,
    make_balance,
    make_budget,
    make_lease,
    make_world,
)

DAY = timedelta(days=1)


def suspended(balance: Balance, amount: int = 100) -> Lease:
    """A lease that expired with all of its amount out."""
    lease = make_lease(balance, amount=amount, open_amount=20)
    Transfer.objects.create(
        organization_id=balance.organization_id,
        balance=balance,
        lease=lease,
        kind="expire",
        amount=amount,
        at=NOW,
    )
    sql("UPDATE budgets_lease SET state = 'suspended' WHERE id = %s", lease.id)
    sql(
        "UPDATE budgets_balance SET held_amount = held_amount - %s,"
        " suspense_amount = suspense_amount + %s WHERE id = %s",
        amount,
        amount,
        balance.id,
    )
    balance.refresh_from_db()
    return lease


@pytest.fixture
def daily(world: World) -> Budget:
    return make_budget(world, window_kind="calendar", period="day")


def day_balance(budget: Budget) -> Balance:
    start = NOW.replace(hour=0, minute=0)
    return make_balance(budget, window_start=start, window_end=start + DAY)


def test_it_is_written_off_a_day_after_its_window(daily: Budget) -> None:
    balance = day_balance(daily)
    lease = suspended(balance)
    assert balance.window_end is not None
    due = balance.window_end + DAY
    assert write_off_due(now=due - timedelta(seconds=1)) == 0
    assert amounts(daily) == (0, 0, 100, 0)
    assert write_off_due(now=due) == 1
    assert amounts(daily) == (100, 0, 0, 0)
    lease.refresh_from_db()
    assert (lease.state, lease.used_amount, lease.open_amount) == ("written_off", 100, 0)
    assert lease.closed_at == due
    assert write_off_due(now=due) == 0
    assert verify().holds


def test_live_leases_are_left_alone(daily: Budget) -> None:
    lease = make_lease(day_balance(daily), amount=100)
    assert write_off_due(now=NOW + 9 * DAY) == 0
    lease.refresh_from_db()
    assert lease.state == "granted"


def test_so_many_at_once(daily: Budget) -> None:
    balance = day_balance(daily)
    for _ in range(3):
        suspended(balance, amount=10)
    assert [write_off_due(now=NOW + 9 * DAY, most=2) for _ in range(3)] == [2, 1, 0]
    assert amounts(daily) == (30, 0, 0, 0)
    assert verify().holds


def test_a_lifetime_waits_for_a_person(world: World) -> None:
    budget = make_budget(world)
    lease = suspended(make_balance(budget))
    assert write_off_due(now=NOW + 999 * DAY) == 0
    write_off_lease(
        organization_id=world.id, lease_id=lease.id, actor=ACTOR, reason="disk lost", now=NOW
    )
    assert amounts(budget) == (100, 0, 0, 0)
    row = Transfer.objects.get(kind="write_off")
    assert (row.amount, row.actor, row.reason) == (100, "Olive Owner", "disk lost")
    assert AuditEntry.objects.get(action="lease.write_off").reason == "disk lost"
    assert verify().holds


def test_only_suspense_of_the_own_organization(world: World) -> None:
    live = make_lease(make_balance(make_budget(world)), amount=5)
    words: dict[str, Any] = {"actor": ACTOR, "now": NOW}
    with pytest.raises(LeaseNotSuspendedError):
        write_off_lease(organization_id=world.id, lease_id=live.id, reason="x", **words)
    other = make_world("other")
    with pytest.raises(LeaseNotFoundError):
        write_off_lease(organization_id=other.id, lease_id=live.id, reason="x", **words)
    with pytest.raises(CorrectionError, match="say why"):
        write_off_lease(organization_id=world.id, lease_id=live.id, reason=" ", **words)


def test_a_correction_gives_back(world: World) -> None:
    budget = make_budget(world, limit_amount=50)
    balance = make_balance(budget, spent_amount=100, cap_amount=100)
    Transfer.objects.create(
        organization_id=world.id, balance=balance, kind="usage", amount=100, at=NOW
    )
    fixed = correct_spent(
        organization_id=world.id,
        balance_id=balance.id,
        amount=30,
        actor=ACTOR,
        reason="the engine produced less",
        now=NOW,
    )
    assert (fixed.spent_amount, fixed.cap_amount) == (70, 70)
    entry = AuditEntry.objects.get(action="balance.correct")
    assert (entry.before, entry.after) == ({"spent_amount": 100}, {"spent_amount": 70})
    assert verify().holds


@pytest.mark.parametrize(("amount", "reason"), [(0, "x"), (-1, "x"), (101, "x"), (5, " ")])
def test_a_correction_that_cannot_be(world: World, amount: int, reason: str) -> None:
    balance = make_balance(make_budget(world), spent_amount=100)
    with pytest.raises(CorrectionError):
        correct_spent(
            organization_id=world.id,
            balance_id=balance.id,
            amount=amount,
            actor=ACTOR,
            reason=reason,
            now=NOW,
        )
    assert Transfer.objects.count() == 0


# ------------------------------------------------------------------------------ permits


@pytest.fixture
def permits(world: World) -> Balance:
    budget = make_budget(world, unit=Unit.CONCURRENCY, limit_amount=1_000)
    return make_balance(budget, lends=True)


def test_permits_of_a_dead_book_are_freed_by_time_alone(permits: Balance) -> None:
    lease = suspended(permits, 30)
    longest = timedelta(minutes=10)
    early = lease.expires_at + longest - timedelta(seconds=1)
    assert free_permits_due(now=early, longest=longest) == 0
    assert free_permits_due(now=lease.expires_at + longest, longest=longest) == 1
    assert free_permits_due(now=lease.expires_at + longest, longest=longest) == 0
    assert amounts(permits.budget) == (0, 0, 0, 0)
    lease.refresh_from_db()
    assert (lease.state, lease.used_amount, lease.returned_amount) == ("settled", 0, 30)
    assert verify().differences == []


def test_a_person_frees_permits_and_spends_nothing(world: World, permits: Balance) -> None:
    lease = suspended(permits, 30)
    write_off_lease(
        organization_id=world.id, lease_id=lease.id, actor=ACTOR, reason="pod gone", now=NOW
    )
    assert amounts(permits.budget) == (0, 0, 0, 0)


def test_money_is_never_freed_by_time(world: World) -> None:
    lease = suspended(make_balance(make_budget(world)), 30)
    late = lease.expires_at + timedelta(days=365)
    assert free_permits_due(now=late, longest=timedelta(minutes=10)) == 0
