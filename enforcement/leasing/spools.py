"""Rows of spools and orders, as a batch reads and writes them."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import msgspec
from psycopg.types.json import Jsonb

from controlplane.identity.ids import new_id
from enforcement.leasing.arrays import array
from enforcement.leasing.store import Connection
from enforcement.rules.policy import OrderKind, ScopeKind
from enforcement.rules.spools import Spool
from enforcement.rules.wire import Order, SessionInfo

if TYPE_CHECKING:
    from enforcement.leasing.batch import Work


_LEARNING = """
    SELECT DISTINCT s.organization_id::text
    FROM enforcement_spool s
    JOIN enforcement_sidecar c ON c.id = s.sidecar_id
    JOIN identity_apitoken t ON t.id = c.token_id AND t.revoked_at IS NULL
    JOIN budgets_ledgerincarnation i ON i.ended_at IS NULL
    WHERE s.organization_id = ANY(%s::uuid[]) AND s.incarnation <> i.id
        AND s.waived_for IS DISTINCT FROM i.id
        AND s.last_sync_at > (SELECT max(a.last_sync_at) FROM enforcement_spool a
            WHERE a.organization_id = s.organization_id) - interval '24 hours'
"""

MAX_SESSIONS = 500
SEEN_EVERY = timedelta(seconds=2)  # a sidecar's row is not written for each of its messages


class SpoolRow(NamedTuple):
    """A spool as the rules see it, and whose it is."""

    spool: Spool
    organization: str
    sidecar: str


async def lock(connection: Connection, ids: Collection[str]) -> dict[str, SpoolRow]:
    """Lock spools by id: first of all locks of a transaction."""
    if not ids:
        return {}
    cursor = await connection.execute(
        "SELECT id, organization_id, sidecar_id, epoch, boot, incarnation"
        " FROM enforcement_spool WHERE id = ANY(%s::uuid[]) ORDER BY id FOR NO KEY UPDATE",
        [array(ids)],
    )
    return {
        str(row[0]): SpoolRow(
            Spool(str(row[0]), epoch=row[3], boot=row[4], incarnation=str(row[5])),
            organization=str(row[1]),
            sidecar=str(row[2]),
        )
        async for row in cursor
    }


async def still_learning(connection: Connection, organizations: Collection[str]) -> set[str]:
    """The organizations with a spool that has not told this incarnation its leases.

    One that was silent for a day before the others has no lease that it could tell of.
    """
    cursor = await connection.execute(_LEARNING, [array(organizations)])
    return {row[0] async for row in cursor}


async def note(
    connection: Connection, works: "Sequence[Work]", *, now: datetime, policy_ttl_ms: int
) -> None:
    """Write down when a book was heard, and until when it may work by which policy (L12).

    A book renews its policy lease from when it sent the Sync, so `policy_valid_until` is late
    rather than early.
    """
    latest = {work.spool: work for work in sorted(works, key=lambda w: w.sync.header.sequence)}
    rows = [work for _, work in sorted(latest.items())]
    await connection.execute(
        "UPDATE enforcement_spool s SET last_sync_at = %s, policy_valid_until = %s,"
        " health = u.health, sessions = u.sessions,"
        " policy_revision = greatest(s.policy_revision, u.revision)"
        " FROM unnest(%s::uuid[], %s::jsonb[], %s::jsonb[], %s::bigint[])"
        " AS u(id, health, sessions, revision) WHERE s.id = u.id",
        [
            now,
            now + timedelta(milliseconds=policy_ttl_ms),
            array(work.spool for work in rows),
            [Jsonb(msgspec.to_builtins(work.sync.health)) for work in rows],
            [Jsonb(_storable(work.sync.sessions)) for work in rows],
            array(work.sync.header.policy_revision for work in rows),
        ],
    )
    await connection.execute(
        "UPDATE enforcement_sidecar SET last_seen_at = %s WHERE id IN"
        " (SELECT id FROM enforcement_sidecar WHERE id = ANY(%s::uuid[]) AND"
        " (last_seen_at IS NULL OR last_seen_at < %s) ORDER BY id FOR NO KEY UPDATE)",
        [now, array({work.identity.sidecar for work in rows}), now - SEEN_EVERY],
    )


def _storable(sessions: list[SessionInfo]) -> list[dict[str, Any]]:
    """Clients name sessions, and JSONB takes no NUL."""
    rows = msgspec.to_builtins(sessions[:MAX_SESSIONS])
    return [
        {k: v.replace("\0", "\ufffd") if isinstance(v, str) else v for k, v in row.items()}
        for row in rows
    ]


async def acknowledge(connection: Connection, works: "Sequence[Work]", *, now: datetime) -> None:
    """Store the receipts of orders, each once for each spool."""
    rows: list[tuple[Any, ...]] = [
        (
            new_id(),
            UUID(work.spool),
            a.streams_cut,
            a.tokens_after,
            a.last_byte_ms,
            now,
            UUID(a.order),
            UUID(work.organization),
        )
        for work in works
        for a in work.sync.acknowledgements
    ]
    for row in rows:
        await connection.execute(
            "INSERT INTO enforcement_orderacknowledgement"
            " (id, order_id, spool_id, streams_cut, tokens_after, last_byte_ms, at)"
            " SELECT %s, o.id, %s, %s, %s, %s, %s FROM enforcement_order o"
            " WHERE o.id = %s AND o.organization_id = %s ON CONFLICT DO NOTHING",
            row,
        )


async def add_orders(connection: Connection, works: "Sequence[Work]") -> None:
    """Add the orders that each book has not seen."""
    organizations = sorted({work.organization for work in works})
    cursors = {
        organization: min(
            work.sync.header.order_cursor for work in works if work.organization == organization
        )
        for organization in organizations
    }
    for organization, after in cursors.items():
        orders = await _orders_after(connection, organization, after)
        for work in works:
            if work.organization == organization:
                seen = work.sync.header.order_cursor
                work.answer.orders.extend(o for o in orders if o.cursor > seen)
                work.answer.order_cursor = max([seen, *(o.cursor for o in orders)])


async def latest_cursor(connection: Connection, organization: str) -> int:
    """Where a fresh book begins: what was ordered before stands in the policy."""
    cursor = await connection.execute(
        "SELECT coalesce(max(cursor), 0) FROM enforcement_order WHERE organization_id = %s",
        [UUID(organization)],
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def _orders_after(connection: Connection, organization: str, after: int) -> list[Order]:
    cursor = await connection.execute(
        "SELECT id, cursor, kind, scope_kind, scope_id, reason FROM enforcement_order"
        " WHERE organization_id = %s AND cursor > %s ORDER BY cursor LIMIT 500",
        [UUID(organization), after],
    )
    return [
        Order(
            id=str(row[0]),
            cursor=row[1],
            kind=OrderKind(row[2]),
            scope_kind=ScopeKind(row[3]),
            scope_id=str(row[4]),
            reason=row[5],
        )
        async for row in cursor
    ]
