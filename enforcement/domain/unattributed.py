"""What engines produced and no sidecar metered: traffic that went past the budgets.

One side is `NodeUsage`, from the engine's own counters; the other is what sidecars reported, under
the node's name. A node is compared from its first sample on, since the counters that stood there
then are no one's. A difference has a likely cause in words (`causes`, from `evidence`), since most
are harmless: a restart, a running call.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import OuterRef, Subquery, Sum

from budgets import queries
from budgets.models import UsageEvent, UsageRollup
from enforcement.domain.causes import (
    NOTHING,
    SETTLING,
    SPANNING,
    Evidence,
    likely_cause,
    minus,
    plus,
)
from enforcement.domain.evidence import Sides, evidence_of
from enforcement.domain.gather import HOUR, Tokens, hour_of
from enforcement.models import NodeSample, NodeUsage, ServingNode
from enforcement.rules.reconcile import Cause


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
        return minus(self.produced, self.metered)


@dataclass(frozen=True)
class HourOfNode:
    """One node in one hour."""

    hour: datetime
    produced: Tokens
    metered: Tokens
    incomplete: bool


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
    sides = _sides(list(nodes), organization_id, since, until)
    evidence = evidence_of(sides, organization_id=organization_id, until=until, now=now)
    return [
        Difference(
            node_id=side.node.pk,
            node=side.node.name,
            since=since,
            until=until,
            produced=side.produced,
            metered=side.metered,
            cause=cause.text if (cause := _cause(side, evidence, now)) else "",
            incomplete=side.incomplete,
            fresh_at=last.at if (last := evidence[side.node.pk].last) else None,
        )
        for side in sides
    ]


def causes_in(
    *, organization_id: UUID, names: Sequence[str], hour: datetime, now: datetime
) -> dict[str, Cause]:
    """Why the nodes of these names differed in one hour, of those that did. A few queries."""
    nodes = list(ServingNode.objects.filter(organization_id=organization_id, name__in=names))
    until = hour + HOUR
    sides = _sides(nodes, organization_id, hour, until)
    evidence = evidence_of(sides, organization_id=organization_id, until=until, now=now)
    found = {side.node.name: _cause(side, evidence, min(now, until)) for side in sides}
    return {name: _in_hour(cause) for name, cause in found.items() if cause}


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
        told[begun] = minus(told[begun], _spent(node, begun, first))
    return [
        HourOfNode(
            hour=hour,
            produced=_made(usage[hour]) if hour in usage else NOTHING,
            metered=told.get(hour, NOTHING),
            incomplete=hour in usage and usage[hour].incomplete,
        )
        for hour in sorted(usage.keys() | told.keys())
    ]


def _in_hour(cause: Cause) -> Cause:
    return SPANNING if cause is SETTLING else cause


def _cause(side: Sides, evidence: Mapping[UUID, Evidence], now: datetime) -> Cause | None:
    return likely_cause(side.node, side.produced, side.metered, evidence[side.node.pk], now=now)


# ------------------------------------------------------------------------------- the sums

_SUMS = {
    "prompt": Sum("input_tokens"),
    "cached": Sum("cached_input_tokens"),
    "generation": Sum("output_tokens"),
}


def _sides(
    nodes: Sequence[ServingNode], organization_id: UUID, since: datetime, until: datetime
) -> list[Sides]:
    firsts = _first_samples(nodes)
    made = _produced(nodes, since, until)
    metered = _metered(organization_id, nodes, firsts, since, until)
    return [
        Sides(
            node=node,
            begun=max(since, firsts.get(node.pk, since)),
            produced=plus(*(made.get((node.pk, marked), NOTHING) for marked in (False, True))),
            metered=metered[node.name],
            incomplete=(node.pk, True) in made,
            produced_in_marked_hours=made.get((node.pk, True), NOTHING),
        )
        for node in nodes
    ]


def _produced(
    nodes: Sequence[ServingNode], since: datetime, until: datetime
) -> dict[tuple[UUID, bool], Tokens]:
    """By node, and by whether the hours are marked as incomplete."""
    sums = (
        NodeUsage.objects.filter(node__in=nodes, hour__gte=since, hour__lt=until)
        .values("node_id", "incomplete")
        .annotate(
            prompt=Sum("prompt_tokens"),
            cached=Sum("cached_tokens"),
            generation=Sum("generation_tokens"),
        )
    )
    return {(row["node_id"], row["incomplete"]): _tokens(row) for row in sums}


def _metered(
    organization_id: UUID,
    nodes: Sequence[ServingNode],
    firsts: Mapping[UUID, datetime],
    since: datetime,
    until: datetime,
) -> dict[str, Tokens]:
    """What sidecars told of each node since its first sample; all of it for one never read."""
    told = {
        spend.key[0]: Tokens(spend.input_tokens, spend.cached_input_tokens, spend.output_tokens)
        for spend in queries.spend_by(
            organization_id=organization_id, since=since, until=until, by=("node",)
        )
    }
    found = {}
    for node in nodes:
        first, all_of_it = firsts.get(node.pk), told.get(node.name, NOTHING)
        found[node.name] = all_of_it
        if first is not None and first > since:
            found[node.name] = minus(all_of_it, _spent(node, since, min(first, until)))
    return found


def _spent(node: ServingNode, since: datetime, until: datetime) -> Tokens:
    """What sidecars told of one node's calls that began in [since, until)."""
    calls = UsageEvent.objects.filter(
        organization_id=node.organization_id,
        node=node.name,
        started_at__gte=since,
        started_at__lt=until,
    )
    return _tokens(calls.aggregate(**_SUMS))


def _first_samples(nodes: Sequence[ServingNode]) -> dict[UUID, datetime]:
    """A look into the index for each node: a week has 100,000 samples of it."""
    first = NodeSample.objects.filter(node=OuterRef("pk")).order_by("at").values("at")[:1]
    rows = ServingNode.objects.filter(pk__in=[node.pk for node in nodes])
    return {pk: at for pk, at in rows.values_list("pk", Subquery(first)) if at is not None}


def _made(usage: NodeUsage) -> Tokens:
    return Tokens(usage.prompt_tokens, usage.cached_tokens, usage.generation_tokens)


def _tokens(row: Mapping[str, Any]) -> Tokens:
    return Tokens(row["prompt"] or 0, row["cached"] or 0, row["generation"] or 0)
