"""Keep usage events that cannot be true aside, so that they neither spoil a batch nor are lost.

1. The first 16 KiB of the document are kept, and the SHA-256 of all of it: said again, it is the
   same row. Beyond `MOST_DOCUMENTS` of an organization only digest and reason are kept.
2. Nothing is charged by it, nothing refunded: what its call paid from leases is settled by the
   reports of those leases, or goes to suspense with them (L6). What it used of soft budgets, or
   past its leases, nobody can know.
3. People are told, at most once an hour.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import msgspec
from django.db import connection

from budgets.domain.notifications import notify
from budgets.models import RejectedEvent

MOST_CHARS = 16_384
MOST_DOCUMENTS = 10_000
QUIET = timedelta(hours=1)
_ASTRAY = """
SELECT count(*) FROM budgets_rejectedevent
WHERE whole AND digest <> sha256(convert_to(document, 'UTF8'))
    AND (%s::uuid IS NULL OR organization_id = %s::uuid)
"""


class Rejected(NamedTuple):
    """An event as it was said, and why it cannot be true."""

    document: bytes
    reason: str


class _Named(msgspec.Struct):
    id: str = ""


def keep_aside(
    *,
    organization_id: UUID,
    events: Sequence[Rejected],
    now: datetime,
    sidecar_id: UUID | None = None,
    spool: UUID | None = None,
    source: str = "",
) -> int:
    """Store events that cannot be true, each once. How many were new; call it in a transaction."""
    if not events:
        return 0
    known = RejectedEvent.objects.filter(organization_id=organization_id)
    room = MOST_DOCUMENTS - known[:MOST_DOCUMENTS].count()
    loud = not known.filter(received_at__gte=now - QUIET).exists()
    rows = [
        _row(event, keep=number < room, now=now, spool=spool, sidecar=sidecar_id, source=source)
        for number, event in enumerate(events)
    ]
    rows = sorted({row.digest: row for row in rows}.values(), key=lambda row: bytes(row.digest))
    before = known.filter(digest__in=[row.digest for row in rows]).count()
    for row in rows:
        row.organization_id = organization_id
    RejectedEvent.objects.bulk_create(rows, ignore_conflicts=True)
    fresh = len(rows) - before
    if fresh and loud:
        notify(
            organization_id=organization_id,
            title=f"{fresh} usage events cannot be true and were set aside",
            body=f"The first: {rows[0].reason}. What their leases paid counts all the same.",
            now=now,
        )
    return fresh


def astray(*, organization_id: UUID | None = None) -> int:
    """How many kept documents are not what was said."""
    with connection.cursor() as cursor:
        cursor.execute(_ASTRAY, [organization_id, organization_id])
        ((count,),) = cursor.fetchall()
    return int(count)


def _row(
    event: Rejected,
    *,
    keep: bool,
    now: datetime,
    spool: UUID | None,
    sidecar: UUID | None,
    source: str,
) -> RejectedEvent:
    text = event.document.decode("utf-8", "replace").replace("\x00", "\ufffd")
    kept = text[:MOST_CHARS] if keep else ""
    return RejectedEvent(
        sidecar=sidecar,
        spool=spool,
        source=source,
        event=_id_of(event.document),
        reason=event.reason.replace("\x00", "\ufffd")[:500],
        document=kept,
        size_bytes=len(event.document),
        digest=hashlib.sha256(event.document).digest(),
        whole=kept.encode() == event.document,
        received_at=now,
    )


def _id_of(document: bytes) -> str:
    try:
        return msgspec.json.decode(document, type=_Named).id.replace("\x00", "\ufffd")[:64]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
