"""Store usage events: each once by its id, in the partition of the day on which it started.

A partitioned table cannot keep an id unique over all its days, and a repeat may fall on another day
than the first report (an absurd clock is replaced by the time of receipt). So a narrow table of
receipts is written first; only what is new there is copied into the partitions.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from operator import attrgetter
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from django.db import connection

from budgets.models import UsageEvent, UsageReceipt
from enforcement.rules import wire

DAYS_AHEAD = 7
_CLAIM = """
INSERT INTO budgets_usagereceipt (id, organization_id, started_at, digest)
SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::timestamptz[], %s::bytea[])
ON CONFLICT (id) DO NOTHING RETURNING id
"""
_NAMES = tuple(field.attname for field in UsageEvent._meta.concrete_fields)  # noqa: SLF001 -- documented
_JSON = tuple(_NAMES.index(name) for name in ("tags", "parts"))
_VALUES = attrgetter(*_NAMES)
_COLUMNS = ", ".join(f'"{name}"' for name in _NAMES)
_COPY = f"COPY budgets_usageevent ({_COLUMNS}) FROM STDIN"


class Receipt(NamedTuple):
    """Whose event it is, and SHA-256 of what it says."""

    id: UUID
    organization_id: UUID
    digest: bytes


def receipt_of(event: wire.UsageEvent, *, organization_id: UUID) -> Receipt:
    """The receipt of an event as it was read, whichever way its JSON was written."""
    digest = hashlib.sha256(msgspec.json.encode(event, order="deterministic")).digest()
    return Receipt(UUID(event.id), organization_id, digest)


def claim(receipts: Mapping[UUID, Receipt], starts: Mapping[UUID, datetime]) -> list[UUID]:
    """Write receipts in the order of ids; which are new. A twin in flight is waited for."""
    ids = sorted(receipts)
    values: list[Any] = [
        ids,
        [receipts[key].organization_id for key in ids],
        [starts[key] for key in ids],
        [receipts[key].digest for key in ids],
    ]
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM, values)
        return [key for (key,) in cursor.fetchall()]


def contradicting(receipts: Sequence[Receipt]) -> tuple[int, ...]:
    """Places of events whose id belongs to other content, or to another organization."""
    booked = {
        receipt.id: receipt
        for receipt in UsageReceipt.objects.filter(id__in={receipt.id for receipt in receipts})
    }
    return tuple(
        place
        for place, said in enumerate(receipts)
        if (known := booked[said.id]).organization_id != said.organization_id
        or (known.digest is not None and bytes(known.digest) != said.digest)
    )


def store(rows: Sequence[UsageEvent]) -> None:
    """Copy new events into their partitions; a late event's is made on demand."""
    if not rows:
        return
    make_partitions(row.started_at.astimezone(UTC).date() for row in rows)
    with (
        connection.wrap_database_errors,
        connection.cursor() as cursor,
        cursor.copy(_COPY) as copy,
    ):
        for row in rows:
            values = list(_VALUES(row))
            for place in _JSON:
                values[place] = msgspec.json.encode(values[place]).decode()
            copy.write_row(values)


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
