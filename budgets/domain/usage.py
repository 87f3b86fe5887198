"""Book usage events and refusals, each exactly once by its id.

1. An event is stored once; a second report of the same id changes nothing. One that says something
   else, or comes from another organization, contradicts it: it is told apart, and changes nothing.
2. What it paid from leases (`parts`) is settled by the reports of those leases, never here.
3. Every other budget that it matches is charged here, by a `usage` transfer: soft and observing
   ones always, a hard one when the call ran without a hold on it, because the budget was younger
   than the call (L12). What a hard limit has no room for is `overrun`: never refused, never hidden.
4. A charge belongs to the window in which the call started.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from django.db import transaction

from budgets.domain import locks
from budgets.domain.charging import charge
from budgets.domain.scopes import team_of
from budgets.domain.usagecheck import MAX_COUNT, check_event, uuid_text
from budgets.domain.usagerows import (
    Entry,
    Owner,
    canonical,
    digest_of,
    instant_of,
    mended,
    owner_of,
    text,
)
from budgets.domain.usagestore import claim, contradicting, store, within_table
from budgets.models import Refusal
from controlplane.identity.models import Agent
from enforcement.rules import wire
from enforcement.rules.wire import RefusalCount

NOBODY = ""  # no agent's id: where calls of agents that are not found stand


class Booked(NamedTuple):
    """How many events were new, how many were known already, and how many cannot be true.

    `contradictions` are the places in the batch of events whose id was booked with other content.
    """

    accepted: int
    duplicates: int
    rejected: int = 0
    contradictions: tuple[int, ...] = ()


def book_usage(
    *,
    organization_id: UUID,
    sidecar_id: UUID | None,
    events: Sequence[wire.UsageEvent],
    now: datetime,
) -> Booked:
    """Store events that are new, and charge them to the balances that no lease pays.

    Raises:
        UsageEventError: an event cannot be true. Nothing of the batch is booked.
    """
    for event in events:
        check_event(event)
    return book_checked(
        organization_id=organization_id, sidecar_id=sidecar_id, events=events, now=now
    )


@transaction.atomic(savepoint=False)  # who goes on after an error has made one: a round trip less
def book_checked(
    *,
    organization_id: UUID,
    sidecar_id: UUID | None,
    events: Sequence[wire.UsageEvent],
    now: datetime,
    source: str = "",
) -> Booked:
    """The same, of events that passed `check_event` already.

    `source`: which receiver was told of them; empty where a sidecar metered them.
    """
    if not events:
        return Booked(0, 0)
    locks.share_budgets(organization_id)
    entries = _entries(organization_id, events, now=now)
    first: dict[str, int] = {}
    for place, entry in enumerate(entries):
        first.setdefault(entry.event.id, place)
    claimed = [entries[place] for place in first.values()]
    fresh = claim(claimed, organization_id=organization_id, now=now)
    new = {place for event_id, place in first.items() if event_id in fresh}
    if new:
        booked = [entries[place] for place in sorted(new)]
        store(booked, sidecar_id=sidecar_id, now=now, source=source)
        charge(organization_id, booked, now=now)
    known = {place: entry for place, entry in enumerate(entries) if place not in new}
    astray = contradicting(known, organization_id=organization_id) if known else ()
    return Booked(len(new), len(known) - len(astray), contradictions=astray)


def _entries(
    organization_id: UUID, events: Sequence[wire.UsageEvent], *, now: datetime
) -> list[Entry]:
    owners = _owners(organization_id, {event.agent for event in events})
    return within_table([_entry(event, owners, now=now) for event in events], now=now)


def _entry(event: wire.UsageEvent, owners: Mapping[str, Owner], *, now: datetime) -> Entry:
    document = canonical(event)
    plain = b"\\" not in document
    said = mended(event, plain=plain)
    start = instant_of(said.started_at_ms, now=now)
    owner = owners.get(said.agent) or owners[NOBODY]
    return Entry(said, owner, start, str(start), digest_of(document), plain)


def _owners(organization_id: UUID, names: Iterable[str]) -> dict[str, Owner]:
    """Where these agents stand; those of other organizations are nobody's."""
    agents = Agent.objects.select_related("project").filter(
        organization_id=organization_id, id__in={uuid_text(name) for name in names}
    )
    return {NOBODY: Owner(str(organization_id))} | {
        str(agent.id): owner_of(organization_id, team_of(agent), agent.project_id)
        for agent in agents
    }


def book_refusals(
    *, organization_id: UUID, refusals: Iterable[RefusalCount], now: datetime
) -> None:
    """Store counts of refused calls, each once by its id."""
    Refusal.objects.bulk_create(
        [
            Refusal(
                id=UUID(refusal.id),
                organization_id=organization_id,
                agent_id=uuid_text(refusal.agent) or None,
                model=text(refusal.model, 200),
                budget_id=uuid_text(refusal.budget) or None,
                code=text(refusal.code, 64),
                count=min(refusal.count, MAX_COUNT),
                message=text(refusal.message, 500),
                at=instant_of(refusal.last_at_ms, now=now),
            )
            for refusal in refusals
            if refusal.count > 0 and uuid_text(refusal.id)
        ],
        ignore_conflicts=True,
    )
