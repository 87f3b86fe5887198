"""Compute balances again from the journal, and compare (I6). Differences are told, never repaired.

`unexplained` compares a balance with its usage events: what its leases settled must be what the
events say they paid. It is right only where nothing is open or in suspense, and written-off
amounts have no events, so it is a figure beside the check, not a failure of it.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection

from budgets.domain.rejected import astray as rejected_astray

_RECOMPUTED = """
SELECT b.id, b.spent_amount, b.held_amount, b.suspense_amount, b.overrun_amount, b.given_amount,
    coalesce(t.spent, 0), coalesce(t.held, 0), coalesce(t.suspense, 0), coalesce(t.overrun, 0),
    coalesce(t.given, 0),
    coalesce(l.held, 0), coalesce(l.suspense, 0), coalesce(l.settled, 0)
FROM budgets_balance b
LEFT JOIN (
    SELECT balance_id,
        sum(CASE kind WHEN 'settle' THEN amount WHEN 'late_settle' THEN amount
            WHEN 'write_off' THEN amount WHEN 'usage' THEN amount
            WHEN 'child_spent' THEN amount WHEN 'recharge' THEN amount
            WHEN 'correction' THEN -amount
            WHEN 'age' THEN -amount ELSE 0 END) AS spent,
        sum(CASE kind WHEN 'grant' THEN amount WHEN 'settle' THEN -amount
            WHEN 'release' THEN -amount WHEN 'expire' THEN -amount ELSE 0 END) AS held,
        sum(CASE kind WHEN 'expire' THEN amount WHEN 'late_settle' THEN -amount
            WHEN 'late_release' THEN -amount WHEN 'write_off' THEN -amount ELSE 0 END) AS suspense,
        sum(CASE kind WHEN 'overrun' THEN amount WHEN 'age_overrun' THEN -amount
            ELSE 0 END) AS overrun,
        sum(CASE kind WHEN 'carry_out' THEN amount WHEN 'delegate' THEN amount
            WHEN 'come_home' THEN -amount WHEN 'child_spent' THEN -amount ELSE 0 END) AS given
    FROM budgets_transfer GROUP BY balance_id
) t ON t.balance_id = b.id
LEFT JOIN (
    SELECT balance_id,
        sum(amount - used_amount - returned_amount)
            FILTER (WHERE state IN ('granted', 'recalled')) AS held,
        sum(amount - used_amount - returned_amount) FILTER (WHERE state = 'suspended') AS suspense,
        sum(used_amount + overrun_amount) AS settled
    FROM budgets_lease GROUP BY balance_id
) l ON l.balance_id = b.id
WHERE (%s::uuid IS NULL OR b.organization_id = %s::uuid)
"""
_PAID = """
SELECT l.balance_id, sum(p.amount)
FROM budgets_usageevent e
CROSS JOIN LATERAL jsonb_to_recordset(e.parts) AS p(lease text, amount bigint)
JOIN budgets_lease l ON l.id::text = p.lease
WHERE l.organization_id = e.organization_id
    AND (%s::uuid IS NULL OR e.organization_id = %s::uuid)
GROUP BY l.balance_id
"""

_RATED = """
SELECT count(*) FROM (
    SELECT r.number, r.old_charge_nanos,
        coalesce(
            lag(r.charge_nanos) OVER w, e.charge_nanos,
            CASE WHEN a.day IS NOT NULL THEN r.old_charge_nanos END
        ) AS before,
        coalesce(lag(r.number) OVER w, 0) + 1 AS due, r.charge_nanos - r.old_charge_nanos AS delta,
        (SELECT min(sum) FROM (
            SELECT sum(CASE kind WHEN 'correction' THEN -amount ELSE amount END)
            FROM budgets_transfer WHERE rating_id = r.id GROUP BY balance_id
        ) s) AS least,
        (SELECT max(sum) FROM (
            SELECT sum(CASE kind WHEN 'correction' THEN -amount ELSE amount END)
            FROM budgets_transfer WHERE rating_id = r.id GROUP BY balance_id
        ) s) AS most
    FROM budgets_rating r LEFT JOIN budgets_usageevent e ON e.id = r.usage_event_id
        AND e.started_at = r.started_at
    LEFT JOIN budgets_usagearchive a ON a.day = (r.started_at AT TIME ZONE 'UTC')::date
    WHERE (%s::uuid IS NULL OR r.organization_id = %s::uuid)
    WINDOW w AS (PARTITION BY r.usage_event_id ORDER BY r.number)
) rated
WHERE before IS DISTINCT FROM old_charge_nanos OR number <> due
    OR least <> delta OR most <> delta
"""
_REJECTED = """
SELECT count(*) FROM budgets_rejectedevent WHERE (%s::uuid IS NULL OR organization_id = %s::uuid)
"""


class Amounts(NamedTuple):
    spent: int
    held: int
    suspense: int
    overrun: int
    given: int


class Difference(NamedTuple):
    """A balance whose row is not what its journal, or its leases, say."""

    balance_id: UUID
    row: Amounts
    journal: Amounts
    leased_held: int
    leased_suspense: int


class Report(NamedTuple):
    """`unexplained`: settled by leases minus paid by events, where asked for and not the same.

    `ratings_astray`: ratings that do not begin where the one before ended, or whose transfers move
    something else than their difference.
    """

    balances: int
    differences: list[Difference]
    unexplained: dict[UUID, int]
    ratings_astray: int = 0
    rejected_events: int = 0  # kept aside: they explain use that has no event
    rejected_astray: int = 0  # kept, but not as they were said

    @property
    def holds(self) -> bool:
        return not (self.differences or self.ratings_astray or self.rejected_astray)


def verify(*, organization_id: UUID | None = None, explain: bool = True) -> Report:
    """Check every balance, of one organization or of all, in one snapshot. Read-only.

    `explain`: look for the unexplained as well, in each usage event that there is.
    """
    scope = [organization_id, organization_id]
    paid = {row[0]: int(row[1]) for row in _rows(_PAID, scope)} if explain else {}
    differences, unexplained, count = [], {}, 0
    for balance_id, *figures in _rows(_RECOMPUTED, scope):
        count += 1
        amounts = [int(figure) for figure in figures]
        row, journal = Amounts(*amounts[:5]), Amounts(*amounts[5:10])
        held, suspense, settled = amounts[10:]
        if row != journal or (row.held, row.suspense) != (held, suspense):
            differences.append(Difference(balance_id, row, journal, held, suspense))
        if explain and settled != paid.get(balance_id, 0):
            unexplained[balance_id] = settled - paid.get(balance_id, 0)
    ((astray,),) = _rows(_RATED, scope)
    ((rejected,),) = _rows(_REJECTED, scope)
    return Report(
        count,
        differences,
        unexplained,
        ratings_astray=int(astray),
        rejected_events=int(rejected),
        rejected_astray=rejected_astray(organization_id=organization_id),
    )


def _rows(query: str, parameters: list[UUID | None]) -> Iterator[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        yield from cursor.fetchall()
