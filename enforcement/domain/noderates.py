"""Rates of a self-hosted model from what its nodes cost and made, with the evidence attached."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Q

from budgets.domain.pricelist import Span, jumps
from budgets.domain.prices import set_own_price
from budgets.domain.priceversions import span_of
from budgets.models import PriceVersion
from controlplane.audit.domain import Actor
from enforcement.domain.efficiency import work_of_models
from enforcement.domain.nodecosts import costs_of
from enforcement.enums import NodeState
from enforcement.errors import NodeCostError
from enforcement.models import NodeUsage, ServingNode
from enforcement.rules.efficiency import Use, divide
from enforcement.rules.efficiency import Weights as Kinds
from enforcement.rules.money import usd_text
from enforcement.rules.nodecost import Cost, cost_between_nanos
from enforcement.rules.noderates import (
    NOTHING,
    PER_MILLE,
    Made,
    NodeRateError,
    Weights,
    rates_of_nodes,
)
from enforcement.rules.policy import Rates

HOUR = timedelta(hours=1)
LONGEST = timedelta(days=92)
SOURCE = "measured"
UNMETERED = ""  # no model's: what went past the sidecars


@dataclass(frozen=True, kw_only=True)
class _Spent:
    """What a node cost and made in the hours that count; `shared` tells how its models share it."""

    node: ServingNode
    cost_nanos: int
    made: Made
    hours: tuple[datetime, ...]
    idle_hours: int
    hours_left_out: int
    shared: dict[str, Any] = field(default_factory=dict)


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
    along are left out with their tokens and their cost. Counters do not tell a node's models apart:
    where it has several, its cost is divided by what it cost while it worked for each, and the
    tokens are those that sidecars metered.

    Raises:
        NodeCostError: no node serves it, a cost is unknown, or too little was made.
    """
    _check_time(since, until, now)
    nodes = _nodes(organization_id, model, since)
    costs = costs_of([node.pk for node in nodes])
    spent = [_spent(node, costs.get(node.pk, []), since=since, until=until) for node in nodes]
    found = [_share_of(model, one, weights) if _is_shared(one.node) else one for one in spent]
    made = sum((one.made for one in found), NOTHING)
    cost_nanos = sum(one.cost_nanos for one in found)
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
        "nodes": [_told(one) for one in found],
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
    """The nodes that serve the model."""
    rows = ServingNode.objects.filter(organization_id=organization_id, models__contains=[model])
    nodes = list(rows.exclude(state=NodeState.GONE).order_by("name"))
    if not nodes:
        raise NodeCostError(f"no node serves {model!r}")
    for node in nodes:
        if node.created_at > since:
            raise NodeCostError(f"{node.name} is only known since {node.created_at.isoformat()}")
    return nodes


def _spent(node: ServingNode, costs: Iterable[Cost], *, since: datetime, until: datetime) -> _Spent:
    """What a node cost and made, all its models together."""
    known = list(costs)
    rows = list(NodeUsage.objects.filter(node=node, hour__gte=since, hour__lt=until))
    partial = {row.hour for row in rows if row.incomplete}
    cost_nanos, unknown = cost_between_nanos(known, since=since, until=until)
    if unknown:
        raise NodeCostError(f"what {node.name} cost is not known for {unknown} of that time")
    for hour in partial:
        cost_nanos -= cost_between_nanos(known, since=hour, until=hour + HOUR)[0]
    hours = [since + number * HOUR for number in range((until - since) // HOUR)]
    return _Spent(
        node=node,
        cost_nanos=cost_nanos,
        made=sum((_made(row) for row in rows if not row.incomplete), NOTHING),
        hours=tuple(hour for hour in hours if hour not in partial),
        idle_hours=len(hours) - len(rows),
        hours_left_out=len(partial),
    )


def _is_shared(node: ServingNode) -> bool:
    return len(node.models) > 1


def _share_of(model: str, spent: _Spent, weights: Weights) -> _Spent:
    """One model's part of a node that serves others too: of its waiting as of its work."""
    if not spent.hours:
        return spent
    kinds = Kinds(
        prompt=PER_MILLE, cached=weights.cached_per_mille, generation=weights.answer_per_mille
    )
    work = work_of_models(spent.node, hours=spent.hours, weights=kinds)
    shares = {**work.busy_nanos, UNMETERED: work.unmetered_nanos}
    if not any(shares.values()):
        raise NodeCostError(f"{spent.node.name} has several models, and was not seen at work")
    parts = divide(spent.cost_nanos, shares)
    used = work.used.get(model, Use())
    return replace(
        spent,
        cost_nanos=parts.get(model, 0),
        made=Made(
            prompt_tokens=used.prompt, cached_tokens=used.cached, answer_tokens=used.generation
        ),
        shared={
            "node_cost": usd_text(spent.cost_nanos),
            "busy_cost": {name: usd_text(nanos) for name, nanos in sorted(work.busy_nanos.items())},
            "unmetered_busy_cost": usd_text(work.unmetered_nanos),
        },
    )


def _told(spent: _Spent) -> dict[str, Any]:
    return {
        "node": spent.node.name,
        "cost": usd_text(spent.cost_nanos),
        "hours": len(spent.hours) + spent.hours_left_out,
        "idle_hours": spent.idle_hours,
        "hours_left_out": spent.hours_left_out,
        **asdict(spent.made),
        **spent.shared,
    }


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
