"""Reconciliation: what was metered, what engines counted, what providers billed, with a verdict.

Computed from rows that are brought up to date by themselves (late events, late readings, bills that
are read again), and stored: to do it again gives what is known then, and writes only what changed.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from enforcement.domain.bills.comparing import rows_of, subjects
from enforcement.domain.bills.verdicts import judge_bills
from enforcement.domain.enginerows import rows_of_engines, tell
from enforcement.domain.gather import HOUR, hour_of
from enforcement.domain.unattributed import causes_in
from enforcement.models import Reconciliation
from enforcement.rules.reconcile import Threshold, Verdict

AT_ONCE = timedelta(hours=24)  # of an organization, in one transaction
REVIEWED = timedelta(hours=2)  # after which a cause is found anew only when the counts change
KEY = ("node", "provider", "model", "starts_at", "ends_at")
COUNTS = (
    *("calls", "metered_prompt_tokens", "metered_cached_tokens", "metered_generation_tokens"),
    *("charge_nanos", "produced_prompt_tokens", "produced_cached_tokens"),
    *("produced_generation_tokens", "billed_prompt_tokens", "billed_cached_tokens"),
    *("billed_generation_tokens", "billed_nanos"),
)
JUDGED = ("verdict", "cause_kind", "cause")
Known = Mapping[tuple[object, ...], Reconciliation]


def reconcile(
    *, organization_id: UUID, since: datetime, until: datetime, now: datetime, by: Threshold
) -> None:
    """Bring the stored rows of `[since, until)` up to what is known; `since` is cut to its hour."""
    start = hour_of(since)
    while start < until:
        end = min(until, start + AT_ONCE)
        _reconcile_day(organization_id, start, end, now, by)
        start = end


def reconciled(*, organization_id: UUID, since: datetime, until: datetime) -> list[Reconciliation]:
    """The stored rows that are about some of `[since, until)`: each node by name, its hours rising;
    then bills of which no single node is known.
    """
    rows = _about(organization_id, hour_of(since), until)
    return sorted(rows, key=lambda row: (not row.node, row.node, row.provider, *_order(row)))


def _order(row: Reconciliation) -> tuple[datetime, datetime, str]:
    return (row.starts_at, row.ends_at, row.model)


def _about(organization_id: UUID, start: datetime, end: datetime) -> QuerySet[Reconciliation]:
    return Reconciliation.objects.filter(
        organization_id=organization_id, starts_at__lt=end, ends_at__gt=start
    )


@transaction.atomic
def _reconcile_day(
    organization_id: UUID, start: datetime, end: datetime, now: datetime, by: Threshold
) -> None:
    known = {_values(row, KEY): row for row in _about(organization_id, start, end)}
    rows = rows_of_engines(organization_id, start, end, now, by)
    _find_causes(organization_id, rows, known, now)
    billed = rows_of(subjects(organization_id, start - HOUR, end + HOUR), rows)
    rows += judge_bills(organization_id, billed, by)
    for row in rows:
        row.organization_id, row.computed_at = organization_id, now
    _store([row for row in rows if row.starts_at < end and row.ends_at > start], known)


def _store(rows: Iterable[Reconciliation], known: Known) -> None:
    """Each row once: a bill may stand in a row of an engine."""
    found, gone = {_values(row, KEY): row for row in rows}, dict(known)
    changed = [row for key, row in found.items() if _is_news(row, gone.pop(key, None))]
    Reconciliation.objects.filter(pk__in=[row.pk for row in gone.values()]).delete()
    Reconciliation.objects.bulk_create(
        changed,
        batch_size=1_000,
        update_conflicts=True,
        unique_fields=["organization", *KEY],
        update_fields=[*COUNTS, *JUDGED, "computed_at"],
    )


def _values(row: Reconciliation, names: Iterable[str]) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in names)


def _is_news(row: Reconciliation, known: Reconciliation | None) -> bool:
    names = (*COUNTS, *JUDGED)
    return known is None or _values(row, names) != _values(known, names)


# ------------------------------------------------------------------------------- why


def _find_causes(
    organization_id: UUID, rows: Sequence[Reconciliation], known: Known, now: datetime
) -> None:
    """Why hours drift: asked anew of those that changed, and of the last ones."""
    asked: dict[datetime, list[Reconciliation]] = defaultdict(list)
    for row in rows:
        if row.verdict != Verdict.DRIFTS:
            continue
        before = known.get(_values(row, KEY))
        if before and row.ends_at < now - REVIEWED and _same_sides(row, before):
            row.cause_kind, row.cause = before.cause_kind, before.cause
        else:
            asked[row.starts_at].append(row)
    for hour, drifting in asked.items():
        found = causes_in(
            organization_id=organization_id,
            names=[row.node for row in drifting],
            hour=hour,
            now=now,
        )
        for row in drifting:
            tell(row, found.get(row.node))


def _same_sides(row: Reconciliation, before: Reconciliation) -> bool:
    """Whether both count the same use and production, whatever was billed."""
    names = [name for name in COUNTS if not name.startswith("billed")]
    return before.verdict == Verdict.DRIFTS and _values(row, names) == _values(before, names)
