"""Calls that others tell of: attributed, priced and booked by the path of sidecars' batches.

1. One batch of an organization at a time (`locks.report_alone`): two connections that tell of one
   call book it once.
2. A call that was told before is a duplicate; one that says something else under its name is set
   aside. What decides is what was *said*: a price or an agent that came since changes nothing.
3. A sidecar tells of its own calls, and holds what they cost. So nothing is booked for a call that
   names its sidecar event, was sent to a sidecar's address, or whose answer has the id of one that
   is booked already, by a sidecar or another source, around the same time.
4. An agent that nobody knows is no reason to lose the call: it is booked on the organization's
   agent `unattributed`, with the name that was said as the tag `reported_agent`.
5. Nothing is held for these calls, so nothing can be prevented: budgets count them afterwards, and
   what a hard limit has no room for is overrun.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import msgspec
from django.conf import settings
from django.db import transaction
from django.db.models import Q

from budgets.domain import locks
from budgets.domain.rejected import Rejected, keep_aside
from budgets.domain.tariffs import Tariffs
from budgets.domain.usagecheck import check_event
from budgets.domain.usagerows import OLDEST
from budgets.errors import UsageEventError
from budgets.models import UsageEvent, UsageReceipt
from controlplane.audit.domain import Actor
from controlplane.identity.domain import create_agent
from controlplane.identity.models import Agent
from enforcement.domain.ingest import book_each
from enforcement.rules import wire
from enforcement.rules.money import MAX_NANOS, charge_nanos
from enforcement.rules.reports.call import MAX_TAGS, ReportedCall, Source, event_id, usage_event

UNATTRIBUTED = "unattributed"
SAID_AGENT = "reported_agent"  # a tag
AROUND = timedelta(seconds=60)  # between the clocks that tell of one call
MOST_SPANS = 64  # of time, that are looked through for a batch
CONTRADICTS = "this call was told before with other content"


class Received(NamedTuple):
    """What became of the calls of a batch. `rejected`: why, one for each that was set aside.

    `metered`: told by a sidecar, or by another source. `unattributed` are among the booked,
    `contradictions` (told before with other content) among the rejected.
    """

    booked: int = 0
    duplicates: int = 0
    metered: int = 0
    unattributed: int = 0
    contradictions: int = 0
    rejected: tuple[str, ...] = ()


@transaction.atomic
def receive_calls(
    *,
    organization_id: UUID,
    source: Source,
    calls: Sequence[ReportedCall],
    rejected: Sequence[Rejected] = (),
    now: datetime,
) -> Received:
    """Book what is new of a batch, each call once, and keep aside what cannot be true."""
    locks.report_alone(organization_id)
    told = _Told(organization_id, calls)
    fresh = list(_not_metered(organization_id, told.fresh, now=now))
    attributed, unattributed = _attributed(organization_id, fresh, now=now)
    events, untrue = _events(organization_id, attributed, now=now)
    booked, refused = book_each(
        organization_id=organization_id, sidecar_id=None, events=events, now=now, source=source
    )
    aside = [*rejected, *told.contradictions, *untrue, *refused]
    keep_aside(organization_id=organization_id, source=source, events=aside, now=now)
    return Received(
        booked=booked.accepted,
        duplicates=told.duplicates + booked.duplicates,
        metered=len(told.fresh) - len(fresh),
        unattributed=unattributed,
        contradictions=len(told.contradictions),
        rejected=tuple(one.reason for one in aside),
    )


# ------------------------------------------------------------------------------ told before


class _Told:
    """A batch beside what is booked: new calls, repeated ones, contradicting ones."""

    def __init__(self, organization_id: UUID, calls: Sequence[ReportedCall]) -> None:
        self.duplicates = 0
        self.contradictions: list[Rejected] = []
        named = [(event_id(organization_id, call.source, call.key), call) for call in calls]
        booked = _booked({place for place, _ in named})
        first: dict[UUID, ReportedCall] = {}
        for place, call in named:
            if place in booked:
                self._compare(call, _says(booked[place], call))
            elif place in first:
                self._compare(call, first[place] == call)
            else:
                first[place] = call
        self.fresh = list(first.values())

    def _compare(self, call: ReportedCall, same: bool) -> None:
        if same:
            self.duplicates += 1
        else:
            self.contradictions.append(Rejected(msgspec.json.encode(call), CONTRADICTS))


def _booked(ids: Iterable[UUID]) -> dict[UUID, UsageEvent | None]:
    """Which are booked; None for one whose partition is gone."""
    starts = dict(UsageReceipt.objects.filter(id__in=list(ids)).values_list("id", "started_at"))
    rows = UsageEvent.objects.filter(id__in=list(starts), started_at__in=set(starts.values()))
    return dict.fromkeys(starts) | {row.id: row for row in rows}


def _says(row: UsageEvent | None, call: ReportedCall) -> bool:
    """Whether a booked event says what a call says, whatever it was charged and attributed to."""
    if row is None:
        return True
    usage = call.usage
    return (
        row.model,
        row.outcome,
        row.upstream_id,
        row.input_tokens,
        row.cached_input_tokens,
        row.cache_write_tokens,
        row.output_tokens,
        row.reasoning_tokens,
    ) == (
        call.model[:200],
        call.outcome.value,
        call.response_id[:200],
        usage.input_tokens,
        usage.cached_input_tokens,
        usage.cache_write_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
    )


# ------------------------------------------------------------------------------ told by others


def _not_metered(
    organization_id: UUID, calls: Sequence[ReportedCall], *, now: datetime
) -> Iterator[ReportedCall]:
    """Calls that no sidecar and no other report has told of."""
    open_calls = [
        call
        for call in calls
        if not call.sidecar_event and call.address not in settings.SIDECAR_ADDRESSES
    ]
    known = _known_answers(organization_id, open_calls, now=now)
    for call in open_calls:
        if call.telling_id not in known:
            yield call
        if call.telling_id:
            known.add(call.telling_id)


def _known_answers(
    organization_id: UUID, calls: Sequence[ReportedCall], *, now: datetime
) -> set[str]:
    """Answer ids of these calls that stand in a booked event of about their time."""
    telling = [call for call in calls if call.telling_id]
    if not telling:
        return set()
    during = Q()
    for start, end in _spans(sorted(_began(call, now=now) for call in telling)):
        during |= Q(started_at__gte=start - AROUND, started_at__lte=end + AROUND)
    rows = UsageEvent.objects.filter(
        during,
        organization_id=organization_id,
        upstream_id__in={call.telling_id[:200] for call in telling},
    )
    return set(rows.values_list("upstream_id", flat=True))


def _spans(instants: Sequence[datetime]) -> list[tuple[datetime, datetime]]:
    """Rising instants as spans of time, few enough for one query."""
    gap = 2 * AROUND
    while True:
        spans = [(instants[0], instants[0])]
        for at in instants[1:]:
            start, end = spans[-1]
            if at - end <= gap:
                spans[-1] = (start, at)
            else:
                spans.append((at, at))
        if len(spans) <= MOST_SPANS:
            return spans
        gap *= 4


def _began(call: ReportedCall, *, now: datetime) -> datetime:
    """When a call began, as it will be booked: a clock that cannot be right is ours."""
    at_ms, now_ms = call.started_at_ms, int(now.timestamp() * 1000)
    if not 0 <= now_ms - at_ms <= OLDEST / timedelta(milliseconds=1):
        return now
    return datetime.fromtimestamp(at_ms / 1000, tz=UTC)


# ------------------------------------------------------------------------------ whose, how dear


def _attributed(
    organization_id: UUID, calls: Sequence[ReportedCall], *, now: datetime
) -> tuple[list[tuple[ReportedCall, UUID]], int]:
    """Calls with their agents, and how many have none that is known."""
    known = _agents(organization_id, {name for call in calls for name in call.agents})
    found, lost = [], []
    for call in calls:
        agent = next((known[name] for name in call.agents if name in known), None)
        if agent is not None:
            found.append((call, agent))
        else:
            lost.append(_with_said_agent(call))
    if lost:
        nobody = _nobody(organization_id, now=now)
        found += [(call, nobody) for call in lost]
    return found, len(lost)


def _agents(organization_id: UUID, names: set[str]) -> Mapping[str, UUID]:
    """Agents by id and by slug, retired ones too: what they used is theirs."""
    ids = {id_ for name in names if (id_ := _uuid_or_none(name)) is not None}
    rows = Agent.objects.filter(
        Q(slug__in=names) | Q(id__in=ids), organization_id=organization_id
    ).values_list("id", "slug")
    agents = {slug: id_ for id_, slug in rows}
    known = set(agents.values())
    by_id = {name: id_ for name in names if (id_ := _uuid_or_none(name)) in known and id_}
    return agents | by_id


def _with_said_agent(call: ReportedCall) -> ReportedCall:
    if not call.agents:
        return call
    tags = dict(list(call.tags.items())[: MAX_TAGS - 1])
    return msgspec.structs.replace(call, tags=tags | {SAID_AGENT: call.agents[0]})


def _nobody(organization_id: UUID, *, now: datetime) -> UUID:
    """The agent of calls whose agent is unknown; made when it is first needed."""
    rows = Agent.objects.filter(organization_id=organization_id, slug=UNATTRIBUTED)
    known = rows.values_list("id", flat=True).first()
    if known is not None:
        return known
    return create_agent(
        organization_id=organization_id,
        slug=UNATTRIBUTED,
        name="Unattributed",
        actor=Actor.system("receivers"),
        now=now,
    ).id


def _events(
    organization_id: UUID, calls: Sequence[tuple[ReportedCall, UUID]], *, now: datetime
) -> tuple[list[wire.UsageEvent], list[Rejected]]:
    """The events of attributed calls at the price of their time, and those that cannot be."""
    events: list[wire.UsageEvent] = []
    untrue: list[Rejected] = []
    if not calls:
        return events, untrue
    tariffs = Tariffs(
        organization_id,
        models={call.model for call, _ in calls},
        since=min(_began(call, now=now) for call, _ in calls),
        now=now,
    )
    for call, agent in calls:
        price = tariffs.price(model=call.model, provider=call.provider, at=_began(call, now=now))
        charge = charge_nanos(call.usage, price) if price else 0
        event = usage_event(
            call,
            organization=organization_id,
            agent=agent,
            charge_nanos=min(charge, MAX_NANOS),
            price_version=price.id if price else "",
        )
        try:
            check_event(event)
        except UsageEventError as error:
            untrue.append(Rejected(msgspec.json.encode(call), str(error)))
        else:
            events.append(event)
    return events, untrue


def _uuid_or_none(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
