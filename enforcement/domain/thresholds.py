"""Watch balances, and act when they reach a threshold of their budget.

Each firing is one row that the database allows once until it is armed again, so two workers never
act twice. What it does once (notify, ask, kill) happens in the transaction that makes the row; what
lasts is read from the row when the policy is compiled.
"""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import msgspec
import structlog
from django.db import IntegrityError, transaction
from django.db.models import Q

from budgets.domain.approvals import ask_approval, expire_approvals
from budgets.domain.notifications import notify
from budgets.domain.thresholds import agents_filter, thresholds_of
from budgets.enums import WindowKind
from budgets.models import Balance, Budget, ThresholdFiring
from controlplane.audit.domain import Actor, record
from controlplane.identity.domain import bump_policy
from controlplane.identity.models import Agent
from enforcement.domain.orders import order_agent
from enforcement.rules.policy import AgentState, OrderKind, Unit
from enforcement.rules.thresholds import (
    MEASURES,
    Action,
    ActionKind,
    Basis,
    Reading,
    Step,
    Threshold,
    judge,
    line_of,
)
from enforcement.rules.windows import EPOCH

ACTOR = Actor.system("threshold")
Firings = dict[tuple[UUID, str, int], ThresholdFiring]


def watch(*, now: datetime, since: datetime | None = None) -> int:
    """Judge the balances that changed since an instant, or all. How many steps were taken."""
    budgets = {
        budget.id: budget
        for budget in Budget.objects.filter(archived_at__isnull=True).exclude(thresholds=[])
    }
    balances = Balance.objects.filter(
        Q(window_end__isnull=True) | Q(window_end__gt=now),
        budget_id__in=budgets,
        window_start__lte=now,
        closed_at__isnull=True,
    )
    if since is not None:
        balances = balances.filter(updated_at__gte=since)
    rows = list(balances.order_by("id"))
    firings = _open_firings(balance.id for balance in rows)
    return sum(_judge_all(budgets[row.budget_id], row, firings, now=now) for row in rows)


def retire_firings(*, now: datetime) -> int:
    """Arm again what can hold no longer: its window or budget is over, or it was taken away."""
    holding = ThresholdFiring.objects.filter(rearmed_at__isnull=True)
    over = holding.filter(Q(balance__window_end__lte=now) | Q(budget__archived_at__isnull=False))
    stale = {firing.id for firing in over.only("id")}
    changed = holding.select_related("budget").exclude(id__in=stale)
    for firing in changed:
        places = {threshold.place for threshold in thresholds_of(firing.budget)}
        if (firing.basis, firing.percent) not in places:
            stale.add(firing.id)
    expire_approvals(now=now)
    return sum(_rearm(firing_id, now=now) for firing_id in sorted(stale))


def _open_firings(balances: Iterable[UUID]) -> Firings:
    rows = ThresholdFiring.objects.filter(balance_id__in=list(balances), rearmed_at__isnull=True)
    return {(row.balance_id, row.basis, row.percent): row for row in rows}


def _judge_all(budget: Budget, balance: Balance, firings: Firings, *, now: datetime) -> int:
    reading = reading_of(budget, balance, now=now)
    steps = 0
    for threshold in thresholds_of(budget):
        firing = firings.get((balance.id, *threshold.place))
        step = judge(
            reading,
            basis=threshold.basis,
            percent=threshold.percent,
            fired_limit=firing.limit_amount if firing else None,
        )
        if step is Step.FIRE:
            steps += _fire(budget, balance, threshold, reading, now=now)
        elif step is Step.REARM and firing is not None:
            steps += _rearm(firing.id, now=now)
    return steps


def reading_of(budget: Budget, balance: Balance, *, now: datetime) -> Reading:
    """Where a balance stands. Permits are used while they are out."""
    used = balance.spent_amount + balance.overrun_amount
    if budget.unit == Unit.CONCURRENCY:
        used = balance.held_amount + balance.suspense_amount
    begun = balance.window_start
    if budget.window_kind != WindowKind.CALENDAR:
        begun = max(begun, budget.created_at)
    return Reading(
        used=used,
        limit=balance.limit_amount,
        start_ms=_ms(begun),
        now_ms=_ms(now),
        end_ms=_ms(balance.window_end) if balance.window_end else None,
    )


@transaction.atomic
def _fire(
    budget: Budget, balance: Balance, threshold: Threshold, reading: Reading, *, now: datetime
) -> bool:
    firing = ThresholdFiring(
        organization_id=budget.organization_id,
        budget=budget,
        balance=balance,
        basis=threshold.basis.value,
        percent=threshold.percent,
        actions=msgspec.to_builtins(threshold.actions),
        used_amount=reading.used,
        limit_amount=reading.limit,
        fired_at=now,
    )
    try:
        with transaction.atomic():
            firing.save(force_insert=True)
    except IntegrityError:
        return False  # another worker was faster
    told = _told(budget, balance, threshold)
    for action in threshold.actions:
        _act(budget, balance, action, told, now=now)
    if any(action.kind in MEASURES for action in threshold.actions):
        bump_policy(budget.organization_id)
    record(
        organization_id=budget.organization_id,
        actor=ACTOR,
        action="budget.threshold",
        object_kind="budget",
        object_id=str(budget.id),
        reason=told,
        after={"value": balance.value, "used": reading.used, "limit": reading.limit},
        now=now,
    )
    structlog.get_logger("enforcement").warning("threshold reached", budget=str(budget.id))
    return True


def _told(budget: Budget, balance: Balance, threshold: Threshold) -> str:
    whose = f" ({budget.per} {balance.value})" if balance.value else ""
    verb = "will reach" if threshold.basis is Basis.FORECAST else "has reached"
    return f"{budget.name}{whose} {verb} {line_of(threshold)}"


def _act(budget: Budget, balance: Balance, action: Action, told: str, *, now: datetime) -> None:
    match action.kind:
        case ActionKind.NOTIFY:
            notify(organization_id=budget.organization_id, title=told, budget=budget, now=now)
        case ActionKind.APPROVAL:
            ask_approval(balance, amount=action.amount, reason=told, now=now)
        case ActionKind.KILL:
            agents = Agent.objects.filter(
                agents_filter(budget, balance.value),
                organization_id=budget.organization_id,
                retired_at__isnull=True,
            ).exclude(state=AgentState.KILLED.value)
            for agent_id in list(agents.order_by("id").values_list("id", flat=True)):
                order_agent(
                    organization_id=budget.organization_id,
                    agent_id=agent_id,
                    kind=OrderKind.KILL,
                    reason=told,
                    actor=ACTOR,
                    now=now,
                )
        case _:
            return  # a measure: the policy has it from the row


@transaction.atomic
def _rearm(firing_id: UUID, *, now: datetime) -> bool:
    rows = ThresholdFiring.objects.filter(id=firing_id, rearmed_at__isnull=True)
    if not rows.update(rearmed_at=now):
        return False
    firing = ThresholdFiring.objects.get(id=firing_id)
    actions = msgspec.convert(firing.actions, list[Action])
    if firing.lifted_at is None and any(action.kind in MEASURES for action in actions):
        bump_policy(firing.organization_id)
    return True


def _ms(instant: datetime) -> int:
    return int((instant - EPOCH).total_seconds() * 1000)
