"""Limits that change by the clock: a new limit from an instant on, an increase for a while.

1. A change is pending until its time, then done (a limit) or active until its end (an increase).
2. Increases add up, on top of whatever the limit is meanwhile, for every balance of the budget.
3. The task applies what is due within seconds; a change whose whole time passed while nothing ran
   is done without having held.
4. What ends leaves balances above their limit as any lowered limit does: the cap stays at what is
   committed and falls as money comes home (L9).
"""

from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet, Sum

from budgets.domain import locks
from budgets.domain.budgets import change_budget, live_budget, record_change, set_increase
from budgets.domain.checks import MAX_AMOUNT, check_amount
from budgets.enums import ChangeKind, ChangeState
from budgets.errors import (
    BudgetValidationError,
    ChangeClosedError,
    ChangeNotFoundError,
)
from budgets.models import BudgetChange
from controlplane.audit.domain import Actor

MAX_OPEN = 100  # changes of one budget that are still to come or to end
FURTHEST = timedelta(days=2 * 366)
OPEN = (ChangeState.PENDING, ChangeState.ACTIVE)


@transaction.atomic
def plan_change(
    *,
    organization_id: UUID,
    budget_id: UUID,
    kind: ChangeKind,
    amount: int,
    starts_at: datetime | None,
    ends_at: datetime | None,
    actor: Actor,
    reason: str,
    now: datetime,
) -> BudgetChange:
    """Plan a change; without `starts_at` it holds from now on.

    Raises:
        BudgetValidationError: it cannot be meant; `field` tells where.
    """
    locks.lock_budgets(organization_id)
    budget = live_budget(organization_id, budget_id)
    begins = starts_at or now
    change = BudgetChange(
        organization_id=organization_id,
        budget=budget,
        kind=kind.value,
        amount=amount,
        starts_at=begins,
        ends_at=ends_at,
        actor=actor.label,
        reason=reason.strip(),
        created_at=now,
    )
    _check(change, now=now)
    change.save(force_insert=True)
    _record(change, "budget.plan", actor=actor, now=now)
    if begins <= now:
        _begin(change, actor=actor, now=now)
    return change


@transaction.atomic
def cancel_change(
    *, organization_id: UUID, change_id: UUID, actor: Actor, now: datetime, reason: str = ""
) -> BudgetChange:
    """Cancel a change that is to come, or end an increase before its time.

    Raises:
        ChangeNotFoundError: the organization has no such change.
        ChangeClosedError: it is done, or cancelled already.
    """
    locks.lock_budgets(organization_id)
    change = _locked(Q(organization_id=organization_id, id=change_id)).first()
    if change is None:
        raise ChangeNotFoundError(f"no change {change_id}")
    if change.state not in OPEN:
        raise ChangeClosedError(f"the change is {change.state}")
    was_active = change.state == ChangeState.ACTIVE
    _close(change, ChangeState.CANCELLED, now=now)
    if was_active:
        _bring_increases(change, actor=actor, now=now, reason=reason or "increase cancelled")
    _record(change, "budget.cancel_plan", actor=actor, now=now, reason=reason)
    return change


def apply_due_changes(*, now: datetime, most: int = 500) -> int:
    """Begin and end what is due. Each change in its own transaction; how many it were."""
    due = BudgetChange.objects.filter(
        Q(state=ChangeState.PENDING, starts_at__lte=now)
        | Q(state=ChangeState.ACTIVE, ends_at__lte=now)
    ).order_by("starts_at", "id")
    return sum(_apply(*place, now=now) for place in due.values_list("organization_id", "id")[:most])


@transaction.atomic
def _apply(organization_id: UUID, change_id: UUID, *, now: datetime) -> bool:
    locks.lock_budgets(organization_id)
    change = _locked(Q(id=change_id)).first()
    if change is None or change.state not in OPEN:
        return False  # another worker, or a person, was faster
    actor = Actor.system("schedule")
    ended = change.ends_at is not None and change.ends_at <= now
    if change.budget.archived_at is not None:
        _close(change, ChangeState.CANCELLED, now=now)
    elif change.state == ChangeState.ACTIVE:
        _close(change, ChangeState.DONE, now=now)
        _bring_increases(change, actor=actor, now=now, reason=f"ended: {change.reason}")
    elif ended:
        _close(change, ChangeState.DONE, now=now)
    else:
        _begin(change, actor=actor, now=now)
    return True


def _begin(change: BudgetChange, *, actor: Actor, now: datetime) -> None:
    if change.kind == ChangeKind.INCREASE:
        change.state = ChangeState.ACTIVE
        change.save(update_fields=["state"])
        _bring_increases(change, actor=actor, now=now, reason=change.reason)
        return
    change_budget(
        organization_id=change.organization_id,
        budget_id=change.budget_id,
        changes={"limit_amount": change.amount},
        actor=actor,
        now=now,
        reason=change.reason,
    )
    _close(change, ChangeState.DONE, now=now)


def _bring_increases(change: BudgetChange, *, actor: Actor, now: datetime, reason: str) -> None:
    """Let the budget have the sum of the increases that are active."""
    active = BudgetChange.objects.filter(budget=change.budget_id, state=ChangeState.ACTIVE)
    set_increase(
        organization_id=change.organization_id,
        budget_id=change.budget_id,
        amount=int(active.aggregate(sum=Sum("amount"))["sum"] or 0),
        actor=actor,
        now=now,
        reason=reason,
    )


def _close(change: BudgetChange, state: ChangeState, *, now: datetime) -> None:
    change.state, change.closed_at = state, now
    change.save(update_fields=["state", "closed_at"])


def _locked(wanted: Q) -> QuerySet[BudgetChange]:
    rows = BudgetChange.objects.select_related("budget").filter(wanted)
    return rows.select_for_update(of=("self",))


def _check(change: BudgetChange, *, now: datetime) -> None:
    budget, starts_at, ends_at = change.budget, change.starts_at, change.ends_at
    check_amount("amount", change.amount, most=MAX_AMOUNT, unit=budget.unit)
    if change.kind == ChangeKind.INCREASE:
        total = budget.effective_limit + change.amount
        check_amount("amount", total, most=MAX_AMOUNT, unit=budget.unit)
    if not change.reason:
        raise BudgetValidationError("reason", "say why: it is kept in the audit trail")
    if starts_at < now - timedelta(minutes=1):
        raise BudgetValidationError("starts_at", "a change cannot begin in the past")
    if change.kind == ChangeKind.LIMIT and ends_at is not None:
        raise BudgetValidationError("ends_at", "a new limit does not end; plan an increase instead")
    if change.kind == ChangeKind.INCREASE and ends_at is None:
        raise BudgetValidationError("ends_at", "an increase needs an end")
    if ends_at is not None and ends_at <= max(starts_at, now):
        raise BudgetValidationError("ends_at", "it must end after it begins")
    for field, instant in (("starts_at", starts_at), ("ends_at", ends_at)):
        if instant is not None and instant > now + FURTHEST:
            raise BudgetValidationError(field, "that is more than two years ahead")
    if BudgetChange.objects.filter(budget=budget, state__in=OPEN).count() >= MAX_OPEN:
        raise BudgetValidationError("amount", f"a budget has at most {MAX_OPEN} planned changes")


def _record(
    change: BudgetChange, action: str, *, actor: Actor, now: datetime, reason: str = ""
) -> None:
    record_change(
        change.budget,
        action,
        actor=actor,
        now=now,
        reason=reason or change.reason,
        after={
            "change": str(change.id),
            "kind": str(change.kind),
            "amount": change.amount,
            "starts_at": change.starts_at.isoformat(),
            "ends_at": change.ends_at.isoformat() if change.ends_at else None,
            "state": str(change.state),
        },
    )
