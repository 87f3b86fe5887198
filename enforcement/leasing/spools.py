"""Rows of spools and orders, as a batch reads and writes them."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from controlplane.identity.ids import new_id
from enforcement.leasing.arrays import array
from enforcement.leasing.later import Connection, Later, Rows, send
from enforcement.leasing.work import Work
from enforcement.queries import LEARNING
from enforcement.rules.policy import OrderKind, ScopeKind
from enforcement.rules.spools import Spool
from enforcement.rules.wire import Order, SessionInfo

MAX_SESSIONS = 500
SEEN_EVERY = timedelta(seconds=2)  # a sidecar's row is not written for each of its messages
NOTED_EVERY = timedelta(seconds=1)  # nor a spool's for each Sync that asks for something


class SpoolRow(NamedTuple):
    """A spool as the rules see it, whose it is, and what was last noted of it."""

    spool: Spool
    organization: str
    sidecar: str
    policy_revision: int
    noted_at: datetime


async def lock(connection: Connection, ids: Collection[str]) -> Later[dict[str, SpoolRow]]:
    """Lock spools by id: first of all locks of a transaction."""
    query = (
        "SELECT id::text, organization_id::text, sidecar_id::text, epoch, boot, incarnation::text,"
        " policy_revision, last_sync_at"
        " FROM enforcement_spool WHERE id = ANY(%s::uuid[]) ORDER BY id FOR NO KEY UPDATE"
    )
    return await send(connection, query, [array(ids)], _by_id)


def _by_id(rows: Rows) -> dict[str, SpoolRow]:
    return {
        row[0]: SpoolRow(
            Spool(row[0], epoch=row[3], boot=row[4], incarnation=row[5]),
            organization=row[1],
            sidecar=row[2],
            policy_revision=row[6],
            noted_at=row[7],
        )
        for row in rows
    }


async def still_learning(connection: Connection, organizations: Collection[str]) -> set[str]:
    """The organizations with a spool that has not told this incarnation its leases.

    One that was silent for a day before the others has no lease that it could tell of.
    """
    cursor = await connection.execute(LEARNING, [array(organizations)])
    return {row[0] async for row in cursor}


async def note(
    connection: Connection,
    works: Sequence[Work],
    known: Mapping[str, SpoolRow],
    *,
    now: datetime,
    policy_ttl_ms: int,
) -> None:
    """Write down when a book was heard, and until when it may work by which policy (L12).

    A book renews its policy lease from when it sent the Sync, and a Sync soon after the last one
    is not noted, so `policy_valid_until` is late rather than early.
    """
    latest = {work.spool: work for work in sorted(works, key=lambda w: w.sync.header.sequence)}
    rows = [work for _, work in sorted(latest.items()) if _is_news(work, known[work.spool], now)]
    if not rows:
        return
    told = [
        (
            work.spool,
            work.sync.header.policy_revision,
            work.sync.health,
            _storable(work.sync.sessions),
        )
        for work in rows
    ]
    await connection.execute(
        "UPDATE enforcement_spool s SET last_sync_at = %s, policy_valid_until = %s,"
        " health = u.told -> 2, sessions = u.told -> 3,"
        " policy_revision = greatest(s.policy_revision, (u.told ->> 1)::bigint)"
        " FROM jsonb_array_elements(%s::jsonb) AS u(told) WHERE s.id = (u.told ->> 0)::uuid",
        [
            now,
            now + timedelta(milliseconds=policy_ttl_ms) + NOTED_EVERY,
            msgspec.json.encode(told).decode(),
        ],
    )
    await connection.execute(
        "UPDATE enforcement_sidecar SET last_seen_at = %s WHERE id IN"
        " (SELECT id FROM enforcement_sidecar WHERE id = ANY(%s::uuid[]) AND"
        " (last_seen_at IS NULL OR last_seen_at < %s) ORDER BY id FOR NO KEY UPDATE)",
        [now, array({work.identity.sidecar for work in rows}), now - SEEN_EVERY],
    )


def _is_news(work: Work, row: SpoolRow, now: datetime) -> bool:
    """Whether a Sync is to be noted. A book that asks for a lease speaks again within a heartbeat,
    so of those one a second is enough, unless it tells of a newer policy.
    """
    if not work.sync.groups or work.sync.header.policy_revision > row.policy_revision:
        return True
    return not timedelta(0) <= now - row.noted_at < NOTED_EVERY


def _storable(sessions: list[SessionInfo]) -> list[dict[str, Any]]:
    """Clients name sessions, and JSONB takes no NUL."""
    rows = msgspec.to_builtins(sessions[:MAX_SESSIONS])
    return [
        {k: v.replace("\0", "\ufffd") if isinstance(v, str) else v for k, v in row.items()}
        for row in rows
    ]


async def acknowledge(connection: Connection, works: Sequence[Work], *, now: datetime) -> None:
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


async def orders_unseen(
    connection: Connection, works: Sequence[Work]
) -> Later[dict[str, list[Order]]]:
    """The orders of each organization that one of its books has not seen."""
    cursors: dict[str, int] = {}
    for work in works:
        seen = work.sync.header.order_cursor
        cursors[work.organization] = min(seen, cursors.get(work.organization, seen))
    query = (
        "SELECT u.organization::text, o.id::text, o.cursor, o.kind, o.scope_kind, o.scope_id::text,"
        " o.reason, o.scope_session, o.drain"
        " FROM unnest(%s::uuid[], %s::bigint[]) AS u(organization, seen)"
        " CROSS JOIN LATERAL (SELECT * FROM enforcement_order x WHERE"
        " x.organization_id = u.organization AND x.cursor > u.seen"
        " ORDER BY x.cursor LIMIT 500) o ORDER BY o.cursor"
    )
    return await send(connection, query, [array(cursors), array(cursors.values())], _orders)


def _orders(rows: Rows) -> dict[str, list[Order]]:
    found: dict[str, list[Order]] = {}
    for organization, id_, cursor, kind, scope_kind, scope_id, reason, session, drain in rows:
        found.setdefault(organization, []).append(
            Order(
                id=id_,
                cursor=cursor,
                kind=OrderKind(kind),
                scope_kind=ScopeKind(scope_kind),
                scope_id=scope_id,
                reason=reason,
                scope_session=session,
                drain=drain,
            )
        )
    return found


async def latest_cursor(connection: Connection, organization: str) -> int:
    """Where a fresh book begins: what was ordered before stands in the policy."""
    cursor = await connection.execute(
        "SELECT coalesce(max(cursor), 0) FROM enforcement_order WHERE organization_id = %s",
        [UUID(organization)],
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0
