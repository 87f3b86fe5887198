"""The rows of the ledger, read and written with one connection inside one transaction.

Lock order of the whole program: spools by id, then balances by id, then leases by id. Only this
module and `budgets.domain` write balances.
"""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from controlplane.identity.ids import new_id_text
from enforcement.errors import BusyError
from enforcement.leasing.arrays import array
from enforcement.leasing.later import Connection, Later, Rows, known, send
from enforcement.rules.ledger import Balance, Lease, LeaseState, Ledger
from enforcement.rules.rolling import Ring

_BALANCE = """
    SELECT b.id::text, organization_id::text, budget_id::text, value, window_start, window_end,
           limit_amount, cap_amount, spent_amount, held_amount, suspense_amount, overrun_amount,
           lends, given_amount, ring_bucket_ms, ring_newest, ring_spent, ring_overrun,
           closed_at IS NOT NULL
    FROM budgets_balance b WHERE b.id = ANY(%s::uuid[]) ORDER BY b.id FOR NO KEY UPDATE
"""
_RING = """
    UPDATE budgets_balance SET spent_amount = %(spent)s, held_amount = %(held)s,
        suspense_amount = %(suspense)s, overrun_amount = %(overrun)s, cap_amount = %(cap)s,
        ring_newest = %(newest)s, ring_spent = %(ring_spent)s::bigint[],
        ring_overrun = %(ring_overrun)s::bigint[], updated_at = %(now)s
    WHERE id = %(id)s
"""
_LEASE_COLUMNS = """
    l.id::text, l.balance_id::text, l.spool::text, l.amount, l.expires_at, l.epoch,
    l.incarnation::text, l.group_key::text,
    l.used_amount, l.returned_amount, l.overrun_amount, l.open_amount, l.state
"""
_DUE = """
    (SELECT id::text, balance_id::text FROM budgets_lease
     WHERE state = 'granted' AND expires_at < %(before)s ORDER BY expires_at LIMIT %(most)s)
    UNION ALL
    (SELECT id::text, balance_id::text FROM budgets_lease
     WHERE state = 'granted' AND expires_at > %(after)s ORDER BY expires_at LIMIT %(most)s)
"""
_OWED = f"""
    SELECT {_LEASE_COLUMNS}, b.budget_id, b.value, b.window_start
    FROM (
        SELECT * FROM budgets_lease WHERE spool = ANY(%(spools)s::uuid[]) AND state = 'suspended'
        UNION ALL
        SELECT of_older.* FROM enforcement_spool s JOIN budgets_lease of_older
            ON of_older.spool = s.id AND of_older.state = 'granted' AND of_older.epoch < s.epoch
        WHERE s.id = ANY(%(spools)s::uuid[])
    ) l
    JOIN budgets_balance b ON b.id = l.balance_id
    JOIN enforcement_spool s ON s.id = l.spool
    -- What a dead book had lent was said with its final: time frees it, words do not.
    WHERE NOT (b.lends AND l.state = 'suspended' AND l.epoch < s.epoch)
    ORDER BY l.id LIMIT 2000
"""  # noqa: S608 -- the columns are a constant
_HOLDERS = """
    SELECT DISTINCT l.spool, b.budget_id, b.value
    FROM budgets_lease l JOIN budgets_balance b ON b.id = l.balance_id
    WHERE l.balance_id = ANY(%s::uuid[]) AND l.state = 'granted'
"""


async def moment(connection: Connection) -> Later[tuple[datetime, str]]:
    """The ledger's own clock, read once for each transaction, and its incarnation."""
    query = (
        "SELECT clock_timestamp(), id::text FROM budgets_ledgerincarnation WHERE ended_at IS NULL"
    )
    return await send(connection, query, None, _moment)


def _moment(rows: Rows) -> tuple[datetime, str]:
    if not rows:
        raise BusyError("the ledger is between two incarnations")
    return rows[0][0].astimezone(UTC), rows[0][1]


async def balances_of_leases(
    connection: Connection, leases: Collection[str]
) -> Later[dict[str, str]]:
    """The balance of each lease; it never changes, so no lock is needed."""
    if not leases:
        return known({})
    query = "SELECT id::text, balance_id::text FROM budgets_lease WHERE id = ANY(%s::uuid[])"
    return await send(connection, query, [array(leases)], _pairs)


async def due_leases(
    connection: Connection, *, before: datetime, after: datetime, most: int
) -> Later[dict[str, str]]:
    """Leases past their deadline and grace, or with one that no lease can have; their balances."""
    if not most:
        return known({})
    values = {"before": before, "after": after, "most": most}
    return await send(connection, _DUE, values, _pairs)


def _pairs(rows: Rows) -> dict[str, str]:
    return dict(rows)


async def lock_balances(
    connection: Connection, ledger: Ledger, ids: Collection[str]
) -> Later[dict[str, str]]:
    """Lock balances by id; its answer takes them into the working set, with whose each is."""
    return await send(connection, _BALANCE, [array(ids)], lambda rows: _take_balances(ledger, rows))


def _take_balances(ledger: Ledger, rows: Rows) -> dict[str, str]:
    organizations = {}
    for row in rows:
        balance = Balance(
            id=row[0],
            budget=row[2],
            value=row[3],
            window_start_s=int(row[4].timestamp()),
            window_ends_at_ms=_ms(row[5]) if row[5] else None,
            limit=row[6],
            cap=row[7],
            spent=row[8],
            held=row[9],
            suspense=row[10],
            overrun=row[11],
            lends=row[12],
            given=row[13],
            ring=Ring(*row[14:18]) if row[14] else None,
            closed=row[18],
        )
        ledger.balances[balance.id] = balance
        organizations[balance.id] = row[1]
    return organizations


async def lock_leases(connection: Connection, ledger: Ledger, ids: Collection[str]) -> Later[None]:
    """Lock leases by id; its answer takes them into the working set."""
    query = (
        f"SELECT {_LEASE_COLUMNS} FROM budgets_lease l WHERE id = ANY(%s::uuid[]) ORDER BY l.id"  # noqa: S608 -- constant columns
        " FOR NO KEY UPDATE"
    )

    def take(rows: Rows) -> None:
        for row in rows:
            lease = _lease(row)
            ledger.leases[lease.id] = lease

    return await send(connection, query, [array(ids)], take)


async def leases_of_groups(
    connection: Connection, keys: Collection[tuple[str, str]]
) -> Later[dict[tuple[str, str], list[tuple[str, str]]]]:
    """What was granted before for (spool, group): leases, each with the group's content hash."""
    if not keys:
        return known({})
    spools, groups = zip(*keys, strict=True)
    query = (
        "SELECT l.spool::text, l.group_key::text, l.id::text, l.group_hash FROM budgets_lease l"
        " JOIN unnest(%s::uuid[], %s::uuid[]) AS k(spool, key)"
        " ON (l.spool, l.group_key) = (k.spool, k.key) ORDER BY l.id"
    )
    return await send(connection, query, [array(spools), array(groups)], _by_group)


def _by_group(rows: Rows) -> dict[tuple[str, str], list[tuple[str, str]]]:
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for spool, group, lease, content in rows:
        found.setdefault((spool, group), []).append((lease, content))
    return found


async def owed_leases(
    connection: Connection, spools: Collection[str]
) -> Later[list[tuple[Lease, Balance]]]:
    """Leases whose spool should say how they ended, with enough of their balance to name them."""
    return await send(connection, _OWED, {"spools": array(spools)}, _owed)


def _owed(rows: Rows) -> list[tuple[Lease, Balance]]:
    return [
        (
            _lease(row),
            Balance(str(row[1]), str(row[13]), row[14], int(row[15].timestamp()), limit=0, cap=0),
        )
        for row in rows
    ]


async def holders(connection: Connection, balances: Collection[str]) -> list[tuple[str, str, str]]:
    """Who has live leases of these balances: (spool, budget, value)."""
    cursor = await connection.execute(_HOLDERS, [array(balances)])
    return [(str(row[0]), str(row[1]), row[2]) async for row in cursor]


# ---------------------------------------------------------------------------- writing back


async def write_back(
    connection: Connection,
    ledger: Ledger,
    *,
    organizations: dict[str, str],
    group_hashes: dict[str, str],
    now: datetime,
) -> None:
    """Everything that the rules changed: balances, leases, new leases, transfers."""
    await _write_balances(connection, ledger, now)
    await _insert_leases(connection, ledger, organizations, group_hashes, now)
    await _write_leases(connection, ledger, now)
    await _insert_transfers(connection, ledger, organizations, now)


async def _write_balances(connection: Connection, ledger: Ledger, now: datetime) -> None:
    touched = [ledger.balances[i] for i in sorted(ledger.touched_balances)]
    await _write_rings(connection, touched, now)
    rows = [balance for balance in touched if balance.ring is None]
    if not rows:
        return
    await connection.execute(
        "UPDATE budgets_balance b SET spent_amount = u.spent, held_amount = u.held,"
        " suspense_amount = u.suspense, overrun_amount = u.overrun, cap_amount = u.cap,"
        " updated_at = %s FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[], %s::bigint[],"
        " %s::bigint[], %s::bigint[]) AS u(id, spent, held, suspense, overrun, cap)"
        " WHERE b.id = u.id",
        [
            now,
            array(b.id for b in rows),
            array(b.spent for b in rows),
            array(b.held for b in rows),
            array(b.suspense for b in rows),
            array(b.overrun for b in rows),
            array(b.cap for b in rows),
        ],
    )


async def _write_rings(connection: Connection, touched: list[Balance], now: datetime) -> None:
    """The rolling ones, each with its sub-buckets."""
    for balance in touched:
        if (ring := balance.ring) is not None:
            await connection.execute(
                _RING,
                {
                    "id": balance.id,
                    "now": now,
                    "spent": balance.spent,
                    "held": balance.held,
                    "suspense": balance.suspense,
                    "overrun": balance.overrun,
                    "cap": balance.cap,
                    "newest": ring.newest,
                    "ring_spent": array(ring.spent),
                    "ring_overrun": array(ring.overrun),
                },
            )


async def _write_leases(connection: Connection, ledger: Ledger, now: datetime) -> None:
    rows = [ledger.leases[i] for i in sorted(ledger.touched_leases)]
    if not rows:
        return
    await connection.execute(
        "UPDATE budgets_lease l SET used_amount = u.used, returned_amount = u.returned,"
        " overrun_amount = u.overrun, open_amount = u.open, state = u.state,"
        " expires_at = 'epoch'::timestamptz + u.expires_at_ms * interval '1 ms',"
        " closed_at = CASE WHEN u.state IN ('settled', 'written_off') THEN %s::timestamptz END"
        " FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[],"
        " %s::text[], %s::bigint[]) AS u(id, used, returned, overrun, open, state, expires_at_ms)"
        " WHERE l.id = u.id",
        [
            now,
            array(x.id for x in rows),
            array(x.used for x in rows),
            array(x.returned for x in rows),
            array(x.overrun for x in rows),
            array(x.open for x in rows),
            array(x.state.value for x in rows),
            array(x.expires_at_ms for x in rows),
        ],
    )


async def _insert_leases(
    connection: Connection,
    ledger: Ledger,
    organizations: dict[str, str],
    group_hashes: dict[str, str],
    now: datetime,
) -> None:
    rows = ledger.new_leases
    if not rows:
        return
    await connection.execute(
        "INSERT INTO budgets_lease (id, organization_id, balance_id, spool, epoch, incarnation,"
        " group_key, group_hash, amount, granted_at, expires_at, used_amount, returned_amount,"
        " overrun_amount, open_amount, state)"
        " SELECT u.id, u.organization, u.balance, u.spool, u.epoch, u.incarnation, u.key, u.hash,"
        " u.amount, %s, 'epoch'::timestamptz + u.expires_at_ms * interval '1 ms', 0, 0, 0, 0,"
        " 'granted' FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::uuid[], %s::int[],"
        " %s::uuid[], %s::uuid[], %s::text[], %s::bigint[], %s::bigint[])"
        " AS u(id, organization, balance, spool, epoch, incarnation, key, hash, amount,"
        " expires_at_ms)",
        [
            now,
            array(x.id for x in rows),
            array(organizations[x.balance] for x in rows),
            array(x.balance for x in rows),
            array(x.spool for x in rows),
            array(x.epoch for x in rows),
            array(x.incarnation for x in rows),
            array(x.group for x in rows),
            array(group_hashes[x.group] for x in rows),
            array(x.amount for x in rows),
            array(x.expires_at_ms for x in rows),
        ],
    )


async def _insert_transfers(
    connection: Connection, ledger: Ledger, organizations: dict[str, str], now: datetime
) -> None:
    if not ledger.transfers:
        return
    await connection.execute(
        "INSERT INTO budgets_transfer (id, organization_id, balance_id, lease_id, kind, amount, at,"
        " actor, reason) SELECT u.*, %s, '', '' FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[],"
        " %s::uuid[], %s::text[], %s::bigint[]) AS u",
        [
            now,
            array(new_id_text() for _ in ledger.transfers),
            array(organizations[t.balance] for t in ledger.transfers),
            array(t.balance for t in ledger.transfers),
            array(t.lease or "NULL" for t in ledger.transfers),
            array(t.kind.value for t in ledger.transfers),
            array(t.amount for t in ledger.transfers),
        ],
    )


def _lease(row: tuple[Any, ...]) -> Lease:
    return Lease(
        id=row[0],
        balance=row[1],
        spool=row[2],
        amount=row[3],
        expires_at_ms=_ms(row[4]),
        epoch=row[5],
        incarnation=row[6],
        group=row[7],
        used=row[8],
        returned=row[9],
        overrun=row[10],
        open=row[11],
        state=LeaseState(row[12]),
    )


def _ms(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)
