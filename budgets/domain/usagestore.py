"""Store usage events: each once by its id, in the partition of the day on which it started.

A partitioned table cannot keep an id unique over all its days, and a repeat may fall on another day
than the first report (an absurd clock is replaced by the time of receipt). So a narrow table of
receipts is written first; only what is new there is copied into the partitions.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from operator import attrgetter
from uuid import UUID

from django.db import IntegrityError, connection, transaction
from msgspec import structs
from psycopg.errors import UniqueViolation

from budgets.domain.usagerows import COLUMNS, CSV, Entry, csv_of
from budgets.models import UsageArchive

DAYS_AHEAD = 7
ARCHIVED_AFTER_DAYS = 35  # at least: reports and reconciliation look back a month
_KNOWN = "SELECT id::text FROM budgets_usagereceipt WHERE id = ANY(%s::uuid[])"
_RECEIPTS = """
COPY budgets_usagereceipt (id, organization_id, started_at, digest) FROM STDIN WITH (FORMAT csv)
"""
_UNFOLDED = """
INSERT INTO budgets_unfoldeduse (received_at, events, starts, ratings) VALUES (%s, %s, %s, '{}')
"""
_BOOKED = """
SELECT id::text, organization_id, encode(digest, 'hex') FROM budgets_usagereceipt
WHERE id = ANY(%s::uuid[])
"""
_NAMES = ", ".join(f'"{name}"' for name in COLUMNS)
_EVENTS = f"COPY budgets_usageevent ({_NAMES}) FROM STDIN WITH ({CSV})"


def claim(entries: Iterable[Entry], *, organization_id: UUID, now: datetime) -> set[str]:
    """Write receipts in the order of ids; which are new. A twin in flight is waited for.

    New ones are handed to the next fold as well: their events must be stored in this transaction.
    """
    left = sorted(entries, key=attrgetter("event.id"))
    while left := _unknown(left):
        try:
            _write_receipts(left, organization_id=organization_id)
        except IntegrityError as error:  # what a twin has booked meanwhile is known from now on
            if not isinstance(error.__cause__, UniqueViolation) or _unknown(left) == left:
                raise
        else:
            _leave_to_fold(left, now=now)
            break
    return {entry.event.id for entry in left}


def _unknown(entries: Sequence[Entry]) -> list[Entry]:
    """Those without a receipt."""
    with connection.cursor() as cursor:
        cursor.execute(_KNOWN, [plain_array([entry.event.id for entry in entries])])
        known = {key for (key,) in cursor.fetchall()}
    return [entry for entry in entries if entry.event.id not in known]


@transaction.atomic
def _write_receipts(entries: Sequence[Entry], *, organization_id: UUID) -> None:
    """All of them, or none where one is known meanwhile.

    `COPY` takes half the time of `INSERT … ON CONFLICT`, which writes each row down for itself and
    once more when it is sure of it.

    Raises:
        IntegrityError: one is known meanwhile.
    """
    lines = [
        f"{entry.event.id},{organization_id},{entry.start},\\x{entry.digest}\n" for entry in entries
    ]
    _copy(_RECEIPTS, ["".join(lines)])


def _leave_to_fold(entries: Sequence[Entry], *, now: datetime) -> None:
    ids = plain_array([entry.event.id for entry in entries])
    starts = plain_array([entry.start for entry in entries])
    with connection.cursor() as cursor:
        cursor.execute(_UNFOLDED, [now, ids, starts])


def _copy(statement: str, pieces: Iterable[bytes | str]) -> None:
    """Send lines to a `COPY … FROM STDIN`; errors come as Django's."""
    with (
        connection.wrap_database_errors,
        connection.cursor() as cursor,
        cursor.copy(statement) as copy,
    ):
        for piece in pieces:
            copy.write(piece)


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
    _copy(_EVENTS, csv_of(entries, sidecar=sidecar, source=source, received_at=received_at))


def within_table(entries: list[Entry], *, now: datetime) -> list[Entry]:
    """The same, those whose day is archived already as if they had started now."""
    lately = now - timedelta(days=ARCHIVED_AFTER_DAYS)
    old = {entry.started_at.date() for entry in entries if entry.started_at < lately}
    if not old:
        return entries
    gone = set(UsageArchive.objects.filter(day__in=old).values_list("day", flat=True))
    return [
        structs.replace(entry, started_at=now, start=str(now))
        if entry.started_at.date() in gone
        else entry
        for entry in entries
    ]


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
