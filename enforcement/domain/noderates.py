"""Rates of a self-hosted model from what its nodes cost and made, with the evidence attached."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Q

from budgets.domain.pricelist import Span, jumps
from budgets.domain.prices import set_own_price
from budgets.domain.priceversions import span_of
from budgets.models import PriceVersion
from controlplane.audit.domain import Actor
from enforcement.domain.nodecosts import costs_of
from enforcement.enums import NodeState
from enforcement.errors import NodeCostError
from enforcement.models import NodeUsage, ServingNode
from enforcement.rules.money import usd_text
from enforcement.rules.nodecost import Cost, cost_between_nanos
from enforcement.rules.noderates import NOTHING, Made, NodeRateError, Weights, rates_of_nodes
from enforcement.rules.policy import Rates

HOUR = timedelta(hours=1)
LONGEST = timedelta(days=92)
SOURCE = "measured"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Rates, and all that they were computed from, as plain values."""

    model: str
    rates: Rates
    evidence: dict[str, Any]
    jumps: list[str]


def measure(
    *,
    organization_id: UUID,
    model: str,
    since: datetime,
    until: datetime,
    weights: Weights,
    now: datetime,
) -> Measured:
    """What a token of a model costs by whole hours from `since` to `until`. Changes nothing.

    Hours in which nothing was made count with their cost. Those in which an engine was not read all
    along are left out with their tokens and their cost.

    Raises:
        NodeCostError: no node serves it alone, a cost is unknown, or too little was made.
    """
    _check_time(since, until, now)
    nodes = _nodes(organization_id, model, since)
    costs = costs_of([node.pk for node in nodes])
    found = [_node(node, costs.get(node.pk, []), since=since, until=until) for node in nodes]
    made = sum((one for _, one, _ in found), NOTHING)
    cost_nanos = sum(nanos for nanos, _, _ in found)
    try:
        rates = rates_of_nodes(cost_nanos, made, weights)
    except NodeRateError as error:
        raise NodeCostError(str(error)) from error
    evidence = {
        "since": since.isoformat(),
        "until": until.isoformat(),
        "cost": usd_text(cost_nanos),
        **asdict(made),
        **asdict(weights),
        "nodes": [told for _, _, told in found],
    }
    before = _own(organization_id, model, now)
    doubtful = jumps(before, Span(now, None, rates))
    return Measured(model=model, rates=rates, evidence=evidence, jumps=doubtful)


def set_measured_price(
    measured: Measured,
    *,
    organization_id: UUID,
    actor: Actor,
    now: datetime,
    reason: str = "",
    confirmed: bool = False,
) -> PriceVersion:
    """Make them the organization's own rates of the model from now on.

    Raises:
        NodeCostError: they are a hundred times what they were, or a hundredth, and not confirmed.
    """
    if measured.jumps and not confirmed:
        raise NodeCostError(f"confirm that this is meant: {measured.jumps[0]}")
    return set_own_price(
        organization_id=organization_id,
        model=measured.model,
        rates=measured.rates,
        actor=actor,
        now=now,
        reason=reason,
        source=SOURCE,
        evidence=measured.evidence,
    )


def _check_time(since: datetime, until: datetime, now: datetime) -> None:
    for at in (since, until):
        if at.minute or at.second or at.microsecond:
            raise NodeCostError("engines' counts are kept by the hour: name whole hours")
    if not since < until <= now:
        raise NodeCostError("the time must end after it begins, and not in the future")
    if until - since > LONGEST:
        raise NodeCostError(f"at most {LONGEST.days} days are measured at once")


def _nodes(organization_id: UUID, model: str, since: datetime) -> list[ServingNode]:
    """The nodes that serve the model. Counters do not tell a node's models apart."""
    rows = ServingNode.objects.filter(organization_id=organization_id, models__contains=[model])
    nodes = list(rows.exclude(state=NodeState.GONE).order_by("name"))
    if not nodes:
        raise NodeCostError(f"no node serves {model!r}")
    for node in nodes:
        if len(node.models) > 1:
            raise NodeCostError(f"{node.name} serves other models too: its cost cannot be divided")
        if node.created_at > since:
            raise NodeCostError(f"{node.name} is only known since {node.created_at.isoformat()}")
    return nodes


def _node(
    node: ServingNode, costs: Iterable[Cost], *, since: datetime, until: datetime
) -> tuple[int, Made, dict[str, Any]]:
    """What a node cost and made, and how that is told."""
    known = list(costs)
    rows = list(NodeUsage.objects.filter(node=node, hour__gte=since, hour__lt=until))
    partial = {row.hour for row in rows if row.incomplete}
    cost_nanos, unknown = cost_between_nanos(known, since=since, until=until)
    if unknown:
        raise NodeCostError(f"what {node.name} cost is not known for {unknown} of that time")
    for hour in partial:
        cost_nanos -= cost_between_nanos(known, since=hour, until=hour + HOUR)[0]
    whole = [row for row in rows if not row.incomplete]
    made = sum((_made(row) for row in whole), NOTHING)
    hours = int((until - since) / HOUR)
    told = {
        "node": node.name,
        "cost": usd_text(cost_nanos),
        "hours": hours,
        "idle_hours": hours - len(rows),
        "hours_left_out": len(partial),
        **asdict(made),
    }
    return cost_nanos, made, told


def _made(row: NodeUsage) -> Made:
    return Made(
        prompt_tokens=row.prompt_tokens,
        cached_tokens=min(row.cached_tokens, row.prompt_tokens),
        answer_tokens=row.generation_tokens,
    )


def _own(organization_id: UUID, model: str, now: datetime) -> Span | None:
    row = (
        PriceVersion.objects.filter(
            Q(valid_to=None) | Q(valid_to__gt=now),
            organization_id=organization_id,
            model=model,
            provider="",
            match="exact",
            valid_from__lte=now,
        )
        .order_by("valid_from")
        .last()
    )
    return span_of(row) if row else None
