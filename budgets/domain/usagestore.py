"""Store usage events: each once by its id, in the partition of the day on which it started.

A partitioned table cannot keep an id unique over all its days, and a repeat may fall on another day
than the first report (an absurd clock is replaced by the time of receipt). So a narrow table of
receipts is written first; only what is new there is copied into the partitions.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from operator import attrgetter
from uuid import UUID

from django.db import connection

from budgets.domain.usagerows import COLUMNS, CSV, Entry, csv_of
from budgets.models import UsageArchive

DAYS_AHEAD = 7
ARCHIVED_AFTER_DAYS = 35  # at least: reports and reconciliation look back a month
# What is new is left to the next fold by the same statement: nothing need be read twice.
_CLAIM = """
WITH new AS (
    INSERT INTO budgets_usagereceipt (id, organization_id, started_at, digest)
    SELECT id, %s::uuid, started_at, decode(digest, 'hex')
    FROM unnest(%s::uuid[], %s::timestamptz[], %s::text[]) AS said (id, started_at, digest)
    ON CONFLICT (id) DO NOTHING RETURNING id, started_at
), unfolded AS (
    INSERT INTO budgets_unfoldeduse (received_at, events, starts, ratings)
    SELECT %s, array_agg(id), array_agg(started_at), '{}' FROM new HAVING count(*) > 0
)
SELECT id::text FROM new
"""
_BOOKED = """
SELECT id::text, organization_id, encode(digest, 'hex') FROM budgets_usagereceipt
WHERE id = ANY(%s::uuid[])
"""
_NAMES = ", ".join(f'"{name}"' for name in COLUMNS)
_COPY = f"COPY budgets_usageevent ({_NAMES}) FROM STDIN WITH ({CSV})"


def claim(entries: Iterable[Entry], *, organization_id: UUID, now: datetime) -> set[str]:
    """Write receipts in the order of ids; which are new. A twin in flight is waited for.

    New ones are handed to the next fold as well: their events must be stored in this transaction.
    """
    ordered = sorted(entries, key=attrgetter("event.id"))
    ids = plain_array([entry.event.id for entry in ordered])
    starts = plain_array([entry.start for entry in ordered])
    digests = plain_array([entry.digest for entry in ordered])
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM, [organization_id, ids, starts, digests, now])
        return {key for (key,) in cursor.fetchall()}


def plain_array(values: Iterable[str]) -> str:
    """An array as PostgreSQL reads it, of values that have no need of quotes."""
    return f"{{{','.join(values)}}}"


def contradicting(said: Mapping[int, Entry], *, organization_id: UUID) -> tuple[int, ...]:
    """Places of events whose id belongs to other content, or to another organization."""
    with connection.cursor() as cursor:
        cursor.execute(_BOOKED, [plain_array({entry.event.id for entry in said.values()})])
        booked = {event_id: known for event_id, *known in cursor.fetchall()}
    return tuple(
        place
        for place, entry in said.items()
        for organization, digest in (booked[entry.event.id],)
        if organization != organization_id or digest not in (None, entry.digest)
    )


def store(
    entries: Sequence[Entry], *, sidecar_id: UUID | None, now: datetime, source: str = ""
) -> None:
    """Copy new events into their partitions; a late event's is made on demand.

    `source`: who told of them where no sidecar metered them.
    """
    make_partitions({entry.started_at.astimezone(UTC).date() for entry in entries})
    sidecar, received_at = str(sidecar_id) if sidecar_id else None, str(now)
    with (
        connection.wrap_database_errors,
        connection.cursor() as cursor,
        cursor.copy(_COPY) as copy,
    ):
        for piece in csv_of(entries, sidecar=sidecar, source=source, received_at=received_at):
            copy.write(piece)


def within_table(starts: Sequence[datetime], *, now: datetime) -> list[datetime]:
    """The starts to book under: `now` for those whose day is archived already."""
    lately = now - timedelta(days=ARCHIVED_AFTER_DAYS)
    old = {start.date() for start in starts if start < lately}
    if not old:
        return list(starts)
    gone = set(UsageArchive.objects.filter(day__in=old).values_list("day", flat=True))
    return [now if start.date() in gone else start for start in starts]


def make_partitions(days: Iterable[date]) -> int:
    """Make the partitions of these days where they are missing. How many were made."""
    wanted = sorted(set(days))
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT budgets_usage_partition(day) FROM unnest(%s::date[]) AS day", [wanted]
        )
        return sum(made for (made,) in cursor.fetchall())


def prepare_partitions(*, now: datetime) -> int:
    """Make the partitions of today and the days ahead. How many were made."""
    today = now.astimezone(UTC).date()
    return make_partitions(today + timedelta(days=ahead) for ahead in range(DAYS_AHEAD + 1))
