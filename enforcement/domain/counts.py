"""Both counts of many nodes and hours at once: what sidecars metered, what engines produced.

A few queries for an organization, however many nodes it has.
"""

import functools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from django.db import connection
from django.db.models import OuterRef, Subquery, Sum

from budgets.models import UsageRollup
from enforcement.domain.gather import Tokens, hour_of
from enforcement.models import NodeSample, NodeUsage, ServingNode

_SINCE_FIRST_READING = """
SELECT n.name, n.hour, e.provider, e.model, count(*), coalesce(sum(e.input_tokens), 0),
    coalesce(sum(e.cached_input_tokens), 0), coalesce(sum(e.output_tokens), 0),
    coalesce(sum(e.charge_nanos), 0)
FROM unnest(%s::text[], %s::timestamptz[], %s::timestamptz[]) AS n(name, hour, first)
JOIN budgets_usageevent e ON e.organization_id = %s AND e.node = n.name
    AND e.started_at >= n.first AND e.started_at < n.hour + interval '1 hour'
GROUP BY n.name, n.hour, e.provider, e.model
"""
_RESTARTED = """
SELECT n.id, n.hour
FROM unnest(%s::uuid[], %s::timestamptz[]) AS n(id, hour)
CROSS JOIN LATERAL (SELECT epoch FROM enforcement_nodesample
    WHERE node_id = n.id AND at <= n.hour ORDER BY at DESC LIMIT 1) AS before
CROSS JOIN LATERAL (SELECT epoch FROM enforcement_nodesample
    WHERE node_id = n.id AND at >= n.hour + interval '1 hour' ORDER BY at LIMIT 1) AS after
WHERE before.epoch <> after.epoch
"""


class Metered(NamedTuple):
    """What sidecars told."""

    calls: int
    tokens: Tokens
    charge_nanos: int

    def plus(self, other: "Metered") -> "Metered":
        tokens = (a + b for a, b in zip(self.tokens, other.tokens, strict=True))
        charge_nanos = self.charge_nanos + other.charge_nanos
        return Metered(self.calls + other.calls, Tokens(*tokens), charge_nanos)


def total(told: Iterable[Metered]) -> Metered:
    """All of it together."""
    return functools.reduce(Metered.plus, told, Metered(0, Tokens(), 0))


class Made(NamedTuple):
    """What an engine produced. `is_incomplete`: a restart or a silence hides some of it."""

    tokens: Tokens
    is_incomplete: bool


class Kind(NamedTuple):
    """What of a node's use is told apart."""

    provider: str
    model: str


class Slot(NamedTuple):
    """One hour of the node of this name."""

    node: str
    hour: datetime


@dataclass(frozen=True)
class ReadNode:
    """A serving node, and from when to when its counters were read."""

    node: ServingNode
    first_at: datetime | None
    last_at: datetime | None


@dataclass(frozen=True)
class Counts:
    """Both counts of an organization in a time."""

    nodes: Mapping[str, ReadNode]
    metered: Mapping[Slot, Mapping[Kind, Metered]]
    made: Mapping[Slot, Made]


def counts_in(*, organization_id: UUID, since: datetime, until: datetime) -> Counts:
    """Everything from the full hour `since` up to `until`."""
    nodes = _nodes(organization_id)
    metered = _metered(organization_id, since, until)
    firsts = {
        name: read.first_at
        for name, read in nodes.items()
        if read.first_at is not None and since <= read.first_at < until
    }
    _begin(metered, organization_id, firsts)
    return Counts(nodes=nodes, metered=metered, made=_made(organization_id, since, until))


def restarted(hours: Iterable[tuple[UUID, datetime]]) -> set[tuple[UUID, datetime]]:
    """Those of these hours of nodes in which an engine's counters began anew, as far as its
    readings are still kept.
    """
    columns = list(zip(*hours, strict=True))
    if not columns:
        return set()
    with connection.cursor() as cursor:
        cursor.execute(_RESTARTED, [list(column) for column in columns])
        return {(row[0], row[1]) for row in cursor.fetchall()}


def _nodes(organization_id: UUID) -> dict[str, ReadNode]:
    """Looks into the index of samples for each: a week has 100,000 of a node."""
    samples = NodeSample.objects.filter(node=OuterRef("pk"))
    nodes = ServingNode.objects.filter(organization_id=organization_id).annotate(
        first_read_at=Subquery(samples.order_by("at").values("at")[:1]),
        last_read_at=Subquery(samples.order_by("-at").values("at")[:1]),
    )
    return {node.name: ReadNode(node, node.first_read_at, node.last_read_at) for node in nodes}


def _metered(
    organization_id: UUID, since: datetime, until: datetime
) -> dict[Slot, dict[Kind, Metered]]:
    rows = (
        UsageRollup.objects.filter(
            organization_id=organization_id, hour__gte=since, hour__lt=until, node__gt=""
        )
        .order_by()
        .values_list("node", "hour", "provider", "model")
        .annotate(
            Sum("calls"),
            Sum("input_tokens"),
            Sum("cached_input_tokens"),
            Sum("output_tokens"),
            Sum("charge_nanos"),
        )
    )
    found: dict[Slot, dict[Kind, Metered]] = defaultdict(dict)
    for node, hour, provider, model, calls, prompt, cached, generation, nanos in rows:
        told = Metered(calls, Tokens(prompt, cached, generation), nanos)
        found[Slot(node, hour)][Kind(provider, model)] = told
    return found


def _begin(
    metered: dict[Slot, dict[Kind, Metered]],
    organization_id: UUID,
    firsts: Mapping[str, datetime],
) -> None:
    """Of the hour in which a node was first read, only what began since: no engine counts the rest.

    Out of the events: rollups know no part of an hour, and may lack what was booked just now.
    """
    if not firsts:
        return
    hours = {name: hour_of(first) for name, first in firsts.items()}
    for name, hour in hours.items():
        metered[Slot(name, hour)] = {}
    with connection.cursor() as cursor:
        cursor.execute(
            _SINCE_FIRST_READING,
            [list(firsts), list(hours.values()), list(firsts.values()), organization_id],
        )
        for node, hour, provider, model, calls, *amounts in cursor.fetchall():
            prompt, cached, generation, nanos = map(int, amounts)
            told = Metered(calls, Tokens(prompt, cached, generation), nanos)
            metered[Slot(node, hour)][Kind(provider, model)] = told


def _made(organization_id: UUID, since: datetime, until: datetime) -> dict[Slot, Made]:
    rows = NodeUsage.objects.filter(
        node__organization_id=organization_id, hour__gte=since, hour__lt=until
    ).values_list(
        *("node__name", "hour", "prompt_tokens", "cached_tokens", "generation_tokens"),
        "incomplete",
    )
    return {
        Slot(name, hour): Made(Tokens(prompt, cached, generation), incomplete)
        for name, hour, prompt, cached, generation, incomplete in rows
    }
