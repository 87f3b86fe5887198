"""Our own recorded calls, replayed against proposed budgets."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from budgets.domain.charging import tokens_of
from budgets.errors import BudgetValidationError
from budgets.models import UsageEvent
from controlplane.identity.models import Agent, Project, Team
from enforcement.rules.backtest import BacktestError, Call, Report, replay
from enforcement.rules.policy import BudgetPolicy
from enforcement.rules.traces import read_calls, read_proposal

MAX_CALLS = 100_000
MAX_BUDGETS = 500


@dataclass(frozen=True)
class Replay:
    """A report with the budgets it is about."""

    report: Report
    budgets: list[BudgetPolicy]


def replay_usage(
    *, organization_id: UUID, since: datetime, until: datetime, proposal: Any
) -> Replay:
    """Replay the calls that began in `[since, until)`, at what they were charged.

    Scopes, and splits by agent, team and project, are named by slugs.

    Raises:
        BudgetValidationError: the proposal or the period cannot be replayed; `field` tells which.
    """
    if since >= until:
        raise BudgetValidationError("until", "it must be after since")
    calls = recorded_calls(organization_id=organization_id, since=since, until=until)
    if not calls:
        raise BudgetValidationError("since", "no call is recorded in this period")
    return _replay(calls, proposal)


def replay_trace(*, text: str, proposal: Any) -> Replay:
    """Replay a CSV, as `comptroller backtest` does.

    Raises:
        BudgetValidationError: the proposal or a line cannot be read; `field` tells which.
    """
    try:
        calls = list(read_calls(text.splitlines(keepends=True)))
    except BacktestError as error:
        raise BudgetValidationError("trace", str(error)) from error
    if len(calls) > MAX_CALLS:
        raise BudgetValidationError("trace", f"at most {MAX_CALLS:,} calls; use the command")
    return _replay(calls, proposal)


def recorded_calls(*, organization_id: UUID, since: datetime, until: datetime) -> list[Call]:
    """The usage events of a period as calls, in the order of their start.

    Raises:
        BudgetValidationError: there are more than a request may replay.
    """
    rows = UsageEvent.objects.filter(
        organization_id=organization_id, started_at__gte=since, started_at__lt=until
    ).order_by("started_at", "id")
    events = list(rows[: MAX_CALLS + 1])
    if len(events) > MAX_CALLS:
        raise BudgetValidationError("since", f"more than {MAX_CALLS:,} calls: take less time")
    slugs: dict[UUID | None, str] = {}
    for model in (Agent, Team, Project):
        named = model.objects.filter(organization_id=organization_id)
        slugs.update(named.values_list("id", "slug"))
    return [
        Call(
            at=event.started_at,
            agent=slugs.get(event.agent_id, str(event.agent_id)),
            usage=tokens_of(event),
            team=slugs.get(event.team_id),
            project=slugs.get(event.project_id),
            session=event.session,
            model=event.model,
            provider=event.provider,
            charge=event.charge_nanos,
            user=event.user,
            node=event.node,
            skill=event.skill,
            tags=event.tags,
            gpu_ms=event.gpu_ms,
            tool_calls=event.tool_calls,
        )
        for event in events
    ]


def _replay(calls: Sequence[Call], proposal: Any) -> Replay:
    try:
        budgets, prices = read_proposal(proposal)
        if len(budgets) > MAX_BUDGETS:
            raise BacktestError(f"at most {MAX_BUDGETS} budgets")
        return Replay(replay(calls, budgets, prices=prices), budgets)
    except BacktestError as error:
        raise BudgetValidationError("budgets", str(error)) from error
