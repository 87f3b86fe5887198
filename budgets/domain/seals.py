"""The hash chain over an organization's transfers: what was written is what stands there still.

1. A transfer gets its sequence when it is inserted, and transactions commit in another order. Only
   sequences below a horizon are sealed: a horizon is taken, and counts once every transaction that
   ran then is over, and some seconds have passed. So a sealed stretch never gains a row.
2. A seal covers the next stretch of an organization: `content` is the SHA-256 of its rows, one
   after the other as PostgreSQL prints them, `digest` the SHA-256 of the digest before and
   `content`. No grant waits for it: seals are made behind the ledger, by a task.
3. A row that was changed, removed or slipped in breaks its seal; a seal that was, breaks the chain.
   Whoever can rewrite the whole chain is found by a digest that was kept elsewhere (`heads`).
"""

import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection, transaction

from budgets.models import JournalSeal, SealHorizon

ROWS_OF_A_SEAL = 10_000
SETTLING = timedelta(seconds=2)  # between drawing a sequence and having a transaction id
_LOCK = 0x5EA1  # advisory: one sealer at a time

# As text, whatever the session's settings for dates are. A composite's text is unambiguous.
_ROW = """(t.sequence, t.id, t.balance_id, t.lease_id, t.usage_event_id, t.kind, t.amount,
    (extract(epoch FROM t.at) * 1000000)::bigint, t.actor, t.reason)::text"""
_STRETCHES = f"""
WITH unsealed AS (
    SELECT t.organization_id, t.sequence,
        (row_number() OVER (PARTITION BY t.organization_id ORDER BY t.sequence) - 1) / %(rows)s
            AS stretch,
        {_ROW} AS row
    FROM budgets_transfer t
    LEFT JOIN (
        SELECT organization_id, max(last) AS last FROM budgets_journalseal GROUP BY 1
    ) s USING (organization_id)
    WHERE t.sequence > coalesce(s.last, 0) AND t.sequence <= %(horizon)s
)
SELECT organization_id, min(sequence), max(sequence), count(*),
    sha256(convert_to(string_agg(row, E'\n' ORDER BY sequence), 'UTF8'))
FROM unsealed GROUP BY organization_id, stretch ORDER BY organization_id, min(sequence)
"""  # noqa: S608 -- the columns are a constant
_CONTENTS = f"""
SELECT s.id, count(t.sequence),
    sha256(convert_to(coalesce(string_agg({_ROW}, E'\n' ORDER BY t.sequence), ''), 'UTF8'))
FROM budgets_journalseal s
LEFT JOIN budgets_transfer t ON t.organization_id = s.organization_id
    AND t.sequence BETWEEN s.first AND s.last
WHERE %(organization)s::uuid IS NULL OR s.organization_id = %(organization)s::uuid
GROUP BY s.id
"""  # noqa: S608 -- the columns are a constant
_BETWEEN = """
SELECT t.organization_id, count(*), min(t.sequence)
FROM budgets_transfer t
JOIN (
    SELECT organization_id, max(last) AS last FROM budgets_journalseal GROUP BY 1
) s USING (organization_id)
WHERE t.sequence <= s.last
    AND NOT EXISTS (
        SELECT FROM budgets_journalseal c WHERE c.organization_id = t.organization_id
            AND t.sequence BETWEEN c.first AND c.last
    )
    AND (%(organization)s::uuid IS NULL OR t.organization_id = %(organization)s::uuid)
GROUP BY t.organization_id
"""


class Head(NamedTuple):
    """The end of one organization's chain. Keep it elsewhere: it proves all that is before it."""

    organization_id: UUID
    number: int
    digest: str


class Break(NamedTuple):
    """Where the chain, or what it covers, is not what was sealed."""

    organization_id: UUID
    number: int
    what: str


class Chain(NamedTuple):
    """What a check found. `unsealed` transfers are too young to be covered yet."""

    seals: int
    sealed: int
    unsealed: int
    heads: list[Head]
    breaks: list[Break]


@transaction.atomic
def seal_journal(*, now: datetime) -> int:
    """Seal what the horizon allows, and move the horizon on. How many seals were made."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_LOCK])
        row = cursor.fetchone()
        if row is None or not row[0]:
            return 0  # another worker is at it
        horizon = _move_horizon(now=now)
        cursor.execute(_STRETCHES, {"rows": ROWS_OF_A_SEAL, "horizon": horizon})
        stretches = cursor.fetchall()
    ends = _ends()
    seals = []
    for organization_id, first, last, count, content in stretches:
        number, before = ends.get(organization_id, (0, b""))
        digest = link(before, bytes(content))
        ends[organization_id] = (number + 1, digest)
        seals.append(
            JournalSeal(
                organization_id=organization_id,
                number=number + 1,
                first=first,
                last=last,
                transfers=count,
                content=bytes(content),
                digest=digest,
                sealed_at=now,
            )
        )
    JournalSeal.objects.bulk_create(seals)
    return len(seals)


def link(before: bytes, content: bytes) -> bytes:
    """The digest of a seal: over the one before it (empty for the first) and its content."""
    return hashlib.sha256(before + content).digest()


def check_chain(*, organization_id: UUID | None = None) -> Chain:
    """Compute every seal again from the transfers, and every link from the seal before it."""
    scope = {"organization": organization_id}
    contents = {row[0]: (row[1], bytes(row[2])) for row in _rows(_CONTENTS, scope)}
    seals = JournalSeal.objects.order_by("organization_id", "number")
    if organization_id is not None:
        seals = seals.filter(organization_id=organization_id)
    ends: dict[UUID, JournalSeal] = {}
    breaks = []
    for seal in seals:
        before = ends.get(seal.organization_id)
        breaks += [
            Break(seal.organization_id, seal.number, what)
            for what in _wrong(seal, before, *contents[seal.id])
        ]
        ends[seal.organization_id] = seal
    breaks += [
        Break(owner, 0, f"{count} transfers stand between seals, the first at {first}")
        for owner, count, first in _rows(_BETWEEN, scope)
    ]
    sealed = sum(count for count, _ in contents.values())
    heads = [Head(key, end.number, bytes(end.digest).hex()) for key, end in ends.items()]
    return Chain(len(contents), sealed, _unsealed(organization_id, sealed), heads, breaks)


def _wrong(
    seal: JournalSeal, before: JournalSeal | None, count: int, content: bytes
) -> Iterator[str]:
    """What is wrong with a seal, in words."""
    if count != seal.transfers:
        yield f"{count} transfers where {seal.transfers} were sealed"
    elif content != bytes(seal.content):
        yield "a transfer is not what was sealed"
    if seal.number != (before.number if before else 0) + 1:
        yield "the seal before it is missing"
    elif before is not None and seal.first <= before.last:
        yield "it covers what the seal before it covers"
    if bytes(seal.digest) != link(bytes(before.digest) if before else b"", bytes(seal.content)):
        yield "its digest does not follow from the seal before it"


def holds_digest(digest: str, *, organization_id: UUID | None = None) -> bool:
    """Whether a digest that was kept elsewhere is one of the chain's."""
    try:
        found = JournalSeal.objects.filter(digest=bytes.fromhex(digest))
    except ValueError:
        return False
    if organization_id is not None:
        found = found.filter(organization_id=organization_id)
    return found.exists()


def _move_horizon(*, now: datetime) -> int:
    """Take the horizon on if its time has come; what may be sealed now."""
    horizon, _ = SealHorizon.objects.select_for_update().get_or_create(
        id=1, defaults={"pending_at": now}
    )
    ((oldest, newest, last),) = _rows(
        "SELECT pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint,"
        " (SELECT last_value FROM budgets_transfer_sequence) FROM pg_current_snapshot() AS s",
        {},
    )
    restored = newest < horizon.pending_xid  # another cluster: its transactions count anew
    if restored or (oldest >= horizon.pending_xid and now - horizon.pending_at >= SETTLING):
        horizon.sealable = horizon.sealable if restored else horizon.pending
        horizon.pending, horizon.pending_xid = max(last, horizon.sealable), newest
        horizon.pending_at = now
        horizon.save()
    return horizon.sealable


def _ends() -> dict[UUID, tuple[int, bytes]]:
    rows = JournalSeal.objects.order_by("organization_id", "-number").distinct("organization_id")
    return {seal.organization_id: (seal.number, bytes(seal.digest)) for seal in rows}


def _unsealed(organization_id: UUID | None, sealed: int) -> int:
    query = "SELECT count(*) FROM budgets_transfer"
    if organization_id is not None:
        query += " WHERE organization_id = %(organization)s"
    ((count,),) = _rows(query, {"organization": organization_id})
    return int(count) - sealed


def _rows(query: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        return list(cursor.fetchall())
