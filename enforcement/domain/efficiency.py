"""What serving nodes cost and what they made of it: efficiency, and who it was spent for.

Readings are kept for a week, their hours for good: `enforcement.domain.activity` sums them up.
"""

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from urllib.parse import urlsplit
from uuid import UUID

from django.db.models import Sum

from budgets.models import UsageRollup
from controlplane.identity.models import Agent
from enforcement.collectors.registry import EXPORTERS
from enforcement.domain.gather import HOUR, hour_of
from enforcement.domain.nodecosts import costs_of
from enforcement.models import NodeActivity, NodeUsage, ServingNode
from enforcement.rules import efficiency as rule
from enforcement.rules.efficiency import Line, NodeHour, Payer, Use, Weights
from enforcement.rules.nodecost import Cost, cost_between_nanos, spans

WEIGHTS = Weights()
MEASURES = "measures"  # a label of an exporter: the name of the node whose devices it tells of
_MS = timedelta(milliseconds=1)


class EnergySource(StrEnum):
    """How a node's energy is known, the best first."""

    COUNTED = "counted"  # by a device's counter
    DRAWN = "drawn"  # out of the power that devices drew at each reading
    DECLARED = "declared"  # the watts that people said, for all of the time
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Charge:
    """One line of what a node cost. Tokens are told of agents."""

    line: str
    agent: str
    model: str
    cost_nanos: int
    tokens: int


@dataclass(frozen=True)
class ModelEfficiency:
    """One model of a node: the tokens that were metered, and their part of the cost."""

    model: str
    tokens: int
    cost_nanos: int

    @property
    def tokens_per_usd(self) -> int | None:
        return rule.tokens_per_usd(self.tokens, self.cost_nanos)

    @property
    def nanos_per_million(self) -> int | None:
        return rule.nanos_per_million(self.cost_nanos, self.tokens)


@dataclass(frozen=True)
class NodeEfficiency:
    """One node in a time. Times are in milliseconds, money in nano-dollars; the charges add up to
    the cost. What is not known is None. `unpriced_ms`: for so long nobody had told its cost.
    """

    node_id: UUID
    node: str
    engine: str
    cost_nanos: int
    unpriced_ms: int
    busy_ms: int
    idle_ms: int
    unread_ms: int
    running_ms: int
    prefill_ms: int
    decode_ms: int
    produced: Use
    energy_millijoules: int | None
    energy_source: EnergySource
    charges: tuple[Charge, ...]
    models: tuple[ModelEfficiency, ...]

    @property
    def tokens(self) -> int:
        return self.produced.prompt + self.produced.generation

    @property
    def idle_nanos(self) -> int:
        return sum(one.cost_nanos for one in self.charges if one.line == Line.IDLE)

    @property
    def tokens_per_usd(self) -> int | None:
        return rule.tokens_per_usd(self.tokens, self.cost_nanos)

    @property
    def nanos_per_million(self) -> int | None:
        return rule.nanos_per_million(self.cost_nanos, self.tokens)

    @property
    def millijoules_per_token(self) -> int | None:
        return rule.millijoules_per_token(self.energy_millijoules, self.tokens)

    @property
    def read_ms(self) -> int:
        return self.busy_ms + self.idle_ms

    @property
    def stages_ms(self) -> int:
        return self.prefill_ms + self.decode_ms

    @property
    def busy_permille(self) -> int | None:
        """Of the time in which it was read."""
        return rule.permille(self.busy_ms, self.read_ms)

    @property
    def prefill_permille(self) -> int | None:
        """Of the time that requests took; the rest is for their answers."""
        return rule.permille(self.prefill_ms, self.stages_ms)

    @property
    def cached_permille(self) -> int | None:
        return rule.permille(self.produced.cached, self.produced.prompt)

    @property
    def milli_at_once(self) -> int | None:
        """Thousandths of requests that ran at once while it was busy."""
        return rule.permille(self.running_ms, self.busy_ms)

    @property
    def at_once_text(self) -> str:
        """Requests at once with a tenth, cut."""
        milli = self.milli_at_once or 0
        return f"{milli // 1_000}.{milli % 1_000 // 100}"


@dataclass(frozen=True)
class ModelWork:
    """What a node did for each of its models: what it cost while it worked, in nano-dollars, and
    the tokens that were metered. `unmetered_nanos`: the same for nobody that a sidecar knows.
    """

    busy_nanos: Mapping[str, int]
    unmetered_nanos: int
    used: Mapping[str, Use]


@dataclass(frozen=True)
class _Told:
    """Everything that rows say of the nodes of an organization, by node and hour."""

    costs: Mapping[UUID, Sequence[Cost]]
    activity: Mapping[tuple[UUID, datetime], NodeActivity]
    produced: Mapping[tuple[UUID, datetime], Use]
    used: Mapping[tuple[str, datetime], Mapping[tuple[str, str], Use]]
    agents: Mapping[str, str]
    exporters: Mapping[UUID, Sequence[UUID]]


def efficiency(
    *,
    organization_id: UUID,
    since: datetime,
    until: datetime,
    now: datetime,
    node_id: UUID | None = None,
) -> list[NodeEfficiency]:
    """Every node that makes tokens, or one, by name. A handful of queries for any number.

    `since` is cut to its hour, and `until` to now.
    """
    since, until = hour_of(since), min(until, now)
    nodes = list(ServingNode.objects.filter(organization_id=organization_id).order_by("name"))
    told = _told(organization_id, nodes, since, until)
    measured = {row.node_id for row in told.activity.values()}
    return [
        _of_node(node, told, since, until)
        for node in nodes
        if node_id in (None, node.pk)
        and (node.pk in measured or node.pk in told.costs)
        and not _is_exporter(node)
    ]


def work_of_models(node: ServingNode, *, hours: Sequence[datetime], weights: Weights) -> ModelWork:
    """How the models of a node shared it in these hours, which are over. Waiting is not in it."""
    told = _told(node.organization_id, [node], min(hours), max(hours) + HOUR)
    parts = rule.total(rule.charge(_hour(node, told, hour, hour + HOUR), weights) for hour in hours)
    busy: dict[str, int] = defaultdict(int)
    for payer, nanos in parts.items():
        if payer.line == Line.AGENT:
            busy[payer.model] += nanos
    used: dict[str, Use] = {}
    for (_, model), use in _sum_by_key(told, node, hours).items():
        used[model] = used.get(model, Use()).plus(use)
    return ModelWork(busy, parts.get(Payer(Line.UNMETERED), 0), used)


def _is_exporter(node: ServingNode) -> bool:
    return node.engine in EXPORTERS


# ------------------------------------------------------------------------------- one node


def _of_node(node: ServingNode, told: _Told, since: datetime, until: datetime) -> NodeEfficiency:
    begun = max(since, hour_of(node.created_at))
    hours = [begun + number * HOUR for number in range(-((begun - until) // HOUR))]
    rows = [row for hour in hours if (row := told.activity.get((node.pk, hour)))]
    parts = rule.total(rule.charge(_hour(node, told, hour, until), WEIGHTS) for hour in hours)
    cost, unknown = _cost(told.costs.get(node.pk, ()), hours, until)
    used = _sum_by_key(told, node, hours)
    busy, idle = sum(row.busy_ms for row in rows), sum(row.idle_ms for row in rows)
    joules, source = _energy(node, told, hours, until)
    return NodeEfficiency(
        node_id=node.pk,
        node=node.name,
        engine=node.engine,
        cost_nanos=cost,
        unpriced_ms=unknown,
        busy_ms=busy,
        idle_ms=idle,
        unread_ms=max(0, (max(until, begun) - begun) // _MS - busy - idle),
        running_ms=sum(row.running_ms for row in rows),
        prefill_ms=sum(row.prefill_ms for row in rows),
        decode_ms=sum(row.decode_ms for row in rows),
        produced=functools.reduce(
            Use.plus, (told.produced.get((node.pk, hour), Use()) for hour in hours), Use()
        ),
        energy_millijoules=joules,
        energy_source=source,
        charges=_charges(parts, used, told.agents),
        models=_models(parts, used),
    )


def _hour(node: ServingNode, told: _Told, hour: datetime, until: datetime) -> NodeHour:
    end = min(hour + HOUR, until)
    cost, _ = cost_between_nanos(told.costs.get(node.pk, ()), since=hour, until=end)
    row = told.activity.get((node.pk, hour))
    return NodeHour(
        cost_nanos=cost,
        busy_ms=row.busy_ms if row else 0,
        idle_ms=row.idle_ms if row else 0,
        length_ms=(end - hour) // _MS,
        produced=told.produced.get((node.pk, hour), Use()),
        used=told.used.get((node.name, hour), {}),
    )


def _cost(costs: Sequence[Cost], hours: Sequence[datetime], until: datetime) -> tuple[int, int]:
    """Nano-dollars, hour by hour as they are charged, and for how long no cost was known."""
    found = [cost_between_nanos(costs, since=hour, until=min(hour + HOUR, until)) for hour in hours]
    unknown = sum((length for _, length in found), timedelta(0))
    return sum(nanos for nanos, _ in found), unknown // _MS


def _sum_by_key(
    told: _Told, node: ServingNode, hours: Sequence[datetime]
) -> dict[tuple[str, str], Use]:
    found: dict[tuple[str, str], Use] = {}
    for hour in hours:
        for key, use in told.used.get((node.name, hour), {}).items():
            found[key] = found.get(key, Use()).plus(use)
    return found


def _charges(
    parts: Mapping[Payer, int],
    used: Mapping[tuple[str, str], Use],
    agents: Mapping[str, str],
) -> tuple[Charge, ...]:
    """The dearest first; what is for no agent stands last."""
    rows = [
        Charge(
            line=payer.line.value,
            agent=agents.get(payer.agent, payer.agent),
            model=payer.model,
            cost_nanos=nanos,
            tokens=_tokens(used.get((payer.agent, payer.model), Use())) if payer.agent else 0,
        )
        for payer, nanos in parts.items()
    ]
    return tuple(
        sorted(
            rows, key=lambda row: (row.line != Line.AGENT, -row.cost_nanos, row.agent, row.model)
        )
    )


def _models(
    parts: Mapping[Payer, int], used: Mapping[tuple[str, str], Use]
) -> tuple[ModelEfficiency, ...]:
    names = sorted({model for _, model in used})
    return tuple(
        ModelEfficiency(
            model=name,
            tokens=sum(_tokens(use) for (_, model), use in used.items() if model == name),
            cost_nanos=sum(nanos for payer, nanos in parts.items() if payer.model == name),
        )
        for name in names
    )


def _tokens(use: Use) -> int:
    return use.prompt + use.generation


def _energy(
    node: ServingNode, told: _Told, hours: Sequence[datetime], until: datetime
) -> tuple[int | None, EnergySource]:
    """Of the node's own devices and of exporters that tell of it; else what people declared."""
    sources = [node.pk, *told.exporters.get(node.pk, ())]
    rows = [
        row
        for source in sources
        for hour in hours
        if (row := told.activity.get((source, hour))) and row.energy_millijoules is not None
    ]
    if rows:
        is_counted = all(row.energy_is_counted for row in rows)
        total = sum(row.energy_millijoules or 0 for row in rows)
        return total, EnergySource.COUNTED if is_counted else EnergySource.DRAWN
    if not hours:
        return None, EnergySource.UNKNOWN
    declared = [
        span.cost.watts * ((span.until - span.since) // _MS)
        for span in spans(told.costs.get(node.pk, ()), since=hours[0], until=until)
        if span.cost is not None and span.cost.watts is not None
    ]
    return (sum(declared), EnergySource.DECLARED) if declared else (None, EnergySource.UNKNOWN)


# ------------------------------------------------------------------------------- reading


def _told(
    organization_id: UUID, nodes: Sequence[ServingNode], since: datetime, until: datetime
) -> _Told:
    window = {"hour__gte": since, "hour__lt": until}
    ids = [node.pk for node in nodes]
    activity = NodeActivity.objects.filter(node__in=ids, **window)
    usage = NodeUsage.objects.filter(node__in=ids, **window)
    used: dict[tuple[str, datetime], dict[tuple[str, str], Use]] = defaultdict(dict)
    rows = (
        UsageRollup.objects.filter(organization_id=organization_id, node__gt="", **window)
        .order_by()
        .values_list("node", "hour", "agent_id", "model")
        .annotate(Sum("input_tokens"), Sum("cached_input_tokens"), Sum("output_tokens"))
    )
    for node, hour, agent, model, *amounts in rows:
        used[node, hour][str(agent), model] = Use(*amounts)
    named = {agent for kinds in used.values() for agent, _ in kinds}
    return _Told(
        costs=costs_of(ids),
        activity={(row.node_id, row.hour): row for row in activity},
        produced={
            (row.node_id, row.hour): Use(
                row.prompt_tokens, row.cached_tokens, row.generation_tokens
            )
            for row in usage
        },
        used=used,
        agents={
            str(pk): name
            for pk, name in Agent.objects.filter(pk__in=named).values_list("pk", "name")
        },
        exporters=_exporters(nodes),
    )


def _exporters(nodes: Sequence[ServingNode]) -> dict[UUID, list[UUID]]:
    """Which exporters tell of a node's devices: those that name it by a label, else those of its
    host, if no other node that makes tokens is there.
    """
    by_name = {node.name: node.pk for node in nodes}
    at_host: dict[str | None, list[UUID]] = defaultdict(list)
    for node in nodes:
        if not _is_exporter(node):
            at_host[urlsplit(node.base_url).hostname].append(node.pk)
    found: dict[UUID, list[UUID]] = defaultdict(list)
    for node in filter(_is_exporter, nodes):
        named = by_name.get(str(node.labels.get(MEASURES, "")))
        here = at_host.get(urlsplit(node.base_url).hostname, [])
        served = named or (here[0] if len(here) == 1 else None)
        if served is not None:
            found[served].append(node.pk)
    return dict(found)
