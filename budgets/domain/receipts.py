"""Receipts of events are forgotten when no repeat of them can be booked any more.

A receipt makes an event booked once, so it may go only if a repeat is known without it. A sidecar
that was away may repeat its last batches after any time: no time alone is safe.

1. The ids of sidecars are UUIDv7: they tell when they were made. Receipts of such ids go once their
   day is archived and they are older than `KEPT`, up to a mark; others stay for good.
2. An event whose id is older than the mark and has no receipt may be a repeat of one that was
   forgotten. It is kept aside, never booked, and people are told: what a sidecar tells first after
   more than a year, or by a clock that far behind, is theirs to judge.
3. The mark is committed a turn before anything up to it is deleted, so that whoever books by the
   mark before has long ended.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from django.db import connection

from budgets.domain.usagecheck import uuid_text
from budgets.models import RollupWatermark, UsageArchive, UsageReceipt
from enforcement.rules.ids import uuid7

KEPT = timedelta(days=400)  # more than any start is believed (`usagerows.OLDEST`)
SETTLED = timedelta(minutes=10)  # longer than any booking takes
MARK = "receipts"
AT_ONCE = 20_000
# Before that no sidecar of ours told of anything: such an id is of a clock that was never set.
FIRST = datetime(2020, 1, 1, tzinfo=UTC)
_VERSION = 14  # where a UUID's text says which it is
# Locked in the order in which bookings lock those that they have seen: else both could wait.
_FORGET = """
DELETE FROM budgets_usagereceipt WHERE id IN (
    SELECT r.id FROM budgets_usagereceipt r
    JOIN budgets_usagearchive a ON a.day = (r.started_at AT TIME ZONE 'UTC')::date
    WHERE r.id >= %s AND r.id < %s AND substr(r.id::text, 15, 1) = '7'
    ORDER BY r.id LIMIT %s FOR UPDATE OF r
)
"""


def forget_receipts(*, now: datetime) -> int:
    """Delete a batch of what the mark allows, then move the mark. How many were deleted."""
    mark = RollupWatermark.objects.filter(name=MARK).first()
    forgotten = 0
    if mark is not None and mark.folded_at <= now - SETTLED:
        with connection.cursor() as cursor:
            cursor.execute(_FORGET, [_first_id(FIRST), _first_id(mark.received_at), AT_ONCE])
            forgotten = cursor.rowcount
    until = now - KEPT
    if not UsageArchive.objects.filter(day__lt=until.date()).exists():
        return forgotten
    if mark is None or (forgotten < AT_ONCE and mark.received_at < until):
        RollupWatermark.objects.update_or_create(
            name=MARK, defaults={"received_at": until, "folded_at": now}
        )
    return forgotten


def maybe_forgotten(ids: Iterable[str], *, now: datetime) -> set[str]:
    """Which of these ids, all of them UUIDs, may have been booked and forgotten since. Call it in
    the transaction that books the others.

    Ids of the last year begin with other digits: one comparison for each, and no question.
    """
    end = str(_first_id(now - KEPT))
    named = {name: uuid_text(name) for name in ids if name < end or name[0] != "0"}
    mark = RollupWatermark.objects.filter(name=MARK).first() if named else None
    if mark is None:
        return set()
    start, end = str(_first_id(FIRST)), str(_first_id(mark.received_at))
    old = {
        name: text for name, text in named.items() if start <= text < end and text[_VERSION] == "7"
    }
    # What is there stays until the caller has booked: else it could go in between.
    rows = UsageReceipt.objects.select_for_update(no_key=True).filter(id__in=set(old.values()))
    rows = rows.order_by("id")
    known = {str(key) for key in rows.values_list("id", flat=True)}
    return {name for name, text in old.items() if text not in known}


def _first_id(at: datetime) -> UUID:
    """The least id that can be made at this instant."""
    return uuid7(now_ms=int(at.timestamp() * 1_000), random_bytes=bytes(10))
