"""Fold usage into rollups: by the hour with all owners, and cells by every two dimensions.

Whoever books events or ratings writes their ids into `UnfoldedUse` in the same transaction. A fold
takes such rows away and adds what they name to the rollups, in one transaction as well: each event
is counted exactly once, however late it comes, however often a fold is cut short, and without
reading again what was counted before. Events whose day is archived since stay counted.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Min

from budgets.domain.foldsql import FITS, KEY, QUICK_STEPS, STEPS, TAKE, VALUES
from budgets.models import RollupWatermark, UnfoldedUse
from enforcement.rules.windows import EPOCH

NAME = "usage"
# Events become visible at their commit, a little after their receipt: look back that far.
OVERLAP = timedelta(minutes=10)
ROWS_AT_ONCE = 500
EVENTS_AT_ONCE = 100_000
MOST_BATCHES = 20
WORK_MEM = "128MB"  # sums by every two dimensions at once: on disk they take many times as long


class Folded(NamedTuple):
    """What a fold did. `busy`: another worker is folding, nothing was done."""

    hours: int
    busy: bool = False


def leave_unfolded(ratings: Iterable[UUID], *, now: datetime) -> None:
    """Hand ratings to the next fold. In their transaction. Events are handed over by `claim`."""
    UnfoldedUse.objects.create(received_at=now, ratings=list(ratings))


def fold_usage(*, now: datetime) -> Folded:
    """Bring the rollups up to what was booked until now, a batch in each transaction."""
    hours = 0
    for _ in range(MOST_BATCHES):
        batch = _fold_batch(now=now)
        if batch is None:
            return Folded(hours=hours, busy=True)
        hours += batch.hours
        if batch.last:
            break
    return Folded(hours=hours)


class _Batch(NamedTuple):
    hours: int
    last: bool


@transaction.atomic
def _fold_batch(*, now: datetime) -> _Batch | None:
    RollupWatermark.objects.bulk_create(
        [RollupWatermark(name=NAME, received_at=EPOCH, folded_at=now)], ignore_conflicts=True
    )
    watermark = (
        RollupWatermark.objects.select_for_update(skip_locked=True).filter(name=NAME).first()
    )
    if watermark is None:
        return None
    hours = fold_rows(_next_rows())
    oldest = UnfoldedUse.objects.aggregate(at=Min("received_at"))["at"]
    watermark.received_at = max(watermark.received_at, min(oldest or now, now))
    watermark.folded_at = now
    watermark.save()
    return _Batch(hours=hours, last=oldest is None)


def _next_rows() -> list[int]:
    """The oldest rows, up to so many, or until they name so many events."""
    sizes = UnfoldedUse.objects.order_by("id").values_list("id", "events__len", "ratings__len")
    ids: list[int] = []
    most = EVENTS_AT_ONCE
    for row, events, ratings in sizes[:ROWS_AT_ONCE]:
        most -= (events or 0) + (ratings or 0)
        if ids and most < 0:
            break
        ids.append(row)
    return ids


def fold_rows(ids: list[int]) -> int:
    """Take these rows away and add what they name to the rollups. How many hours that touched.

    In a transaction of the caller's, who sees to it that no other one adds to the same hours.
    """
    if not ids:
        return 0
    with connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL work_mem = '{WORK_MEM}'; SET LOCAL jit = off")
        for step in TAKE:
            cursor.execute(step, {"rows": ids})
        for step in (*KEY, VALUES):
            cursor.execute(step)
        for step in KEY if cursor.rowcount else ():
            cursor.execute(step)
        cursor.execute(FITS)
        ((fits,),) = cursor.fetchall()
        for step in QUICK_STEPS if fits else STEPS:
            cursor.execute(step)
        cursor.execute("SELECT count(DISTINCT (organization_id, hour)) FROM pg_temp.folding")
        ((hours,),) = cursor.fetchall()
    return int(hours)
