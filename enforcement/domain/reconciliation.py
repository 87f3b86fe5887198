"""Metered use beside the engines' own counters, for each node and hour, with a verdict.

Computed from rows that are brought up to date by themselves (late events, late readings), so
asking again gives what is known then. Hours before a node's first reading, after its last one, and
those that hide a restart or a silence are unknown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from enforcement.domain.gather import HOUR
from enforcement.domain.unattributed import HourOfNode, by_hour
from enforcement.models import NodeSample, ServingNode
from enforcement.rules.reconcile import HourCount, Threshold, Verdict, judge


@dataclass(frozen=True)
class Reconciled:
    """One hour of one node, both counts, and whether they agree."""

    node_id: UUID
    node: str
    count: HourCount
    verdict: Verdict


def reconcile(
    *, organization_id: UUID, since: datetime, until: datetime, threshold: Threshold
) -> list[Reconciled]:
    """Each node by name, its hours rising; hours in which nothing happened are left out.

    `since` is cut to its hour. A few queries for each node.
    """
    nodes = ServingNode.objects.filter(organization_id=organization_id).order_by("name")
    return [row for node in nodes for row in _of_node(node, since=since, until=until, by=threshold)]


def _of_node(
    node: ServingNode, *, since: datetime, until: datetime, by: Threshold
) -> Sequence[Reconciled]:
    hours = by_hour(node=node, since=since, until=until)
    read = _read_through(node)
    counts = [_count(hour, read) for hour in hours]
    return [
        Reconciled(node.pk, node.name, count, verdict)
        for count, verdict in zip(counts, judge(counts, by), strict=True)
    ]


def _read_through(node: ServingNode) -> tuple[datetime, datetime] | None:
    """From its first reading to its last; silences between them mark their own hours."""
    instants = NodeSample.objects.filter(node=node).values_list("at", flat=True)
    first, last = instants.order_by("at").first(), instants.order_by("-at").first()
    return None if first is None or last is None else (first, last)


def _count(hour: HourOfNode, read: tuple[datetime, datetime] | None) -> HourCount:
    return HourCount(
        hour=hour.hour,
        metered_prompt_tokens=hour.metered.prompt,
        metered_generation_tokens=hour.metered.generation,
        produced_prompt_tokens=hour.produced.prompt,
        produced_generation_tokens=hour.produced.generation,
        is_known=_is_known(hour, read),
    )


def _is_known(hour: HourOfNode, read: tuple[datetime, datetime] | None) -> bool:
    """The hour of the first reading counts: what was metered before it is left out of it."""
    if read is None or hour.incomplete:
        return False
    first, last = read
    return first < hour.hour + HOUR <= last
