"""Make, change, archive and arm budgets: each with its audit entry, in one transaction."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from budgets.domain import locks
from budgets.domain.balances import apply_limit
from budgets.domain.checks import MAX_AMOUNT, check_amount, check_shape, check_window
from budgets.domain.earlier import book_earlier_use
from budgets.domain.rollover import begin_rollover
from budgets.domain.scopes import Scope, bounds_callers, is_covered, scopes_above
from budgets.domain.thresholds import set_thresholds
from budgets.enums import BudgetState, Rollover, WindowKind
from budgets.errors import (
    BudgetArchivedError,
    BudgetNameTakenError,
    BudgetNotFoundError,
    BudgetValidationError,
    UncoveredSplitError,
)
from budgets.models import Budget
from controlplane.audit.domain import Actor, record
from controlplane.identity.domain import bump_policy
from enforcement.rules.matching import is_client_named
from enforcement.rules.policy import HoldMode, Mode, Overflow, Per, ScopeKind, Unit
from enforcement.rules.rolling import usual_parts

MAX_SPLIT_VALUES = 1_000_000
CHANGEABLE = frozenset(
    {
        "name",
        "limit_amount",
        "mode",
        "hold_mode",
        "max_values",
        "overflow",
        "rollover",
        "rollover_amount",
        "thresholds",
    }
)


@dataclass(frozen=True, kw_only=True)
class BudgetSpec:
    """What a new budget shall be. Checked by `create_budget`."""

    name: str
    scope_kind: ScopeKind
    scope_id: UUID
    unit: Unit
    limit_amount: int
    scope_session: str = ""
    filters: dict[str, list[str]] = field(default_factory=dict)
    per: str = Per.NONE.value
    mode: Mode = Mode.HARD
    hold_mode: HoldMode = HoldMode.STRICT
    window_kind: WindowKind = WindowKind.LIFETIME
    period: str = ""
    time_zone: str = "UTC"
    anchor_day: int = 1
    anchor_month: int = 1
    ends_at: datetime | None = None
    rolling_s: int | None = None
    rolling_parts: int = 0  # 0: as many as suit the length
    rollover: Rollover = Rollover.NONE
    rollover_amount: int | None = None
    max_values: int = 10_000
    overflow: Overflow = Overflow.REFUSE
    thresholds: list[dict[str, Any]] = field(default_factory=list)


@transaction.atomic
def create_budget(
    *, organization_id: UUID, spec: BudgetSpec, actor: Actor, now: datetime, reason: str = ""
) -> Budget:
    """Make a budget. A hard one arms when every book has learned of it (`arm_budgets`).

    What was used before in the current calendar window is booked at once, so that a month's
    budget made in its middle counts the whole month. A lifetime begins with its budget.

    Raises:
        BudgetValidationError: the budget cannot be meant; `field` tells where.
    """
    budget = Budget(organization_id=organization_id, created_at=now, **vars(spec))
    if budget.rolling_s is not None and not budget.rolling_parts:
        budget.rolling_parts = usual_parts(budget.rolling_s)
    locks.lock_budgets(organization_id)
    if budget.ends_at is not None and budget.ends_at <= now:
        raise BudgetValidationError("ends_at", "that is over already: give an instant to come")
    _check(budget)
    scopes_above(organization_id=organization_id, kind=spec.scope_kind, scope_id=spec.scope_id)
    _check_coverage(budget)
    _enter_force(budget, now=now)
    budget.policy_revision = bump_policy(organization_id)
    budget.save(force_insert=True)
    book_earlier_use(budget, actor=actor, now=now)
    begin_rollover(budget, now=now)
    record_change(
        budget, "budget.create", actor=actor, now=now, reason=reason, after=describe(budget)
    )
    return budget


@transaction.atomic
def change_budget(
    *,
    organization_id: UUID,
    budget_id: UUID,
    changes: Mapping[str, Any],
    actor: Actor,
    now: datetime,
    reason: str = "",
) -> Budget:
    """Change name, limit, mode, hold mode or the number of split values.

    A lowered limit may leave balances above it: their cap stays at what is committed and falls as
    money comes home.

    Raises:
        BudgetValidationError: a field cannot be changed, or not to that.
    """
    locks.lock_budgets(organization_id)
    budget = live_budget(organization_id, budget_id)
    fixed = sorted(set(changes) - CHANGEABLE)
    if fixed:
        raise BudgetValidationError(fixed[0], f"{fixed[0]} never changes; make a new budget")
    before, was_hard, old_limit = describe(budget), budget.mode == Mode.HARD, budget.limit_amount
    for name, value in changes.items():
        setattr(budget, name, value)
    after = describe(budget)
    if after == before:
        return budget
    _check(budget)
    _check_coverage(budget)
    if was_hard and not bounds_callers(budget):
        _check_dependents(budget)
    hard = budget.mode == Mode.HARD
    if hard != was_hard or (hard and budget.limit_amount < old_limit):
        _enter_force(budget, now=now)
    budget.policy_revision = bump_policy(organization_id)
    budget.save(force_update=True)
    if hard != was_hard or budget.limit_amount != old_limit:
        apply_limit(budget, actor=actor, now=now, reason=reason or "limit changed")
    if before["rollover"] == Rollover.NONE:
        begin_rollover(budget, now=now)
    record_change(
        budget,
        "budget.change",
        actor=actor,
        now=now,
        reason=reason,
        before={key: value for key, value in before.items() if value != after[key]},
        after={key: value for key, value in after.items() if value != before[key]},
    )
    return budget


@transaction.atomic
def set_increase(
    *, organization_id: UUID, budget_id: UUID, amount: int, actor: Actor, now: datetime, reason: str
) -> Budget:
    """Let the temporary increases of a budget be so much in all. Less of them narrows it (L12).

    Raises:
        BudgetValidationError: no amount can be as large as limit and increases together.
    """
    locks.lock_budgets(organization_id)
    budget = live_budget(organization_id, budget_id)
    before = budget.increase_amount
    if amount == before:
        return budget
    check_amount("amount", budget.limit_amount + amount, most=MAX_AMOUNT, unit=budget.unit)
    budget.increase_amount = amount
    if budget.mode == Mode.HARD and amount < before:
        _enter_force(budget, now=now)
    budget.policy_revision = bump_policy(organization_id)
    budget.save(force_update=True)
    apply_limit(budget, actor=actor, now=now, reason=reason)
    record_change(
        budget,
        "budget.change",
        actor=actor,
        now=now,
        reason=reason,
        before={"increase_amount": before},
        after={"increase_amount": amount},
    )
    return budget


@transaction.atomic
def archive_budget(
    *, organization_id: UUID, budget_id: UUID, actor: Actor, now: datetime, reason: str = ""
) -> Budget:
    """End a budget. Its ledger stays; what is still leased comes home as it would have.

    Raises:
        UncoveredSplitError: it is the last one that bounds a hard budget for sessions or users.
    """
    locks.lock_budgets(organization_id)
    budget = live_budget(organization_id, budget_id)
    budget.archived_at = now
    _check_dependents(budget)
    budget.policy_revision = bump_policy(organization_id)
    budget.save(force_update=True)
    record_change(
        budget, "budget.archive", actor=actor, now=now, reason=reason, before=describe(budget)
    )
    return budget


@transaction.atomic
def arm_budgets(*, organization_id: UUID, revision: int, now: datetime) -> list[UUID]:
    """Arm the budgets that every book knows: `revision` is the oldest that any still works by.

    Called when a book has acknowledged a revision, or its policy lease has run out (L12). The
    sidecars need not learn of it, so the policy's revision stays.
    """
    budgets = list(
        Budget.objects.select_for_update(no_key=True)
        .filter(
            organization_id=organization_id,
            state=BudgetState.ARMING,
            policy_revision__lte=revision,
            archived_at__isnull=True,
        )
        .order_by("id")
    )
    for budget in budgets:
        budget.state, budget.armed_at = BudgetState.ARMED, now
        budget.save(update_fields=["state", "armed_at"])
    return [budget.id for budget in budgets]


def describe(budget: Budget) -> dict[str, Any]:
    """A budget as the audit trail keeps it."""
    return {
        "name": budget.name,
        "scope_kind": str(budget.scope_kind),
        "scope_id": str(budget.scope_id),
        "scope_session": budget.scope_session,
        "filters": budget.filters,
        "per": str(budget.per),
        "unit": str(budget.unit),
        "window_kind": str(budget.window_kind),
        "period": str(budget.period),
        "time_zone": budget.time_zone,
        "anchor_day": budget.anchor_day,
        "anchor_month": budget.anchor_month,
        "ends_at": budget.ends_at.isoformat() if budget.ends_at else None,
        "rolling_s": budget.rolling_s,
        "rolling_parts": budget.rolling_parts,
        "rollover": str(budget.rollover),
        "rollover_amount": budget.rollover_amount,
        "mode": str(budget.mode),
        "hold_mode": str(budget.hold_mode),
        "limit_amount": budget.limit_amount,
        "max_values": budget.max_values,
        "overflow": str(budget.overflow),
        "thresholds": budget.thresholds,
    }


def live_budget(organization_id: UUID, budget_id: UUID) -> Budget:
    """The budget, locked. Call it under `lock_budgets`.

    Raises:
        BudgetNotFoundError: the organization has none with this id.
        BudgetArchivedError: it has ended.
    """
    budget = (
        Budget.objects.select_for_update()
        .filter(organization_id=organization_id, id=budget_id)
        .first()
    )
    if budget is None:
        raise BudgetNotFoundError(f"no budget {budget_id}")
    if budget.archived_at is not None:
        raise BudgetArchivedError(f"budget {budget.name!r} is archived")
    return budget


def _enter_force(budget: Budget, *, now: datetime) -> None:
    hard = budget.mode == Mode.HARD
    budget.state = BudgetState.ARMING if hard else BudgetState.ARMED
    budget.armed_at = None if hard else now


def _check(budget: Budget) -> None:
    """Refuse what cannot be meant, in words; the table's own constraints stand behind it."""
    budget.name = budget.name.strip()
    if not budget.name:
        raise BudgetValidationError("name", "a budget needs a name")
    if len(budget.name) > 200:
        raise BudgetValidationError("name", "a name has at most 200 characters")
    check_amount("limit_amount", budget.limit_amount, most=MAX_AMOUNT, unit=budget.unit)
    check_amount("max_values", budget.max_values, most=MAX_SPLIT_VALUES, unit="")
    check_shape(budget)
    if budget.mode != Mode.HARD and budget.hold_mode == HoldMode.METERED:
        raise BudgetValidationError("hold_mode", "only a hard budget holds anything")
    check_window(budget)
    set_thresholds(budget)
    taken = Budget.objects.filter(
        organization_id=budget.organization_id, name=budget.name, archived_at__isnull=True
    )
    if taken.exclude(id=budget.id).exists():
        raise BudgetNameTakenError(budget.name)


def _others(budget: Budget) -> list[Budget]:
    return list(
        Budget.objects.filter(
            organization_id=budget.organization_id, archived_at__isnull=True
        ).exclude(id=budget.id)
    )


def _needs_cover(budget: Budget) -> bool:
    return budget.mode == Mode.HARD and is_client_named(budget.per)


def _check_coverage(budget: Budget) -> None:
    if _needs_cover(budget) and not is_covered(budget, by=_others(budget)):
        raise UncoveredSplitError(per=budget.per)


def _check_dependents(budget: Budget) -> None:
    """A budget that stops bounding callers must not leave a split one without one above."""
    scope, others = Scope(ScopeKind(budget.scope_kind), budget.scope_id), _others(budget)
    for other in others:
        if not _needs_cover(other) or is_covered(other, by=others):
            continue
        above = scopes_above(
            organization_id=other.organization_id,
            kind=ScopeKind(other.scope_kind),
            scope_id=other.scope_id,
        )
        if scope in above:
            raise UncoveredSplitError("mode", per=other.per)


def record_change(
    budget: Budget,
    action: str,
    *,
    actor: Actor,
    now: datetime,
    reason: str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Write what was done to a budget into the audit trail."""
    record(
        organization_id=budget.organization_id,
        actor=actor,
        action=action,
        object_kind="budget",
        object_id=str(budget.id),
        reason=reason,
        before=before,
        after=after,
        now=now,
    )
