"""Bills beside what was metered: for each provider and model, in the time that a bill is about.

A line of an hour whose model was called through one node only stands in that node's own row.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from django.db import connection

from enforcement.domain.bills.lines import Period
from enforcement.domain.counts import Metered, total
from enforcement.domain.gather import HOUR, Tokens
from enforcement.models import BillLine, Reconciliation
from enforcement.rules.billing import BillCount, Counted, family

_METERED = """
SELECT b.provider, b.starts_at, b.ends_at, r.model, array_agg(DISTINCT r.node), sum(r.calls),
    sum(r.input_tokens), sum(r.cached_input_tokens), sum(r.output_tokens), sum(r.charge_nanos)
FROM unnest(%s::text[], %s::timestamptz[], %s::timestamptz[]) AS b(provider, starts_at, ends_at)
JOIN budgets_usagerollup r ON r.organization_id = %s AND r.provider = b.provider
    AND r.hour >= b.starts_at AND r.hour < b.ends_at
GROUP BY b.provider, b.starts_at, b.ends_at, r.model
"""
_DOUBTS = """
SELECT b.number, count(*) FILTER (WHERE e.price_version_id IS NULL AND e.charge_nanos = 0),
    coalesce(sum(e.input_tokens + e.output_tokens) FILTER (WHERE e.presumed OR e.estimated), 0)
FROM unnest(%s::int[], %s::text[], %s::timestamptz[], %s::timestamptz[], %s::text[])
    AS b(number, provider, starts_at, ends_at, model)
JOIN budgets_usageevent e ON e.organization_id = %s AND e.provider = b.provider
    AND e.model = b.model AND e.started_at >= b.starts_at AND e.started_at < b.ends_at
GROUP BY b.number
"""


class Bill(NamedTuple):
    """What is billed together."""

    provider: str
    period: Period


@dataclass(frozen=True)
class Subject:
    """One model on one bill, both sides. `name` is its row's; `models` are those metered."""

    bill: Bill
    name: str
    models: tuple[str, ...]
    nodes: frozenset[str]
    metered: Metered
    billed: Tokens | None
    billed_nanos: int | None
    read_at: datetime
    is_of_models: bool

    @property
    def node(self) -> str:
        """The only one that it was called through."""
        return next(iter(self.nodes)) if len(self.nodes) == 1 else ""

    @property
    def count(self) -> BillCount:
        return BillCount(
            starts_at=self.bill.period.starts_at,
            ends_at=self.bill.period.ends_at,
            calls=self.metered.calls,
            metered=Counted(self.metered.tokens.prompt, self.metered.tokens.generation),
            charge_nanos=self.metered.charge_nanos,
            billed=Counted(self.billed.prompt, self.billed.generation) if self.billed else None,
            billed_nanos=self.billed_nanos,
            read_at=self.read_at,
            is_of_models=self.is_of_models,
        )


class _Used(NamedTuple):
    """What was metered of one model in the time of a bill."""

    model: str
    nodes: frozenset[str]
    metered: Metered


def subjects(organization_id: UUID, start: datetime, end: datetime) -> list[Subject]:
    """Everything on bills that are about some of [start, end), by provider, time and model."""
    lines = BillLine.objects.filter(
        organization_id=organization_id, starts_at__lt=end, ends_at__gt=start
    )
    by_bill: dict[Bill, list[BillLine]] = defaultdict(list)
    for line in lines:
        by_bill[Bill(line.provider, Period(line.starts_at, line.ends_at))].append(line)
    used = _used(organization_id, sorted(by_bill))
    return [
        subject
        for bill in sorted(by_bill)
        for subject in _of_bill(bill, by_bill[bill], used.get(bill, []))
    ]


def doubts(organization_id: UUID, asked: Sequence[Subject]) -> list[BillCount]:
    """Their counts with what may explain a difference: calls without a price, or without an exact
    usage.
    """
    rows = [
        (number, subject.bill.provider, *subject.bill.period, model)
        for number, subject in enumerate(asked)
        for model in subject.models
    ]
    found: dict[int, tuple[int, int]] = {}
    if rows:
        with connection.cursor() as cursor:
            columns = [list(column) for column in zip(*rows, strict=True)]
            cursor.execute(_DOUBTS, [*columns, organization_id])
            found = {number: (calls, int(some)) for number, calls, some in cursor.fetchall()}
    return [
        replace(subject.count, unpriced_calls=calls, presumed_tokens=some)
        for number, subject in enumerate(asked)
        for calls, some in [found.get(number, (0, 0))]
    ]


def _used(organization_id: UUID, bills: Sequence[Bill]) -> dict[Bill, list[_Used]]:
    if not bills:
        return {}
    found: dict[Bill, list[_Used]] = defaultdict(list)
    providers = [bill.provider for bill in bills]
    starts = [bill.period.starts_at for bill in bills]
    ends = [bill.period.ends_at for bill in bills]
    with connection.cursor() as cursor:
        cursor.execute(_METERED, [providers, starts, ends, organization_id])
        for provider, starts_at, ends_at, model, nodes, *sums in cursor.fetchall():
            calls, prompt, cached, generation, nanos = map(int, sums)
            metered = Metered(calls, Tokens(prompt, cached, generation), nanos)
            bill = Bill(provider, Period(starts_at, ends_at))
            found[bill].append(_Used(model, frozenset(nodes), metered))
    return found


# ------------------------------------------------------------------------------- one bill


def _of_bill(bill: Bill, lines: Sequence[BillLine], used: Sequence[_Used]) -> Iterator[Subject]:
    """Lines that name no model are of all of them, unless others of their kind name one."""
    usage = [line for line in lines if line.kind == "usage"]
    cost = [line for line in lines if line.kind == "cost"]
    whole = [kind for kind in (usage, cost) if kind and not any(line.model for line in kind)]
    named = [kind for kind in (usage, cost) if kind and kind not in whole]
    read_at = max(line.read_at for line in lines)
    if whole:
        told = [line for kind in whole for line in kind]
        yield _subject(bill, "", told, used, knows=_kinds(whole), read_at=read_at)
    if not named:
        return
    by_family: dict[str, tuple[list[BillLine], list[_Used]]] = defaultdict(lambda: ([], []))
    for line in (line for kind in named for line in kind):
        by_family[family(line.model)][0].append(line)
    for one in used:
        by_family[family(one.model)][1].append(one)
    for name, (told, mine) in sorted(by_family.items()):
        if name or not whole:
            yield _subject(bill, name, told, mine, knows=_kinds(named), read_at=read_at)


def _kinds(groups: Iterable[Sequence[BillLine]]) -> frozenset[str]:
    return frozenset(group[0].kind for group in groups)


def _subject(
    bill: Bill,
    name: str,
    lines: Sequence[BillLine],
    used: Sequence[_Used],
    *,
    knows: frozenset[str],
    read_at: datetime,
) -> Subject:
    """What the bill knows of this kind, but does not say of a model, is nothing."""
    names = {one.model for one in used} or {line.model for line in lines}
    return Subject(
        bill=bill,
        name=next(iter(names)) if name and len(names) == 1 else name,
        models=tuple(sorted(one.model for one in used)),
        nodes=frozenset().union(*(one.nodes for one in used)) - {""},
        metered=total(one.metered for one in used),
        billed=_tokens(lines) if "usage" in knows else None,
        billed_nanos=sum(line.cost_nanos or 0 for line in lines) if "cost" in knows else None,
        read_at=read_at,
        is_of_models=bool(name or used),
    )


def _tokens(lines: Iterable[BillLine]) -> Tokens:
    rows = [line for line in lines if line.kind == "usage"]
    return Tokens(
        sum(line.prompt_tokens or 0 for line in rows),
        sum(line.cached_tokens or 0 for line in rows),
        sum(line.generation_tokens or 0 for line in rows),
    )


# ------------------------------------------------------------------------------- as rows


def rows_of(
    found: Iterable[Subject], rows: Sequence[Reconciliation]
) -> list[tuple[Subject, Reconciliation]]:
    """Each subject with the row that it stands in: a node's, where both say the same metered
    use, or one of its own.
    """
    known: Mapping[tuple[object, ...], Reconciliation] = {
        (row.node, row.provider, row.model, row.starts_at): row for row in rows
    }
    return [(subject, _row_of(subject, known)) for subject in found]


def _row_of(subject: Subject, known: Mapping[tuple[object, ...], Reconciliation]) -> Reconciliation:
    provider, period = subject.bill
    row, node = None, subject.node
    if node and period.ends_at - period.starts_at == HOUR:
        row = known.get((node, provider, subject.name, period.starts_at))
        if row is not None and not _same_use(row, subject.metered):
            row, node = None, ""
    row = row or _new_row(subject, node)
    if subject.billed is not None:
        row.billed_prompt_tokens = subject.billed.prompt
        row.billed_cached_tokens = subject.billed.cached
        row.billed_generation_tokens = subject.billed.generation
    row.billed_nanos = subject.billed_nanos
    return row


def _same_use(row: Reconciliation, metered: Metered) -> bool:
    return metered.tokens == (
        row.metered_prompt_tokens,
        row.metered_cached_tokens,
        row.metered_generation_tokens,
    )


def _new_row(subject: Subject, node: str) -> Reconciliation:
    metered = subject.metered
    return Reconciliation(
        node=node,
        provider=subject.bill.provider,
        model=subject.name,
        **subject.bill.period._asdict(),
        calls=metered.calls,
        metered_prompt_tokens=metered.tokens.prompt,
        metered_cached_tokens=metered.tokens.cached,
        metered_generation_tokens=metered.tokens.generation,
        charge_nanos=metered.charge_nanos,
    )
