"""Recent calls of an agent: finished, cut and refused ones in one list, with their reasons."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from budgets.domain.ratings import last_ratings
from budgets.models import Budget, Refusal, UsageEvent
from controlplane.identity.models import Agent
from enforcement.rules.wire import Outcome

SHOWN = 25
REASONS = {
    Outcome.CLAMPED.value: "output shortened to what was granted",
    Outcome.CUT.value: "the budget could not be extended",
    Outcome.KILLED.value: "stopped by an order",
}


@dataclass(frozen=True, kw_only=True)
class CallRow:
    """A call, or `count` refusals of one kind."""

    id: UUID
    at: datetime
    outcome: str
    reason: str
    model: str
    session: str = ""
    is_call: bool = True
    count: int = 1
    input_tokens: int = 0
    output_tokens: int = 0
    duration_ms: int | None = None
    charge_nanos: int = 0
    flag: str = ""


def recent_calls(agent: Agent) -> list[CallRow]:
    """The latest, latest first. Four queries at most."""
    events = UsageEvent.objects.filter(organization_id=agent.organization_id, agent_id=agent.id)
    refusals = Refusal.objects.filter(organization_id=agent.organization_id, agent_id=agent.id)
    latest = list(events.order_by("-started_at")[:SHOWN])
    refused = list(refusals.order_by("-at")[:SHOWN])
    names = _budget_names({row.stopped_by for row in latest if row.stopped_by})
    rated = last_ratings(event.id for event in latest)
    charges = {key: rating.charge_nanos for key, rating in rated.items()}
    rows = [_of_event(event, names, charges.get(event.id)) for event in latest]
    rows += [_of_refusal(refusal) for refusal in refused]
    return sorted(rows, key=lambda row: row.at, reverse=True)[:SHOWN]


def _budget_names(ids: set[str]) -> dict[str, str]:
    """Names of the budgets that ended calls; what is no id of a budget has none."""
    wanted = [budget_id for budget_id in ids if _is_uuid(budget_id)]
    if not wanted:
        return {}
    found = Budget.objects.filter(id__in=wanted).values_list("id", "name")
    return {str(budget_id): name for budget_id, name in found}


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _of_event(event: UsageEvent, names: dict[str, str], rated_nanos: int | None) -> CallRow:
    """`rated_nanos`: what it costs now, where that is not what was booked with it."""
    reason = REASONS.get(event.outcome, "")
    if event.stopped_by in names:
        reason = f"{names[event.stopped_by]}: {reason}"
    flag = "presumed" if event.presumed else "estimated" if event.estimated else ""
    if event.source:
        flag = "reported"  # by a receiver: nobody metered it
    return CallRow(
        id=event.id,
        at=event.started_at,
        outcome=event.outcome,
        reason=reason,
        model=event.model,
        session=event.session,
        input_tokens=event.input_tokens,
        output_tokens=event.output_tokens,
        duration_ms=event.duration_ms,
        charge_nanos=event.charge_nanos if rated_nanos is None else rated_nanos,
        flag=flag,
    )


def _of_refusal(refusal: Refusal) -> CallRow:
    return CallRow(
        id=refusal.id,
        at=refusal.at,
        outcome="refused",
        reason=refusal.message or refusal.code.replace("_", " "),
        model=refusal.model,
        is_call=False,
        count=refusal.count,
    )
