"""Old days of usage events leave the table for Parquet files, a day at a time.

1. A day is written to a file, and the file is read back and compared with the table, row by row and
   by its sums. Only then is its partition dropped, in the transaction that notes the archive.
2. It must be in the rollups: a fold cannot read a day that is gone.
3. An event whose day is gone by the time it is reported is booked at its receipt (`usagestore`).
4. Receipts stay for more than a year (`receipts`): a repeat of an archived event is a duplicate,
   and its id leads to the file.

Parquet is written by pyarrow, which the extra `archive` brings: it reads what `COPY` sends, so that
no event becomes a Python object.
"""

import hashlib
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, time, timedelta
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from django.db import OperationalError, connection, models, transaction

from budgets.domain.usagestore import ARCHIVED_AFTER_DAYS
from budgets.errors import ArchiveBusyError, ArchiveError
from budgets.models import UsageArchive, UsageEvent, UsageReceipt

if TYPE_CHECKING:
    import pyarrow as pa

SUMMED = ("charge_nanos", "input_tokens", "output_tokens")
_BLOCK_BYTES = 16 * 2**20  # of CSV: a row group
_LOCK = 0x617263_68697665  # advisory: one archives at a time
_PATIENCE_MS = 800  # less than PostgreSQL waits before it looks for a deadlock
_FIELDS = UsageEvent._meta.concrete_fields  # noqa: SLF001 -- documented
_INSTANT = """to_char("{0}" AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS "{0}\""""
_PARTITIONS = """
SELECT to_date(right(c.relname, 8), 'YYYYMMDD') FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'budgets_usageevent'::regclass ORDER BY 1
"""
_UNFOLDED = """
SELECT EXISTS (
    SELECT FROM budgets_unfoldeduse u, unnest(u.starts) AS start
    WHERE start >= %(from)s AND start < %(to)s
) OR EXISTS (
    SELECT FROM budgets_unfoldeduse u JOIN budgets_rating r ON r.id = ANY(u.ratings)
    WHERE r.started_at >= %(from)s AND r.started_at < %(to)s
)
"""


class Found(NamedTuple):
    """Where a booked event stands: in the table (`archive` is None) or in a file."""

    event_id: UUID
    started_at: datetime
    archive: UsageArchive | None


def due_days(*, keep_days: int, now: datetime) -> list[date]:
    """Days in the table that began more than `keep_days` days before today, the oldest first.

    Raises:
        ArchiveError: fewer days are to be kept than others need.
    """
    _check_kept(keep_days)
    last = now.astimezone(UTC).date() - timedelta(days=keep_days)
    with connection.cursor() as cursor:
        cursor.execute(_PARTITIONS)
        return [day for (day,) in cursor.fetchall() if day < last]


def _check_kept(keep_days: int) -> None:
    if keep_days < ARCHIVED_AFTER_DAYS:
        raise ArchiveError(f"at least {ARCHIVED_AFTER_DAYS} days must be kept, not {keep_days}")


def check_place(*, keep_days: int, folder: str) -> None:
    """That archives can be written, before a day is due. Makes nothing.

    Raises ArchiveError: nobody said where, too few days are kept, no pyarrow, or no file can be
    made in the folder (or where the folder would be made).
    """
    if not folder:
        raise ArchiveError("COMPTROLLER_USAGE_KEEP_DAYS needs COMPTROLLER_ARCHIVE_DIR")
    _check_kept(keep_days)
    _need_pyarrow()
    place = Path(folder)
    try:
        there = next(path for path in (place, *place.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"x")
    except OSError as error:
        raise ArchiveError(f"{folder} cannot be written: {error.strerror}") from error


def archive_day(day: date, *, folder: Path, now: datetime) -> UsageArchive:
    """Write a day to a file of `folder`, compare the file with the table, and drop the partition.

    Raises:
        ArchiveError: there is no such day, no pyarrow, no room, or the file differs.
        ArchiveBusyError: the rollups do not hold the day yet, or others use the table.
    """
    _need_pyarrow()
    final = folder / f"usage-{day:%Y%m%d}.parquet"
    partial = folder / f".{final.name}"
    with _alone():
        _check_known(day)
        _check_folded(day)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with transaction.atomic():
                events = _write(day, partial)
                _compare(day, partial, events)
            archive = _noted(day, partial, name=final.name, events=events, now=now)
            partial.replace(final)
            _sync(folder)
        except OSError as error:
            raise ArchiveError(f"{day} was not archived: {error}") from error
        finally:
            with suppress(OSError):
                partial.unlink()
        _drop(archive)
    return archive


@contextmanager
def _alone() -> Iterator[None]:
    """One archives at a time, or the files of two would take each other's names."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK])
        if cursor.fetchone() != (True,):
            raise ArchiveBusyError("another process is archiving")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])


def find_event(event_id: UUID, *, organization_id: UUID) -> Found | None:
    """Where the event of an id stands; None if the organization has none, or it is forgotten."""
    receipt = UsageReceipt.objects.filter(id=event_id, organization_id=organization_id).first()
    if receipt is None:
        return None
    day = receipt.started_at.astimezone(UTC).date()
    return Found(event_id, receipt.started_at, UsageArchive.objects.filter(day=day).first())


def read_event(found: Found, *, folder: Path) -> dict[str, Any] | None:
    """The columns of an archived event, out of its file; None where the file does not have it.

    Raises:
        ArchiveError: the file is not in `folder`, or cannot be read.
    """
    parquet = _need_pyarrow()
    if found.archive is None:
        return None
    path = folder / found.archive.file
    if not path.is_file():
        raise ArchiveError(f"{path} is not there")
    try:
        rows = parquet.read_table(path, filters=[("id", "=", str(found.event_id))]).to_pylist()
    except (OSError, ValueError) as error:
        raise ArchiveError(f"{path}: {error}") from error
    return dict(rows[0]) if rows else None


# ------------------------------------------------------------------------------ the file


def _need_pyarrow() -> Any:
    try:
        from pyarrow import parquet  # noqa: PLC0415 -- an extra
    except ImportError as error:
        raise ArchiveError("archives need the extra: pip install 'comptroller[archive]'") from error
    return parquet


def _schema() -> "pa.Schema":
    import pyarrow as pa  # noqa: PLC0415 -- an extra

    kinds: dict[type[models.Field[Any, Any]], pa.DataType] = {
        models.DateTimeField: pa.timestamp("us", tz="UTC"),
        models.BigIntegerField: pa.int64(),
        models.IntegerField: pa.int32(),
        models.BooleanField: pa.bool_(),
    }
    return pa.schema([(field.attname, kinds.get(type(field), pa.string())) for field in _FIELDS])


class _Stream(io.RawIOBase):
    """What `COPY` sends, a row at a time, as a file of which blocks of megabytes are read."""

    def __init__(self, copy: Any) -> None:
        self._copy = copy
        self._rest = bytearray()  # grows in place: a block has tens of thousands of rows

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._rest) < size:
            more = self._copy.read()
            if not more:
                break
            self._rest += more
        cut = len(self._rest) if size < 0 else size
        told = bytes(self._rest[:cut])
        del self._rest[:cut]
        return told


def _batches(day: date) -> Iterator["pa.RecordBatch"]:
    """The rows of a day in one order, cut the same each time."""
    import pyarrow as pa  # noqa: PLC0415 -- an extra
    from pyarrow import csv  # noqa: PLC0415

    columns = ", ".join(
        _INSTANT.format(field.attname)
        if isinstance(field, models.DateTimeField)
        else f'"{field.attname}"'
        for field in _FIELDS
    )
    query = f"COPY (SELECT {columns} FROM {_table(day)} ORDER BY started_at, id) TO STDOUT"  # noqa: S608 -- our own names
    convert = csv.ConvertOptions(
        column_types=_schema(),
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        true_values=["t"],
        false_values=["f"],
    )
    with (
        connection.wrap_database_errors,
        connection.cursor() as cursor,
        cursor.copy(f"{query} (FORMAT csv, HEADER)") as copy,
    ):
        yield from csv.open_csv(
            pa.PythonFile(_Stream(copy), mode="r"),
            read_options=csv.ReadOptions(block_size=_BLOCK_BYTES),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=convert,
        )


def _write(day: date, path: Path) -> int:
    """Write a day to `path`, down to the disk. How many events it had."""
    from pyarrow import parquet  # noqa: PLC0415 -- an extra

    events = 0
    with path.open("wb") as file:
        with parquet.ParquetWriter(file, _schema(), compression="zstd") as writer:
            for batch in _batches(day):
                writer.write_batch(batch)
                events += batch.num_rows
        file.flush()
        os.fsync(file.fileno())
    return events


def _compare(day: date, path: Path, events: int) -> None:
    """Raise ArchiveError unless the file has the rows of the day, and their sums."""
    if not _same(day, path, events):
        if _count(day) != events:
            raise ArchiveBusyError(f"{day} got late events meanwhile")
        raise ArchiveError(f"{day}: {path} differs from the table")


def _same(day: date, path: Path, events: int) -> bool:
    import pyarrow as pa  # noqa: PLC0415 -- an extra
    from pyarrow import parquet  # noqa: PLC0415

    sums = dict.fromkeys(SUMMED, 0)
    with parquet.ParquetFile(path) as file:
        groups = range(file.num_row_groups)
        for number, batch in zip_longest(groups, _batches(day)):
            if number is None or batch is None:
                return False
            stored = file.read_row_group(number)
            if not stored.equals(pa.Table.from_batches([batch])):
                return False
            for name in SUMMED:
                sums[name] += sum(stored.column(name).to_pylist())
        totals = ", ".join(f"coalesce(sum({name}), 0)" for name in SUMMED)
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*), {totals} FROM {_table(day)}")  # noqa: S608 -- our names
            told = [int(value) for value in cursor.fetchone()]
        return told == [file.metadata.num_rows, *sums.values()] and told[0] == events


def _count(day: date) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {_table(day)}")  # noqa: S608 -- our own name
        return int(cursor.fetchone()[0])


def _noted(day: date, path: Path, *, name: str, events: int, now: datetime) -> UsageArchive:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    return UsageArchive(
        day=day,
        file=name,
        events=events,
        size_bytes=path.stat().st_size,
        digest=digest,
        archived_at=now,
    )


def _sync(folder: Path) -> None:
    """Make the new name last: a file is there for good once its directory is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ------------------------------------------------------------------------------ the table


def _table(day: date) -> str:
    return f"budgets_usageevent_{day:%Y%m%d}"


def _check_known(day: date) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [_table(day)])
        if cursor.fetchone() != (True,):
            raise ArchiveError(f"no events of {day} are in the table")


def _check_folded(day: date) -> None:
    """Raise ArchiveBusyError when a fold still has to read events of the day."""
    start = datetime.combine(day, time(), tzinfo=UTC)
    with connection.cursor() as cursor:
        cursor.execute(_UNFOLDED, {"from": start, "to": start + timedelta(days=1)})
        if cursor.fetchone() != (False,):
            raise ArchiveBusyError(f"the rollups do not hold all of {day} yet")


def _drop(archive: UsageArchive) -> None:
    """Note the archive and drop the partition, together.

    Bookings lock the table, then the partition. Here the partition is locked first, so that events
    are counted while others are booked; what would be a deadlock ends by the short patience.
    """
    table = _table(archive.day)
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = '{_PATIENCE_MS}ms'")
            cursor.execute(f"LOCK TABLE {table} IN SHARE MODE")
            if _count(archive.day) != archive.events:
                raise ArchiveBusyError(f"{archive.day} got late events meanwhile")
            _check_folded(archive.day)
            cursor.execute("LOCK TABLE ONLY budgets_usageevent IN ACCESS EXCLUSIVE MODE")
            archive.save(force_insert=True)
            cursor.execute(f"DROP TABLE {table}")
    except OperationalError as error:
        raise ArchiveBusyError(f"{archive.day} is archived later: the table is in use") from error
