"""What stands around a difference, from the rows: a few queries for any number of nodes."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection
from django.db.models import DateTimeField, ExpressionWrapper, OuterRef, Q, QuerySet, Subquery

from enforcement.domain.causes import NOTHING, Evidence, exceeds, minus
from enforcement.domain.gather import Tokens, produced_between
from enforcement.models import NodeSample, ServingNode, Spool

SETTLING = timedelta(seconds=30)  # scrape, report and fold of one call are all done by then
LONGEST_CALL = timedelta(minutes=10)  # what runs for longer looks like a call past the sidecar
LOOK_BACK = timedelta(hours=1)  # how long before a window a call may have begun that ends in it

_CALLS = """
SELECT n.id,
    coalesce(sum(input_tokens) FILTER (WHERE crossing), 0),
    coalesce(sum(cached_input_tokens) FILTER (WHERE crossing), 0),
    coalesce(sum(output_tokens) FILTER (WHERE crossing), 0),
    coalesce(sum(input_tokens) FILTER (WHERE arrived), 0),
    coalesce(sum(cached_input_tokens) FILTER (WHERE arrived), 0),
    coalesce(sum(output_tokens) FILTER (WHERE arrived), 0),
    coalesce(sum(input_tokens) FILTER (WHERE inexact), 0),
    coalesce(sum(cached_input_tokens) FILTER (WHERE inexact), 0),
    coalesce(sum(output_tokens) FILTER (WHERE inexact), 0),
    count(*) FILTER (WHERE inexact)
FROM unnest(%s::uuid[], %s::text[], %s::timestamptz[], %s::timestamptz[], %s::timestamptz[])
    AS n(id, name, begun, upto, read_at),
LATERAL (
    SELECT input_tokens, cached_input_tokens, output_tokens, started_at < n.begun AS crossing,
        started_at >= n.begun AND received_at >= n.read_at AS arrived,
        started_at >= n.begun AND (presumed OR estimated) AS inexact
    FROM budgets_usageevent
    WHERE organization_id = %s AND node = n.name
        AND started_at >= n.begun - %s AND started_at < n.upto
        AND started_at + duration_ms * interval '1 millisecond' >= n.begun
) AS calls
GROUP BY n.id
"""
_METERED_IN_MARKED_HOURS = """
SELECT n.id, coalesce(sum(e.input_tokens), 0), coalesce(sum(e.cached_input_tokens), 0),
    coalesce(sum(e.output_tokens), 0)
FROM unnest(%s::uuid[], %s::text[], %s::timestamptz[], %s::timestamptz[])
    AS n(id, name, begun, upto)
JOIN enforcement_nodeusage u ON u.node_id = n.id AND u.incomplete
    AND u.hour + interval '1 hour' > n.begun AND u.hour < n.upto
JOIN budgets_usageevent e ON e.organization_id = %s AND e.node = n.name
    AND e.started_at >= greatest(u.hour, n.begun) AND e.started_at < u.hour + interval '1 hour'
GROUP BY n.id
"""


class Sides(NamedTuple):
    """Both sides of one node from when it is compared, and what of it stands in marked hours."""

    node: ServingNode
    begun: datetime
    produced: Tokens
    metered: Tokens
    incomplete: bool
    produced_in_marked_hours: Tokens

    @property
    def differ(self) -> bool:
        return self.has_more_produced or exceeds(self.metered, self.produced)

    @property
    def has_more_produced(self) -> bool:
        return exceeds(self.produced, self.metered)


class Calls(NamedTuple):
    """What was metered of some calls of one node; see `Evidence`."""

    crossing: Tokens = NOTHING
    arrived: Tokens = NOTHING
    presumed: Tokens = NOTHING
    presumed_calls: int = 0


class Marks(NamedTuple):
    """Readings of one node that stand for moments."""

    last: NodeSample | None = None
    settled: NodeSample | None = None  # when all calls before it had ended and were reported
    silent_since: datetime | None = None
    before_silence: NodeSample | None = None
    after_silence: NodeSample | None = None

    def made_lately(self, everything: Tokens) -> Tokens:
        """By calls that may be on their way; all of it while the node is that new."""
        if self.last is None or self.settled is None:
            return everything
        return produced_between(self.settled, self.last)

    def made_in_silence(self) -> Tokens:
        """While its sidecar was still allowed to serve, but did not report."""
        until = self.after_silence or self.last
        if self.silent_since is None or self.before_silence is None or until is None:
            return NOTHING
        return produced_between(self.before_silence, until)


def evidence_of(
    sides: Sequence[Sides], *, organization_id: UUID, until: datetime, now: datetime
) -> dict[UUID, Evidence]:
    """For each node; costly things only of those whose sides differ.

    Of a time that is long over only what was read in it counts, and no call of it is under way.
    """
    is_over = until + LONGEST_CALL < now
    marks = _marks([side.node for side in sides], now, until if is_over else None)
    differing = [side for side in sides if side.differ]
    calls = _calls(differing, marks, organization_id, until)
    marked = [side for side in differing if side.incomplete and side.has_more_produced]
    metered_there = _metered_in_marked_hours(marked, organization_id, until)
    found = {}
    for side in sides:
        key, mark = side.node.pk, marks[side.node.pk]
        told = calls.get(key, Calls())
        found[key] = Evidence(
            last=mark.last,
            underway=NOTHING if is_over else mark.made_lately(side.produced),
            crossing=told.crossing,
            arrived=told.arrived,
            presumed=told.presumed,
            presumed_calls=told.presumed_calls,
            unreported=mark.made_in_silence(),
            silent_since=mark.silent_since,
            incomplete=side.incomplete,
            in_whole_hours=minus(
                minus(side.produced, side.produced_in_marked_hours),
                minus(side.metered, metered_there.get(key, NOTHING)),
            ),
        )
    return found


# ------------------------------------------------------------------------------- samples


def _marks(nodes: Sequence[ServingNode], now: datetime, upto: datetime | None) -> dict[UUID, Marks]:
    """Looks into the index for each node: a week has 100,000 samples of it."""
    books = Spool.objects.filter(sidecar=OuterRef("sidecar")).order_by("-last_sync_at")
    samples = NodeSample.objects.filter(node=OuterRef("pk"))
    if upto is not None:
        samples = samples.filter(at__lte=upto)
    youngest = samples.order_by("-at")
    longest_before = ExpressionWrapper(
        OuterRef("heard_at") - LONGEST_CALL, output_field=DateTimeField()
    )
    rows = list(
        ServingNode.objects.filter(pk__in=[node.pk for node in nodes])
        .annotate(
            heard_at=Subquery(books.values("last_sync_at")[:1]),
            served_until=Subquery(books.values("policy_valid_until")[:1]),
        )
        .annotate(
            last=_pick(youngest),
            settled=_pick(_idle(youngest, now - LONGEST_CALL).filter(at__lte=now - SETTLING)),
            before=_pick(_idle(youngest, longest_before).filter(at__lte=OuterRef("heard_at"))),
            after=_pick(samples.filter(at__gte=OuterRef("served_until")).order_by("at")),
        )
        .values("pk", "heard_at", "last", "settled", "before", "after")
    )
    wanted = {row[name] for row in rows for name in ("last", "settled", "before", "after")}
    samples_by_id = NodeSample.objects.in_bulk(wanted - {None})
    return {row["pk"]: _mark(row, samples_by_id, now) for row in rows}


def _mark(row: Mapping[str, object], samples: Mapping[object, NodeSample], now: datetime) -> Marks:
    heard_at = row["heard_at"]
    is_silent = isinstance(heard_at, datetime) and heard_at < now - SETTLING
    return Marks(
        last=samples.get(row["last"]),
        settled=samples.get(row["settled"]),
        silent_since=heard_at if isinstance(heard_at, datetime) and is_silent else None,
        before_silence=samples.get(row["before"]),
        after_silence=samples.get(row["after"]),
    )


def _idle(samples: QuerySet[NodeSample], before: object) -> QuerySet[NodeSample]:
    """Readings that no call can span which began earlier."""
    return samples.filter(Q(requests_running=0) | Q(at__lte=before))


def _pick(samples: QuerySet[NodeSample]) -> Subquery:
    return Subquery(samples.values("pk")[:1])


# ------------------------------------------------------------------------------- calls


def _calls(
    sides: Sequence[Sides], marks: Mapping[UUID, Marks], organization_id: UUID, until: datetime
) -> dict[UUID, Calls]:
    """Where more was produced, only calls from before the window are looked at."""
    if not sides:
        return {}
    columns = zip(
        *(
            (
                side.node.pk,
                side.node.name,
                side.begun,
                side.begun if side.has_more_produced else until,
                mark.last.at if (mark := marks[side.node.pk]).last else until,
            )
            for side in sides
        ),
        strict=True,
    )
    return {
        row[0]: Calls(Tokens(*row[1:4]), Tokens(*row[4:7]), Tokens(*row[7:10]), row[10])
        for row in _rows(_CALLS, [*map(list, columns), organization_id, LOOK_BACK])
    }


def _metered_in_marked_hours(
    sides: Sequence[Sides], organization_id: UUID, until: datetime
) -> dict[UUID, Tokens]:
    if not sides:
        return {}
    columns = [
        [side.node.pk for side in sides],
        [side.node.name for side in sides],
        [side.begun for side in sides],
        [until for _ in sides],
    ]
    return {
        row[0]: Tokens(*row[1:])
        for row in _rows(_METERED_IN_MARKED_HOURS, [*columns, organization_id])
    }


def _rows(query: str, values: list[Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        return [(row[0], *map(int, row[1:])) for row in cursor.fetchall()]
