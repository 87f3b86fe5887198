"""Serving nodes as the pages show them: what engines produced beside what sidecars metered."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Sum

from budgets import queries
from controlplane.dashboard.formats import count, percent
from controlplane.identity.models import Organization
from enforcement.enums import NodeState
from enforcement.models import NodeSample, NodeUsage, ServingNode

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
        return f"{count(self.unattributed)} · {percent(self.unattributed, self.produced)}"


def node_rows(organization: Organization, *, now: datetime) -> list[NodeRow]:
    """Every node, by name. Five queries."""
    since = queries.day_start(organization, now=now)
    nodes = list(ServingNode.objects.filter(organization=organization).order_by("name"))
    produced = dict(
        NodeUsage.objects.filter(node__in=nodes, hour__gte=since)
        .values_list("node_id")
        .annotate(n=Sum("generation_tokens"))
    )
    metered = {
        spend.key[0]: spend.output_tokens
        for spend in queries.spend_by(
            organization_id=organization.id, since=since, until=now, by=("node",)
        )
    }
    latest = NodeSample.objects.filter(node__in=nodes, at__gt=now - FRESH)
    samples = {
        sample.node_id: sample for sample in latest.order_by("node_id", "-at").distinct("node_id")
    }
    return [
        _row(node, produced.get(node.id, 0), metered.get(node.name, 0), samples.get(node.id))
        for node in nodes
    ]


def _row(node: ServingNode, produced: int, metered: int, sample: NodeSample | None) -> NodeRow:
    difference = max(0, produced - metered)
    return NodeRow(
        id=node.id,
        name=node.name,
        engine=node.engine,
        engine_version=node.engine_version,
        context_window=node.context_window,
        state=_state(node),
        problem=node.last_error,
        models=list(node.models),
        has_gauges=sample is not None,
        running=sample.requests_running if sample else 0,
        waiting=sample.requests_waiting if sample else 0,
        produced=produced,
        metered=metered,
        unattributed=difference,
        cause="",
        last_scraped_at=node.last_scraped_at,
    )


def _state(node: ServingNode) -> str:
    if node.state != NodeState.ACTIVE:
        return node.state
    if node.last_error:
        return "failing"
    return "active" if node.last_scraped_at else "unscraped"
