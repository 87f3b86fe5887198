"""Thresholds of a budget: what they may be, and what those that were reached do now.

`enforcement.rules.thresholds` has the rules; `enforcement.domain.thresholds` watches balances.
"""

from datetime import datetime
from uuid import UUID

import msgspec
from django.db import transaction
from django.db.models import Q

from budgets.domain.checks import MAX_AMOUNT, check_known
from budgets.errors import BudgetValidationError, FiringNotFoundError, UnknownFactError
from budgets.models import Budget, ThresholdFiring
from controlplane.audit.domain import Actor, record
from controlplane.identity.domain import bump_policy
from enforcement.rules.policy import Measure, Mode, Per, ScopeKind, Unit
from enforcement.rules.thresholds import (
    MEASURES,
    Action,
    ActionKind,
    Threshold,
    ThresholdError,
    read_thresholds,
)

MAX_MEASURES = 10_000  # in one policy: the newest
_KILLABLE = (Per.NONE.value, Per.AGENT.value, Per.PROJECT.value, Per.TEAM.value)
_OBSERVED = frozenset({ActionKind.NOTIFY})


def set_thresholds(budget: Budget) -> None:
    """Check the thresholds that a budget was given, and keep them in order.

    Raises:
        BudgetValidationError: they cannot be meant for this budget.
    """
    try:
        found = read_thresholds(budget.thresholds)
    except ThresholdError as error:
        raise BudgetValidationError("thresholds", str(error)) from error
    for threshold in found:
        for action in threshold.actions:
            _check(budget, threshold, action)
    budget.thresholds = msgspec.to_builtins(found)


def thresholds_of(budget: Budget) -> list[Threshold]:
    """A budget's thresholds, the lowest first."""
    return msgspec.convert(budget.thresholds, list[Threshold])


def _check(budget: Budget, threshold: Threshold, action: Action) -> None:
    where = f"{threshold.percent} %"
    if budget.mode == Mode.OBSERVE and action.kind not in _OBSERVED:
        raise BudgetValidationError(
            "thresholds", f"{where}: a budget that observes can only notify, not {action.kind}"
        )
    if action.kind is ActionKind.KILL and budget.per not in _KILLABLE:
        raise BudgetValidationError(
            "thresholds",
            f"{where}: kill needs to know whom: split by agent, project or team, or not at all",
        )
    if action.kind is ActionKind.APPROVAL and budget.unit == Unit.CONCURRENCY:
        raise BudgetValidationError("thresholds", f"{where}: permits are raised by their limit")
    if action.kind is ActionKind.REROUTE:
        try:
            check_known(budget.organization_id, "model", [action.model])
        except UnknownFactError as error:
            raise BudgetValidationError("thresholds", f"{where}: {error.message}") from error
    if action.amount > MAX_AMOUNT - budget.effective_limit:
        raise BudgetValidationError("thresholds", f"{where}: no balance can have so much more")


# ------------------------------------------------------------------------------ what holds now


def active_measures(organization_id: UUID) -> list[Measure]:
    """What reached thresholds do to calls, for the policy of sidecars."""
    firings = ThresholdFiring.objects.filter(
        organization_id=organization_id,
        rearmed_at__isnull=True,
        lifted_at__isnull=True,
        budget__archived_at__isnull=True,
    ).order_by("-fired_at", "-id")
    rows = firings.values_list("budget_id", "balance__value", "percent", "actions")
    return [
        Measure(
            budget=str(budget_id),
            value=value,
            kind=action.kind.value,
            percent=percent,
            requests_per_minute=action.requests_per_minute,
            model=action.model,
        )
        for budget_id, value, percent, actions in rows[:MAX_MEASURES]
        for action in msgspec.convert(actions, list[Action])
        if action.kind in MEASURES
    ]


@transaction.atomic
def lift_firing(
    *, organization_id: UUID, firing_id: UUID, actor: Actor, reason: str, now: datetime
) -> ThresholdFiring:
    """A person ends what a reached threshold does. It fires anew only after it was armed again.

    Raises:
        FiringNotFoundError: the organization has no such firing that still holds.
        BudgetValidationError: no reason is given.
    """
    if not reason.strip():
        raise BudgetValidationError("reason", "say why: it is kept in the audit trail")
    firing = (
        ThresholdFiring.objects.select_for_update(of=("self",))
        .select_related("budget", "balance")
        .filter(
            Q(organization_id=organization_id, id=firing_id),
            rearmed_at__isnull=True,
            lifted_at__isnull=True,
        )
        .first()
    )
    if firing is None:
        raise FiringNotFoundError(f"no threshold {firing_id} holds")
    firing.lifted_at, firing.lifted_by = now, actor.label
    firing.save(update_fields=["lifted_at", "lifted_by"])
    bump_policy(organization_id)
    record(
        organization_id=organization_id,
        actor=actor,
        action="budget.threshold_lift",
        object_kind="budget",
        object_id=str(firing.budget_id),
        reason=reason,
        before={"percent": firing.percent, "basis": firing.basis, "actions": firing.actions},
        now=now,
    )
    return firing


def agents_filter(budget: Budget, value: str) -> Q:
    """The agents whose use a balance counts, as a filter on agents; filters are not looked at."""
    kinds = {Per.AGENT.value: "id", Per.PROJECT.value: "project_id"}
    within = {
        ScopeKind.AGENT: Q(id=budget.scope_id),
        ScopeKind.SESSION: Q(id=budget.scope_id),
        ScopeKind.PROJECT: Q(project_id=budget.scope_id),
        ScopeKind.TEAM: Q(project__team_id=budget.scope_id),
        ScopeKind.ORGANIZATION: Q(),
    }[ScopeKind(budget.scope_kind)]
    if not budget.per:
        return within
    if not value:
        return Q(pk__in=[])
    field = kinds.get(budget.per, "project__team_id")
    return within & Q(**{field: value})
