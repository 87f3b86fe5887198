"""Metered use beside the engines' own counters, for each node, model and hour, with a verdict.

Computed from rows that are brought up to date by themselves (late events, late readings), and
stored: to do it again gives what is known then, and writes only what has changed. Hours before a
node's first reading, after its last one, and those that hide a restart or a silence are unknown.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction

from enforcement.domain.causes import NO_COUNTERS, NOT_READ, stale, unreadable
from enforcement.domain.counts import Counts, Kind, Made, Metered, ReadNode, Slot, counts_in
from enforcement.domain.counts import restarted as restarted_hours
from enforcement.domain.gather import HOUR, Tokens, hour_of
from enforcement.domain.unattributed import causes_in
from enforcement.models import Reconciliation
from enforcement.rules.reconcile import Cause, CauseKind, HourCount, Threshold, Verdict, judge

AT_ONCE = timedelta(hours=24)  # of an organization, in one transaction
REVIEWED = timedelta(hours=2)  # after which a cause is found anew only when the counts change
KEY = ("node", "provider", "model", "hour")
COUNTS = (
    *("calls", "metered_prompt_tokens", "metered_cached_tokens", "metered_generation_tokens"),
    *("charge_nanos", "produced_prompt_tokens", "produced_cached_tokens"),
    *("produced_generation_tokens", "verdict"),
)
TOLD = ("cause_kind", "cause")
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


def reconcile(
    *, organization_id: UUID, since: datetime, until: datetime, now: datetime, by: Threshold
) -> None:
    """Bring the stored rows of `[since, until)` up to what is known; `since` is cut to its hour."""
    start = hour_of(since)
    while start < until:
        end = min(until, start + AT_ONCE)
        _store(organization_id, start, end, _computed(organization_id, start, end, now, by), now)
        start = end


def reconciled(*, organization_id: UUID, since: datetime, until: datetime) -> list[Reconciliation]:
    """The stored rows of `[since, until)`: each node by name, its hours rising."""
    rows = Reconciliation.objects.filter(
        organization_id=organization_id, hour__gte=hour_of(since), hour__lt=until
    )
    return list(rows.order_by("node", "hour", "model", "provider"))


# ------------------------------------------------------------------------------- computing


def _computed(
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
    rows = [row for row in rows if start <= row.hour < end]
    _tell_interruptions(rows, counts)
    for row in rows:
        row.organization_id, row.computed_at = organization_id, now
    return rows


def _of_slot(slot: Slot, counts: Counts) -> Iterator[Reconciliation]:
    """One row for each model; where the engine's count is of several, one of them all too."""
    told = counts.metered.get(slot, {})
    read = counts.nodes.get(slot.node)
    if read is None or not read.node.metrics_path:
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
    yield _row(slot, whole, _sum(told.values()), Verdict.UNKNOWN, None)


def _row(
    slot: Slot, kind: Kind, metered: Metered, verdict: Verdict, cause: Cause | None
) -> Reconciliation:
    row = Reconciliation(
        **slot._asdict(),
        **kind._asdict(),
        calls=metered.calls,
        metered_prompt_tokens=metered.tokens.prompt,
        metered_cached_tokens=metered.tokens.cached,
        metered_generation_tokens=metered.tokens.generation,
        charge_nanos=metered.charge_nanos,
        verdict=verdict.value,
    )
    _tell(row, cause)
    return row


def _tell(row: Reconciliation, cause: Cause | None) -> None:
    row.cause_kind, row.cause = (cause.kind.value, cause.text[:600]) if cause else ("", "")


def _sum(told: Iterable[Metered]) -> Metered:
    rows = list(told)
    tokens = (sum(kind) for kind in zip(*(row.tokens for row in rows), strict=True))
    return Metered(
        sum(row.calls for row in rows), Tokens(*tokens), sum(row.charge_nanos for row in rows)
    )


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
        produced = made.get(Slot(row.node, row.hour))
        cause = _why_unknown(row.hour, read, produced, now)
        if produced is not None or cause is None:
            _put(row, produced.tokens if produced else Tokens())
        _tell(row, cause)
        counts.append(count_of(row, is_known=cause is None))
    for row, verdict in zip(rows, judge(counts, by), strict=True):
        row.verdict = verdict.value


def _put(row: Reconciliation, made: Tokens) -> None:
    row.produced_prompt_tokens = made.prompt
    row.produced_cached_tokens = made.cached
    row.produced_generation_tokens = made.generation


def count_of(row: Reconciliation, *, is_known: bool) -> HourCount:
    """Both counts of a row, for the rule."""
    return HourCount(
        hour=row.hour,
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
        (counts.nodes[row.node].node.pk, row.hour): row
        for row in rows
        if row.cause_kind == CauseKind.NOT_SCRAPED
    }
    for key in restarted_hours(marked):
        _tell(marked[key], RESTARTED)


# ------------------------------------------------------------------------------- storing


@transaction.atomic
def _store(
    organization_id: UUID,
    start: datetime,
    end: datetime,
    rows: Sequence[Reconciliation],
    now: datetime,
) -> None:
    stored = Reconciliation.objects.filter(
        organization_id=organization_id, hour__gte=start, hour__lt=end
    )
    known = {_values(row, KEY): row for row in stored}
    _find_causes(organization_id, rows, known, now)
    changed = [row for row in rows if _is_news(row, known.pop(_values(row, KEY), None))]
    stored.filter(pk__in=[row.pk for row in known.values()]).delete()
    Reconciliation.objects.bulk_create(
        changed,
        batch_size=1_000,
        update_conflicts=True,
        unique_fields=["organization", *KEY],
        update_fields=[*COUNTS, *TOLD, "computed_at"],
    )


def _values(row: Reconciliation, names: Iterable[str]) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in names)


def _is_news(row: Reconciliation, known: Reconciliation | None) -> bool:
    names = (*COUNTS, *TOLD)
    return known is None or _values(row, names) != _values(known, names)


def _find_causes(
    organization_id: UUID,
    rows: Iterable[Reconciliation],
    known: Mapping[tuple[object, ...], Reconciliation],
    now: datetime,
) -> None:
    """Why hours drift: asked anew of those that changed, and of the last ones."""
    asked: dict[datetime, list[Reconciliation]] = defaultdict(list)
    for row in rows:
        if row.verdict != Verdict.DRIFTS:
            continue
        before = known.get(_values(row, KEY))
        if before and row.hour < now - REVIEWED and _values(row, COUNTS) == _values(before, COUNTS):
            row.cause_kind, row.cause = before.cause_kind, before.cause
        else:
            asked[row.hour].append(row)
    for hour, drifting in asked.items():
        found = causes_in(
            organization_id=organization_id,
            names=[row.node for row in drifting],
            hour=hour,
            now=now,
        )
        for row in drifting:
            _tell(row, found.get(row.node))
