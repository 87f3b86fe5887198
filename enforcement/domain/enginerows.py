"""Rows of reconciliation for engines: metered use beside their own counters, with a verdict.

Hours before a node's first reading, after its last one, and those that hide a restart or a silence
are unknown.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from enforcement.domain.causes import NO_COUNTERS, NOT_READ, has_counters, stale, unreadable
from enforcement.domain.counts import (
    Counts,
    Kind,
    Made,
    Metered,
    ReadNode,
    Slot,
    counts_in,
    restarted,
    total,
)
from enforcement.domain.gather import HOUR, Tokens
from enforcement.models import Reconciliation
from enforcement.rules.reconcile import Cause, CauseKind, HourCount, Threshold, Verdict, judge

NO_NODE = Cause(CauseKind.NO_NODE, "No serving node has this name.")
SEVERAL_MODELS = Cause(
    CauseKind.SEVERAL_MODELS, "The engine counts its models together: see the node's own row."
)
OPEN = Cause(CauseKind.OPEN, "The hour is not over.")
RESTARTED = Cause(
    CauseKind.RESTARTED,
    "The engine was restarted: what it made between its last reading and that is lost.",
)
NOT_SCRAPED = Cause(
    CauseKind.NOT_SCRAPED, "Its counters were not read for more than ten minutes of this hour."
)


# ------------------------------------------------------------------------------- computing


def rows_of_engines(
    organization_id: UUID, start: datetime, end: datetime, now: datetime, by: Threshold
) -> list[Reconciliation]:
    """Rows of the hours in [start, end); those beside it are looked at, as calls span them."""
    counts = counts_in(organization_id=organization_id, since=start - HOUR, until=end + HOUR)
    rows: list[Reconciliation] = []
    compared: dict[str, list[Reconciliation]] = defaultdict(list)
    for slot in sorted(counts.metered.keys() | counts.made.keys()):
        found = list(_of_slot(slot, counts))
        rows += found
        for row in found:
            if row.verdict != Verdict.ALONE:
                compared[slot.node].append(row)
    for name, of_node in compared.items():
        _judge(of_node, counts.nodes[name], counts.made, now, by)
    rows = [row for row in rows if start <= row.starts_at < end]
    _tell_interruptions(rows, counts)
    return rows


def _of_slot(slot: Slot, counts: Counts) -> Iterator[Reconciliation]:
    """One row for each model; where the engine's count is of several, one of them all too."""
    told = counts.metered.get(slot, {})
    read = counts.nodes.get(slot.node)
    if read is None or not has_counters(read.node):
        cause = NO_NODE if read is None else NO_COUNTERS
        for kind, metered in told.items():
            yield _row(slot, kind, metered, Verdict.ALONE, cause)
        return
    if len(told) > 1 or (told and len(read.node.models) > 1):
        for kind, metered in told.items():
            yield _row(slot, kind, metered, Verdict.ALONE, SEVERAL_MODELS)
        whole = Kind(read.node.provider, "")
    else:
        served = read.node.models[0] if len(read.node.models) == 1 else ""
        whole = next(iter(told), Kind(read.node.provider, served))
    yield _row(slot, whole, total(told.values()), Verdict.UNKNOWN, None)


def _row(
    slot: Slot, kind: Kind, metered: Metered, verdict: Verdict, cause: Cause | None
) -> Reconciliation:
    row = Reconciliation(
        node=slot.node,
        **kind._asdict(),
        starts_at=slot.hour,
        ends_at=slot.hour + HOUR,
        calls=metered.calls,
        metered_prompt_tokens=metered.tokens.prompt,
        metered_cached_tokens=metered.tokens.cached,
        metered_generation_tokens=metered.tokens.generation,
        charge_nanos=metered.charge_nanos,
        verdict=verdict.value,
    )
    tell(row, cause)
    return row


def tell(row: Reconciliation, cause: Cause | None) -> None:
    row.cause_kind, row.cause = (cause.kind.value, cause.text[:600]) if cause else ("", "")


# ------------------------------------------------------------------------------- judging


def _judge(
    rows: Sequence[Reconciliation],
    read: ReadNode,
    made: Mapping[Slot, Made],
    now: datetime,
    by: Threshold,
) -> None:
    """The rows of one node that stand beside its engine's count, by the hour."""
    counts = []
    for row in rows:
        produced = made.get(Slot(row.node, row.starts_at))
        cause = _why_unknown(row.starts_at, read, produced, now)
        if produced is not None or cause is None:
            _put(row, produced.tokens if produced else Tokens())
        tell(row, cause)
        counts.append(_count(row, is_known=cause is None))
    for row, verdict in zip(rows, judge(counts, by), strict=True):
        row.verdict = verdict.value


def _put(row: Reconciliation, made: Tokens) -> None:
    row.produced_prompt_tokens = made.prompt
    row.produced_cached_tokens = made.cached
    row.produced_generation_tokens = made.generation


def _count(row: Reconciliation, *, is_known: bool) -> HourCount:
    return HourCount(
        hour=row.starts_at,
        metered_prompt_tokens=row.metered_prompt_tokens,
        metered_generation_tokens=row.metered_generation_tokens,
        produced_prompt_tokens=row.produced_prompt_tokens or 0,
        produced_generation_tokens=row.produced_generation_tokens or 0,
        is_known=is_known,
    )


def _why_unknown(hour: datetime, read: ReadNode, made: Made | None, now: datetime) -> Cause | None:
    """None: the engine was read through the hour. The hour of the first reading counts, as what
    was metered before it is left out.
    """
    end = hour + HOUR
    if end > now:
        return OPEN
    if read.first_at is None or read.last_at is None:
        return unreadable(read.node) if read.node.last_error else NOT_READ
    if end <= read.first_at:
        return NOT_READ
    if read.last_at < end:
        return unreadable(read.node) if read.node.last_error else stale(read.last_at)
    return NOT_SCRAPED if made is not None and made.is_incomplete else None


def _tell_interruptions(rows: Iterable[Reconciliation], counts: Counts) -> None:
    """Of the hours that are incomplete, which hide a restart."""
    marked = {
        (counts.nodes[row.node].node.pk, row.starts_at): row
        for row in rows
        if row.cause_kind == CauseKind.NOT_SCRAPED
    }
    for key in restarted(marked):
        tell(marked[key], RESTARTED)
