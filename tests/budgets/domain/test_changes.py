"""Limits by the clock: what is planned holds from its time to its end, and not a moment else."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from budgets.domain.budgets import archive_budget, change_budget
from budgets.domain.changes import MAX_OPEN, apply_due_changes, cancel_change, plan_change
from budgets.domain.checks import MAX_AMOUNT
from budgets.domain.overrides import set_override
from budgets.enums import BudgetState, ChangeKind, ChangeState
from budgets.errors import BudgetValidationError, ChangeClosedError, ChangeNotFoundError
from budgets.models import Balance, Budget, BudgetChange
from controlplane.audit.models import AuditEntry
from enforcement.rules.policy import Per
from tests.budgets.world import ACTOR, NOW, World, make_balance, make_budget, make_world

HOUR = timedelta(hours=1)


@pytest.fixture
def budget(world: World) -> Budget:
    return make_budget(world, limit_amount=1_000)


def plan(budget: Budget, amount: int, **fields: Any) -> BudgetChange:
    values: dict[str, Any] = {
        "kind": ChangeKind.INCREASE,
        "starts_at": None,
        "ends_at": NOW + HOUR,
        "reason": "launch day",
    } | fields
    return plan_change(
        organization_id=budget.organization_id,
        budget_id=budget.id,
        amount=amount,
        actor=ACTOR,
        now=NOW,
        **values,
    )


def limits(budget: Budget) -> tuple[int, int]:
    """The limit that holds, and the one of the first balance."""
    budget.refresh_from_db()
    balance = Balance.objects.filter(budget=budget).order_by("value").first()
    return budget.effective_limit, balance.limit_amount if balance else 0


def at(instant: datetime) -> int:
    return apply_due_changes(now=instant)


def test_a_limit_takes_effect_at_its_time(budget: Budget) -> None:
    make_balance(budget)
    change = plan(budget, 5_000, kind=ChangeKind.LIMIT, starts_at=NOW + HOUR, ends_at=None)
    assert at(NOW + HOUR - timedelta(microseconds=1)) == 0
    assert limits(budget) == (1_000, 1_000)
    assert at(NOW + HOUR) == 1
    assert at(NOW + HOUR) == 0
    assert limits(budget) == (5_000, 5_000)
    change.refresh_from_db()
    assert (change.state, change.closed_at) == (ChangeState.DONE, NOW + HOUR)


def test_an_increase_holds_at_once_and_ends_by_itself(budget: Budget) -> None:
    balance = make_balance(budget, spent_amount=900)
    change = plan(budget, 500)
    assert limits(budget) == (1_500, 1_500)
    Balance.objects.filter(pk=balance.pk).update(spent_amount=1_400)
    assert at(NOW + HOUR - timedelta(seconds=1)) == 0
    assert at(NOW + HOUR) == 1
    assert limits(budget) == (1_000, 1_000)
    balance.refresh_from_db()
    assert (balance.cap_amount, balance.free_amount) == (1_400, -400)
    change.refresh_from_db()
    assert change.state == ChangeState.DONE


def test_increases_add_up_whatever_the_limit_is_meanwhile(budget: Budget) -> None:
    make_balance(budget)
    first = plan(budget, 500, ends_at=NOW + 2 * HOUR)
    plan(budget, 70)
    change_budget(
        organization_id=budget.organization_id,
        budget_id=budget.id,
        changes={"limit_amount": 2_000},
        actor=ACTOR,
        now=NOW,
    )
    assert limits(budget) == (2_570, 2_570)
    assert at(NOW + HOUR) == 1
    assert limits(budget) == (2_500, 2_500)
    cancel_change(
        organization_id=budget.organization_id, change_id=first.id, actor=ACTOR, now=NOW + HOUR
    )
    assert limits(budget) == (2_000, 2_000)
    assert at(NOW + 3 * HOUR) == 0


def test_balances_that_open_meanwhile_have_the_increase_too(world: World) -> None:
    make_budget(world, name="above")
    split = make_budget(world, name="each", per=Per.USER, limit_amount=100)
    make_balance(split, value="ann")
    set_override(
        organization_id=world.id,
        budget_id=split.id,
        value="ann",
        limit_amount=300,
        actor=ACTOR,
        now=NOW,
    )
    plan(split, 50)
    assert limits(split) == (150, 350)


def test_ending_narrows_a_hard_budget_and_arms_it_anew(budget: Budget) -> None:
    Budget.objects.filter(pk=budget.pk).update(state=BudgetState.ARMED, armed_at=NOW)
    plan(budget, 500)
    budget.refresh_from_db()
    assert budget.state == BudgetState.ARMED
    at(NOW + HOUR)
    budget.refresh_from_db()
    assert budget.state == BudgetState.ARMING


def test_a_change_whose_time_passed_unseen_is_done_without_having_held(budget: Budget) -> None:
    change = plan(budget, 500, starts_at=NOW + HOUR, ends_at=NOW + 2 * HOUR)
    assert at(NOW + 3 * HOUR) == 1
    assert limits(budget) == (1_000, 0)
    change.refresh_from_db()
    assert change.state == ChangeState.DONE


def test_changes_of_an_archived_budget_are_cancelled(budget: Budget) -> None:
    change = plan(budget, 500, starts_at=NOW + HOUR, ends_at=NOW + 2 * HOUR)
    archive_budget(
        organization_id=budget.organization_id, budget_id=budget.id, actor=ACTOR, now=NOW
    )
    assert at(NOW + HOUR) == 1
    change.refresh_from_db()
    assert change.state == ChangeState.CANCELLED


def test_a_pending_change_can_be_cancelled_once(world: World, budget: Budget) -> None:
    change = plan(budget, 500, starts_at=NOW + HOUR, ends_at=NOW + 2 * HOUR)
    where: dict[str, Any] = {"change_id": change.id, "actor": ACTOR, "now": NOW}
    with pytest.raises(ChangeNotFoundError):
        cancel_change(organization_id=make_world("other").id, **where)
    cancel_change(organization_id=world.id, **where)
    with pytest.raises(ChangeClosedError, match="cancelled"):
        cancel_change(organization_id=world.id, **where)
    assert at(NOW + HOUR) == 0


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"amount": 0}, "amount"),
        ({"amount": -5}, "amount"),
        ({"amount": MAX_AMOUNT}, "amount"),
        ({"reason": "  "}, "reason"),
        ({"starts_at": NOW - HOUR}, "starts_at"),
        ({"ends_at": None}, "ends_at"),
        ({"ends_at": NOW}, "ends_at"),
        ({"starts_at": NOW + 2 * HOUR}, "ends_at"),
        ({"ends_at": NOW + timedelta(days=2_000)}, "ends_at"),
        ({"kind": ChangeKind.LIMIT}, "ends_at"),
    ],
)
def test_what_cannot_be_planned(budget: Budget, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(BudgetValidationError) as caught:
        plan(budget, **{"amount": 500} | fields)
    assert caught.value.field == field
    assert not BudgetChange.objects.exists()


def test_plans_are_bounded(budget: Budget) -> None:
    for _ in range(MAX_OPEN):
        plan(budget, 1, starts_at=NOW + HOUR, ends_at=NOW + 2 * HOUR)
    with pytest.raises(BudgetValidationError, match="at most"):
        plan(budget, 1)


def test_the_trail_says_who_planned_and_what_the_schedule_did(budget: Budget) -> None:
    plan(budget, 500)
    at(NOW + HOUR)
    trail = AuditEntry.objects.filter(object_id=str(budget.id)).order_by("id")
    assert [(entry.action, entry.actor_label) for entry in trail][1:] == [
        ("budget.plan", ACTOR.label),
        ("budget.change", ACTOR.label),
        ("budget.change", "schedule"),
    ]
