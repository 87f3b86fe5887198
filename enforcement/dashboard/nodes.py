"""Serving nodes as the pages show them: what engines produced beside what sidecars metered."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from budgets import queries
from controlplane.dashboard.formats import count, percent
from controlplane.identity.models import Organization
from enforcement.domain.causes import has_counters
from enforcement.domain.nodes import health_of
from enforcement.domain.unattributed import Difference, differences
from enforcement.models import NodeSample, ServingNode

FRESH = timedelta(minutes=2)


@dataclass(frozen=True)
class NodeRow:
    id: UUID
    name: str
    engine: str
    engine_version: str
    context_window: int | None
    state: str
    problem: str
    models: list[str]
    has_gauges: bool
    running: int
    waiting: int
    produced: int
    metered: int
    unattributed: int
    cause: str
    last_scraped_at: datetime | None

    @property
    def unattributed_text(self) -> str:
        """With its share of what was produced; below zero sidecars metered more."""
        if self.unattributed <= 0:
            return count(self.unattributed)
        return f"{count(self.unattributed)} · {percent(self.unattributed, self.produced)}"


def node_rows(organization: Organization, *, now: datetime) -> list[NodeRow]:
    """Every node, by name, since the organization's midnight (cut to the hour)."""
    since = queries.day_start(organization, now=now)
    found = differences(organization_id=organization.id, since=since, until=now, now=now)
    nodes = {node.pk: node for node in ServingNode.objects.filter(organization=organization)}
    latest = NodeSample.objects.filter(node__in=nodes, at__gt=now - FRESH)
    samples = {
        sample.node_id: sample for sample in latest.order_by("node_id", "-at").distinct("node_id")
    }
    return [
        _row(nodes[difference.node_id], difference, samples.get(difference.node_id), now)
        for difference in found
    ]


def _row(
    node: ServingNode, difference: Difference, sample: NodeSample | None, now: datetime
) -> NodeRow:
    return NodeRow(
        id=node.id,
        name=node.name,
        engine=node.engine,
        engine_version=node.engine_version,
        context_window=node.context_window,
        state=health_of(node, now=now),
        problem=node.last_error or node.warning,
        models=list(node.models),
        has_gauges=sample is not None and has_counters(node),
        running=sample.requests_running if sample else 0,
        waiting=sample.requests_waiting if sample else 0,
        produced=difference.produced.generation,
        metered=difference.metered.generation,
        unattributed=difference.unattributed.generation if difference.cause else 0,
        cause=difference.cause,
        last_scraped_at=node.last_scraped_at,
    )
