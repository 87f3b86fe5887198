"""Limits of single split values that differ from the limit of their budget."""

from datetime import datetime
from difflib import get_close_matches
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from budgets.domain import locks
from budgets.domain.balances import apply_limit
from budgets.domain.budgets import live_budget, record_change
from budgets.domain.checks import MAX_AMOUNT, check_amount
from budgets.errors import BudgetValidationError, OverrideNotFoundError
from budgets.models import Budget, BudgetOverride
from controlplane.audit.domain import Actor
from controlplane.identity.models import Agent, Project, Team
from enforcement.rules.policy import Per

MAX_OVERRIDES = 10_000
MAX_VALUE_CHARS = 200


@transaction.atomic
def set_override(
    *,
    organization_id: UUID,
    budget_id: UUID,
    value: str,
    limit_amount: int,
    actor: Actor,
    now: datetime,
    reason: str = "",
) -> BudgetOverride:
    """Give one split value a limit of its own, now and in every later window.

    Raises:
        BudgetValidationError: the budget has no split, or none with this value.
    """
    budget = _split(organization_id, budget_id)
    value = _value(budget, value)
    check_amount("limit_amount", limit_amount, most=MAX_AMOUNT, unit=budget.unit)
    known = BudgetOverride.objects.filter(budget=budget, value=value).first()
    if known is None and budget.overrides.count() >= MAX_OVERRIDES:
        raise BudgetValidationError("value", f"a budget has at most {MAX_OVERRIDES} own limits")
    before = None if known is None else {"value": value, "limit_amount": known.limit_amount}
    override, _ = BudgetOverride.objects.update_or_create(
        budget=budget,
        value=value,
        defaults={"limit_amount": limit_amount},
        create_defaults={
            "organization_id": organization_id,
            "limit_amount": limit_amount,
            "created_at": now,
        },
    )
    apply_limit(budget, value=value, actor=actor, now=now, reason=reason or "own limit set")
    after = {"value": value, "limit_amount": limit_amount}
    record_change(
        budget,
        "budget.override",
        actor=actor,
        now=now,
        reason=reason,
        before=before,
        after=after,
    )
    return override


@transaction.atomic
def clear_override(
    *,
    organization_id: UUID,
    budget_id: UUID,
    value: str,
    actor: Actor,
    now: datetime,
    reason: str = "",
) -> None:
    """Let a split value have its budget's limit again.

    Raises:
        OverrideNotFoundError: it has no limit of its own.
    """
    budget = _split(organization_id, budget_id)
    known = BudgetOverride.objects.filter(budget=budget, value=value).first()
    if known is None:
        raise OverrideNotFoundError(f"budget {budget.name!r} has no own limit for {value!r}")
    before = {"value": value, "limit_amount": known.limit_amount}
    known.delete()
    apply_limit(budget, value=value, actor=actor, now=now, reason=reason or "own limit cleared")
    record_change(budget, "budget.override", actor=actor, now=now, reason=reason, before=before)


def _split(organization_id: UUID, budget_id: UUID) -> Budget:
    locks.lock_budgets(organization_id)
    budget = live_budget(organization_id, budget_id)
    if not budget.per:
        raise BudgetValidationError("value", "only a split budget has values; change its limit")
    return budget


def _value(budget: Budget, value: str) -> str:
    """The value as balances have it: for teams, projects and agents an id, or a slug to find it.

    Raises:
        BudgetValidationError: nothing of the organization is named so.
    """
    ids = _ids(budget)
    if ids is None:
        if not 1 <= len(value) <= MAX_VALUE_CHARS or not value.isprintable():
            raise BudgetValidationError(
                "value", f"a value has 1 to {MAX_VALUE_CHARS} printable characters"
            )
        return value
    if value in ids:
        return value
    by_slug = {slug: row_id for row_id, slug in ids.items()}
    if value in by_slug:
        return by_slug[value]
    nearest = get_close_matches(value, sorted(by_slug), n=1, cutoff=0.4)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise BudgetValidationError("value", f"no {budget.per} {value!r}{hint}")


def _ids(budget: Budget) -> dict[str, str] | None:
    """The slugs of all that the budget is split by, by their ids; None for a split by a name."""
    rows: QuerySet[Any]
    match budget.per:
        case Per.TEAM.value:
            rows = Team.objects.all()
        case Per.PROJECT.value:
            rows = Project.objects.all()
        case Per.AGENT.value:
            rows = Agent.objects.all()
        case _:
            return None
    found = rows.filter(organization_id=budget.organization_id).values_list("id", "slug")
    return {str(row_id): slug for row_id, slug in found}
