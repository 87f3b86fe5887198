"""Which balance each item of a group means; made when it is first asked for (L15)."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from budgets.domain.locks import key_pair
from controlplane.identity.ids import new_id
from enforcement.leasing import metrics
from enforcement.leasing.later import Connection, Later, Rows, known, send
from enforcement.rules.ledger import may_fetch_ahead
from enforcement.rules.policy import BudgetPolicy, WindowSpec
from enforcement.rules.rolling import new_ring
from enforcement.rules.splits import OTHER_VALUE, is_counted, is_full
from enforcement.rules.windows import Window, has_ended, window_after, window_at
from enforcement.rules.wire import DenialCause, Group

MAX_VALUE_CHARS = 200

_FIND = """
    SELECT b.id::text, b.budget_id::text, b.value, b.window_start FROM budgets_balance b
    JOIN unnest(%s::uuid[], %s::text[], %s::timestamptz[]) AS k(budget, value, start)
      ON (b.budget_id, b.value, b.window_start) = (k.budget, k.value, k.start)
"""
_MAKE = """
    INSERT INTO budgets_balance (id, organization_id, budget_id, value, window_start, window_end,
        hard, limit_amount, cap_amount, spent_amount, held_amount, suspense_amount,
        overrun_amount, updated_at, lends, ring_bucket_ms,
        ring_newest, ring_spent, ring_overrun)
    SELECT %(id)s, b.organization_id, b.id, %(value)s, %(start)s, %(end)s, mode = 'hard', l, l,
        0, 0, 0, 0, %(now)s, unit = 'concurrency', %(bucket_ms)s, %(newest)s,
        %(ring)s::bigint[], %(ring)s::bigint[]
    FROM budgets_budget b, LATERAL (SELECT coalesce((SELECT o.limit_amount
        FROM budgets_budgetoverride o WHERE (o.budget_id, o.value) = (b.id, %(value)s)),
        b.limit_amount) + b.increase_amount) AS limits(l)
    WHERE b.id = %(budget)s AND archived_at IS NULL
    ON CONFLICT DO NOTHING
"""


class Key(NamedTuple):
    """A balance by what it counts."""

    budget: str
    value: str
    window_start: datetime


class Wanted(NamedTuple):
    """A balance that a group needs: its key, its budget and its window.

    `given`: a part of a parent session's (L14). Only a delegation makes it, with its own limit.
    """

    key: Key
    budget: BudgetPolicy
    window: Window
    given: bool = False


def wanted(
    group: Group, budgets: list[BudgetPolicy], *, now: datetime, lease_ttl_ms: int
) -> list[Wanted] | DenialCause:
    """The balances of a group in the windows of now, or those to come; or why there are none.

    Clients name sessions: a bad name denies its own group, never the message around it.
    """
    found = []
    for item, budget in zip(group.items, budgets, strict=True):
        if len(item.value) > MAX_VALUE_CHARS or "\0" in item.value:
            return DenialCause.MISMATCH
        if has_ended(budget.window, now):
            return DenialCause.ENDED
        window = window_at(budget.window, now)
        if group.ahead:
            coming = _coming(budget.window, window, now=now, lease_ttl_ms=lease_ttl_ms)
            if coming is None:
                return DenialCause.EARLY
            window = coming
        found.append(Wanted(Key(budget.id, item.value, window[0]), budget, window))
    return found


def _coming(spec: WindowSpec, window: Window, *, now: datetime, lease_ttl_ms: int) -> Window | None:
    """The window that follows, if it is near enough to lease of it (L16)."""
    if spec.kind == "rolling":
        bucket_ms = (spec.length_s or 0) * 1000 // max(1, spec.parts)
        left_ms = bucket_ms - int(now.timestamp() * 1000) % bucket_ms
        return window if may_fetch_ahead(left_ms, lease_ttl_ms=lease_ttl_ms) else None
    coming = window_after(spec, window)
    if coming is None or window[1] is None:
        return None
    left_ms = int((window[1] - now).total_seconds() * 1000)
    return coming if may_fetch_ahead(left_ms, lease_ttl_ms=lease_ttl_ms) else None


Places = dict[Key, str | DenialCause]  # the id of a balance, or why there is none


async def open_balances(
    connection: Connection,
    wants: list[Wanted],
    found: Mapping[Key, str],
    *,
    organization: str,
    now: datetime,
    adopting: bool = False,
) -> Places:
    """The id of each balance, made where `found` lacks it; a split that is full says MAX_VALUES.

    Not when `adopting`: what a forgotten lease has out was given, so it is counted somewhere.
    """
    places: Places = {want.key: found[want.key] for want in wants if want.key in found}
    missing = sorted({w.key: w for w in wants if w.key not in found}.values(), key=lambda w: w.key)
    if not missing:
        return places
    await _share_budgets(connection, organization)
    for want in missing:
        if want.given:
            places[want.key] = DenialCause.ENDED
            continue
        if not adopting and is_counted(want.key.value) and await _is_full(connection, want):
            metrics.SPLIT_OVERFLOWS.labels(budget=want.key.budget).inc()
            places[want.key] = DenialCause.MAX_VALUES
            continue
        await connection.execute(
            _MAKE,
            {
                "id": new_id(),
                "budget": UUID(want.key.budget),
                "value": want.key.value,
                "start": want.window[0],
                "end": want.window[1],
                "now": now,
                **_ring(want.budget.window, now),
            },
        )
    made = await find_balances(connection, [w.key for w in missing if w.key not in places])
    places |= await made.get()
    for want in missing:
        places.setdefault(want.key, DenialCause.MISMATCH)  # archived since the policy was read
    return places


def _ring(spec: WindowSpec, now: datetime) -> dict[str, Any]:
    """The columns of an empty rolling window; nulls for any other."""
    if spec.kind != "rolling" or spec.length_s is None:
        return {"bucket_ms": None, "newest": None, "ring": None}
    ring = new_ring(length_s=spec.length_s, parts=spec.parts, now_ms=int(now.timestamp() * 1000))
    return {"bucket_ms": ring.bucket_ms, "newest": ring.newest, "ring": ring.spent}


async def find_balances(connection: Connection, keys: Collection[Key]) -> Later[dict[Key, str]]:
    """The ids of those that there are."""
    if not keys:
        return known({})
    by_instant = {(k.budget, k.value, k.window_start): k for k in keys}

    def read(rows: Rows) -> dict[Key, str]:
        return {by_instant[row[1], row[2], row[3]]: row[0] for row in rows}

    columns = zip(*((UUID(k.budget), k.value, k.window_start) for k in keys), strict=True)
    return await send(connection, _FIND, [list(column) for column in columns], read)


async def _is_full(connection: Connection, want: Wanted) -> bool:
    """Whether a split has all the values it may have; nobody else adds one meanwhile."""
    budget = UUID(want.key.budget)
    await connection.execute(
        "SELECT 1 FROM budgets_budget WHERE id = %s FOR NO KEY UPDATE", [budget]
    )
    cursor = await connection.execute(
        "SELECT count(*) FROM budgets_balance"
        " WHERE budget_id = %s AND window_start = %s AND value <> %s",
        [budget, want.key.window_start, OTHER_VALUE],
    )
    row = await cursor.fetchone()
    return row is not None and is_full(want.budget, values=row[0])


async def _share_budgets(connection: Connection, organization: str) -> None:
    """As `budgets.domain.locks.share_budgets`: no limit changes under a balance being made."""
    await connection.execute(
        "SELECT pg_advisory_xact_lock_shared(%s, %s)", key_pair(UUID(organization))
    )
