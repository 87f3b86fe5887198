"""What engines produced and no sidecar metered: traffic that went past the budgets.

One side is `NodeUsage`, from the engine's own counters; the other is what sidecars reported, under
the node's name. A node is compared from its first sample on, since the counters that stood there
then are no one's. A difference has a likely cause in words, since most are harmless: a restart, a
running call.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Count, Max, Min, OuterRef, Q, QuerySet, Subquery, Sum

from budgets import queries
from budgets.models import UsageEvent, UsageRollup
from enforcement.domain.gather import Tokens, hour_of
from enforcement.models import NodeSample, NodeUsage, ServingNode

# Less than both of these is the time between two clocks, not a difference.
NOISE_TOKENS = 50
NOISE_PER_MILLE = 5
SETTLING = timedelta(seconds=30)  # scrape, report and fold of one call are all done by then


@dataclass(frozen=True)
class Difference:
    """One node from a full hour on. Negative: sidecars metered more than the engine counted."""

    node_id: UUID
    node: str
    since: datetime
    until: datetime
    produced: Tokens
    metered: Tokens
    cause: str
    incomplete: bool
    fresh_at: datetime | None  # when the engine was read last

    @property
    def unattributed(self) -> Tokens:
        return _minus(self.produced, self.metered)


@dataclass(frozen=True)
class HourOfNode:
    """One node in one hour."""

    hour: datetime
    produced: Tokens
    metered: Tokens
    incomplete: bool


@dataclass(frozen=True)
class Facts:
    """What stands around a difference and may explain it."""

    incomplete: bool
    moving: bool
    resolution: int
    presumed: int


# ------------------------------------------------------------------------------- answers


def differences(
    *,
    organization_id: UUID,
    since: datetime,
    until: datetime,
    now: datetime,
    node_id: UUID | None = None,
) -> list[Difference]:
    """Every node of an organization, or one, by name. A handful of queries for any number."""
    since = hour_of(since)
    nodes = ServingNode.objects.filter(organization_id=organization_id).order_by("name")
    if node_id is not None:
        nodes = nodes.filter(pk=node_id)
    rows = list(nodes)
    produced = _produced(rows, since, until)
    metered = _metered(organization_id, rows, since, until)
    latest = _latest(rows)
    moving = _moving(rows, now)
    found = []
    for node in rows:
        made, incomplete = produced.get(node.pk, (Tokens(), False))
        told, sample = metered.get(node.name, Tokens()), latest.get(node.pk)
        facts = Facts(
            incomplete=incomplete,
            moving=node.pk in moving or (sample is not None and sample.requests_running > 0),
            resolution=int(sample.extra.get("resolution", 1)) if sample else 1,
            presumed=_presumed(node, since, until) if _exceeds(told, made) else 0,
        )
        found.append(
            Difference(
                node_id=node.pk,
                node=node.name,
                since=since,
                until=until,
                produced=made,
                metered=told,
                cause=likely_cause(node, made, told, facts),
                incomplete=incomplete,
                fresh_at=sample.at if sample else None,
            )
        )
    return found


def by_hour(*, node: ServingNode, since: datetime, until: datetime) -> list[HourOfNode]:
    """The hours of one node in which either side has something, the oldest first."""
    since = hour_of(since)
    usage = {
        row.hour: row
        for row in NodeUsage.objects.filter(node=node, hour__gte=since, hour__lt=until)
    }
    first = _first_samples([node]).get(node.pk)
    told = {
        row["hour"]: _tokens(row)
        for row in UsageRollup.objects.filter(
            organization_id=node.organization_id,
            node=node.name,
            hour__gte=max(since, hour_of(first)) if first else since,
            hour__lt=until,
        )
        .order_by()
        .values("hour")
        .annotate(**_SUMS)
    }
    if first is not None and (begun := hour_of(first)) in told:
        told[begun] = _minus(told[begun], _spent(node, begun, first))
    return [
        HourOfNode(
            hour=hour,
            produced=_made(usage[hour]) if hour in usage else Tokens(),
            metered=told.get(hour, Tokens()),
            incomplete=hour in usage and usage[hour].incomplete,
        )
        for hour in sorted(usage.keys() | told.keys())
    ]


# ------------------------------------------------------------------------------- the cause


def likely_cause(node: ServingNode, produced: Tokens, metered: Tokens, facts: Facts) -> str:
    """Why the sides differ, in a sentence; empty where they agree."""
    if not node.metrics_path:
        return "This engine has no counters to compare with."
    if node.last_error:
        return f"Its counters cannot be read: {node.last_error}."
    if node.last_scraped_at is None:
        return "Its counters have not been read yet."
    if not _exceeds(produced, metered) and not _exceeds(metered, produced):
        return ""
    if facts.moving:
        return "Calls are running or ended a moment ago: the figures settle within a minute."
    if facts.incomplete:
        return "The engine was restarted, or could not be read for a time: its tokens are lost."
    if facts.presumed:
        return f"Calls without an exact usage are charged their bound: {facts.presumed} of them."
    if _largest(produced, metered) <= 2 * facts.resolution:
        return f"The engine rounds its totals to {facts.resolution} tokens."
    if _exceeds(produced, metered):
        return "Calls reach this engine without passing a sidecar."
    return "Sidecars metered more than the engine counted: does another node have this name?"


def _exceeds(more: Tokens, less: Tokens) -> bool:
    """Whether prompts or generated tokens are more than the noise above the other side's."""
    return any(
        a - b > max(NOISE_TOKENS, a * NOISE_PER_MILLE // 1000)
        for a, b in ((more.prompt, less.prompt), (more.generation, less.generation))
    )


def _largest(one: Tokens, other: Tokens) -> int:
    return max(abs(one.prompt - other.prompt), abs(one.generation - other.generation))


# ------------------------------------------------------------------------------- the sums

_SUMS = {
    "prompt": Sum("input_tokens"),
    "cached": Sum("cached_input_tokens"),
    "generation": Sum("output_tokens"),
}


def _produced(
    nodes: Sequence[ServingNode], since: datetime, until: datetime
) -> dict[UUID, tuple[Tokens, bool]]:
    sums = (
        NodeUsage.objects.filter(node__in=nodes, hour__gte=since, hour__lt=until)
        .values("node_id")
        .annotate(
            prompt=Sum("prompt_tokens"),
            cached=Sum("cached_tokens"),
            generation=Sum("generation_tokens"),
            marked=Count("id", filter=Q(incomplete=True)),
        )
    )
    return {row["node_id"]: (_tokens(row), row["marked"] > 0) for row in sums}


def _metered(
    organization_id: UUID, nodes: Sequence[ServingNode], since: datetime, until: datetime
) -> dict[str, Tokens]:
    """What sidecars told of each node since its first sample; all of it for one never read."""
    told = {
        spend.key[0]: Tokens(spend.input_tokens, spend.cached_input_tokens, spend.output_tokens)
        for spend in queries.spend_by(
            organization_id=organization_id, since=since, until=until, by=("node",)
        )
    }
    firsts = _first_samples(nodes)
    found = {}
    for node in nodes:
        first, all_of_it = firsts.get(node.pk), told.get(node.name, Tokens())
        found[node.name] = all_of_it
        if first is not None and first > since:
            found[node.name] = _minus(all_of_it, _spent(node, since, min(first, until)))
    return found


def _spent(node: ServingNode, since: datetime, until: datetime) -> Tokens:
    """What sidecars told of one node's calls that began in [since, until)."""
    return _tokens(_events(node, since, until).aggregate(**_SUMS))


def _presumed(node: ServingNode, since: datetime, until: datetime) -> int:
    """Calls that were charged without an exact usage."""
    return _events(node, since, until).filter(Q(presumed=True) | Q(estimated=True)).count()


def _events(node: ServingNode, since: datetime, until: datetime) -> QuerySet[UsageEvent]:
    return UsageEvent.objects.filter(
        organization_id=node.organization_id,
        node=node.name,
        started_at__gte=since,
        started_at__lt=until,
    )


def _first_samples(nodes: Sequence[ServingNode]) -> dict[UUID, datetime]:
    """A look into the index for each node: a week has 100,000 samples of it."""
    first = NodeSample.objects.filter(node=OuterRef("pk")).order_by("at").values("at")[:1]
    rows = ServingNode.objects.filter(pk__in=[node.pk for node in nodes])
    return {pk: at for pk, at in rows.values_list("pk", Subquery(first)) if at is not None}


def _latest(nodes: Sequence[ServingNode]) -> dict[UUID, NodeSample]:
    last = NodeSample.objects.filter(node=OuterRef("pk")).order_by("-at").values("pk")[:1]
    rows = ServingNode.objects.filter(pk__in=[node.pk for node in nodes]).values_list(
        Subquery(last)
    )
    return {sample.node_id: sample for sample in NodeSample.objects.filter(pk__in=rows)}


def _moving(nodes: Sequence[ServingNode], now: datetime) -> set[UUID]:
    """Nodes that produced something a moment ago."""
    rows = (
        NodeSample.objects.filter(node__in=nodes, at__gte=now - SETTLING)
        .values("node_id")
        .annotate(
            low=Min("generation_tokens_total"),
            high=Max("generation_tokens_total"),
            first=Min("prompt_tokens_total"),
            last=Max("prompt_tokens_total"),
        )
    )
    return {
        row["node_id"] for row in rows if row["low"] != row["high"] or row["first"] != row["last"]
    }


def _made(usage: NodeUsage) -> Tokens:
    return Tokens(usage.prompt_tokens, usage.cached_tokens, usage.generation_tokens)


def _tokens(row: Mapping[str, Any]) -> Tokens:
    return Tokens(row["prompt"] or 0, row["cached"] or 0, row["generation"] or 0)


def _minus(one: Tokens, other: Tokens) -> Tokens:
    return Tokens(*(a - b for a, b in zip(one, other, strict=True)))
