"""What was refused or cut lately, and how fresh the figures are."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Max

from budgets.domain.catalogue import SOURCE
from budgets.domain.rollups import NAME
from budgets.models import PriceVersion, Refusal, RollupWatermark, UsageEvent
from budgets.queries.today import STOPPED
from controlplane.identity.models import Organization


@dataclass(frozen=True)
class Stop:
    """A refused call (`count` of them) or one that was cut, clamped or killed."""

    id: UUID
    at: datetime
    agent_id: UUID | None
    agent: str
    word: str  # refused, cut, clamped, killed
    code: str
    model: str
    count: int
    note: str


@dataclass(frozen=True)
class Freshness:
    last_event_at: datetime | None
    folded_at: datetime | None
    catalogue: str  # version of the price catalogue, empty before its first import


def stops(
    organization: Organization, *, count: int = 10, agent_id: UUID | None = None
) -> list[Stop]:
    """The latest refusals and cuts, latest first."""
    refusals = Refusal.objects.select_related("agent").filter(organization=organization)
    events = UsageEvent.objects.select_related("agent").filter(
        organization=organization, outcome__in=STOPPED
    )
    if agent_id is not None:
        refusals, events = refusals.filter(agent_id=agent_id), events.filter(agent_id=agent_id)
    found = [_of_refusal(refusal) for refusal in refusals.order_by("-at")[:count]]
    found += [_of_event(event) for event in events.order_by("-started_at")[:count]]
    return sorted(found, key=lambda stop: stop.at, reverse=True)[:count]


def freshness(organization: Organization) -> Freshness:
    last = UsageEvent.objects.filter(organization=organization).aggregate(at=Max("started_at"))
    watermark = RollupWatermark.objects.filter(name=NAME).first()
    version = (
        PriceVersion.objects.filter(organization=None, source=SOURCE)
        .order_by("-valid_from", "-id")
        .values_list("source_version", flat=True)
        .first()
    )
    return Freshness(
        last_event_at=last["at"],
        folded_at=watermark.folded_at if watermark else None,
        catalogue=f"{SOURCE} {version}" if version else "",
    )


def _of_refusal(refusal: Refusal) -> Stop:
    return Stop(
        id=refusal.id,
        at=refusal.at,
        agent_id=refusal.agent_id,
        agent=refusal.agent.name if refusal.agent else "unknown agent",
        word="refused",
        code=refusal.code,
        model=refusal.model,
        count=refusal.count,
        note=refusal.message,
    )


def _of_event(event: UsageEvent) -> Stop:
    return Stop(
        id=event.id,
        at=event.started_at,
        agent_id=event.agent_id,
        agent=event.agent.name,
        word=event.outcome,
        code=event.outcome,
        model=event.model,
        count=1,
        note=f"after {event.output_tokens} output tokens",
    )
