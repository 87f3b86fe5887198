"""Keep bills: what a provider said last of a time replaces what it said of it before."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from django.db import transaction
from django.db.models import Q

from controlplane.audit.domain import Actor, record
from enforcement.domain.bills.lines import Line
from enforcement.domain.drift import configured_threshold
from enforcement.domain.reconciliation import reconcile
from enforcement.errors import BillError
from enforcement.models import BillLine

DAY = timedelta(days=1)
KEY = ("provider", "starts_at", "ends_at", "kind", "model", "item")
AMOUNTS = ("prompt_tokens", "cached_tokens", "generation_tokens", "calls", "cost_nanos")


class Kept(NamedTuple):
    """What a bill has changed: lines that are new, that say something else, that are gone."""

    new: int
    changed: int
    gone: int
    same: int


@transaction.atomic
def keep_bill(
    *,
    organization_id: UUID,
    lines: Sequence[Line],
    account: str,
    source: str,
    actor: Actor,
    now: datetime,
) -> Kept:
    """Store it, and reconcile the days that it is about.

    Raises BillError: it says nothing, or is about the future.
    """
    if not lines:
        raise BillError("the bill has no line with tokens or money")
    if max(line.period.starts_at for line in lines) > now:
        raise BillError("the bill is about a time that has not begun")
    rows = [_row(organization_id, line, account, source, now) for line in lines]
    known = {_key(row): row for row in _same_times(organization_id, account, lines)}
    kept = _counted(rows, known)
    BillLine.objects.filter(pk__in=[row.pk for row in known.values()]).delete()
    BillLine.objects.bulk_create(rows, batch_size=1_000)
    _record(organization_id, rows, kept, actor, now)
    _reconcile(organization_id, lines, now)
    return kept


def _row(organization_id: UUID, line: Line, account: str, source: str, now: datetime) -> BillLine:
    return BillLine(
        organization_id=organization_id,
        provider=line.provider[:64],
        account=account,
        kind=line.kind,
        model=line.model,
        item=line.item,
        **line.period._asdict(),
        **{name: getattr(line, name) for name in AMOUNTS},
        source=source[:200],
        read_at=now,
    )


def _same_times(organization_id: UUID, account: str, lines: Sequence[Line]) -> list[BillLine]:
    """What was said before of any time, provider and kind that this bill tells of; locked."""
    told = {(line.provider[:64], line.kind, line.period) for line in lines}
    earlier = BillLine.objects.select_for_update().filter(
        Q(organization_id=organization_id, account=account),
        provider__in={provider for provider, _, _ in told},
        starts_at__gte=min(period.starts_at for _, _, period in told),
        ends_at__lte=max(period.ends_at for _, _, period in told),
    )
    return [
        row for row in earlier if (row.provider, row.kind, (row.starts_at, row.ends_at)) in told
    ]


def _key(row: BillLine) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in KEY)


def _counted(rows: Sequence[BillLine], known: dict[tuple[object, ...], BillLine]) -> Kept:
    before = [(row, known.get(_key(row))) for row in rows]
    found = [(row, old) for row, old in before if old is not None]
    same = sum(
        all(getattr(row, name) == getattr(old, name) for name in AMOUNTS) for row, old in found
    )
    return Kept(
        new=len(rows) - len(found),
        changed=len(found) - same,
        gone=len(known) - len(found),
        same=same,
    )


def _record(
    organization_id: UUID, rows: Sequence[BillLine], kept: Kept, actor: Actor, now: datetime
) -> None:
    record(
        organization_id=organization_id,
        actor=actor,
        action="bill.import",
        object_kind="bill",
        object_id=rows[0].provider,
        now=now,
        after={
            **kept._asdict(),
            "source": rows[0].source,
            "starts_at": min(row.starts_at for row in rows).isoformat(),
            "ends_at": max(row.ends_at for row in rows).isoformat(),
        },
    )


def _reconcile(organization_id: UUID, lines: Sequence[Line], now: datetime) -> None:
    """Each day that some line is about, once."""
    days: set[datetime] = set()
    for period in {line.period for line in lines}:
        day = period.starts_at.replace(hour=0)
        while day < period.ends_at:
            days.add(day)
            day += DAY
    by = configured_threshold()
    for day in sorted(days):
        reconcile(
            organization_id=organization_id,
            since=day,
            until=min(day + DAY, now),
            now=now,
            by=by,
        )
