"""One balance in detail: its leases, its journal, its course."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connection
from django.db.models import Min

from budgets.enums import LIVE_LEASE_STATES
from budgets.models import Balance, Lease, Transfer
from enforcement.rules.windows import EPOCH

MAX_POINTS = 240
SECOND = timedelta(seconds=1)
_STEPS = [
    timedelta(minutes=1),
    timedelta(minutes=5),
    timedelta(minutes=15),
    timedelta(hours=1),
    timedelta(hours=6),
    timedelta(days=1),
    timedelta(days=7),
    timedelta(days=30),
]
_COURSE = """
SELECT date_bin(make_interval(secs => %s), at, %s) AS bin,
    sum(CASE WHEN kind = 'correction' THEN -amount ELSE amount END)
FROM budgets_transfer
WHERE balance_id = %s AND at < %s
    AND kind IN ('settle', 'late_settle', 'write_off', 'usage', 'overrun', 'correction',
        'recharge')
GROUP BY bin ORDER BY bin
"""


@dataclass(frozen=True)
class BalanceDetail:
    """A balance with what is out of it. `exposure` is the exact money still out: what sidecars
    could still spend without asking, and what nobody has accounted for.
    """

    balance: Balance
    leases: list[Lease]
    transfers: list[Transfer]
    exposure: int
    open_amount: int


@dataclass(frozen=True)
class BurnPoint:
    """Spent and overrun together, up to and without an instant."""

    at: datetime
    used: int


def balance_detail(
    *, organization_id: UUID, balance_id: UUID, transfers: int = 50
) -> BalanceDetail | None:
    """A balance of this organization with its live leases and last transfers, or None."""
    balance = (
        Balance.objects.select_related("budget")
        .filter(organization_id=organization_id, id=balance_id)
        .first()
    )
    if balance is None:
        return None
    leases = list(
        Lease.objects.filter(balance=balance, state__in=LIVE_LEASE_STATES).order_by("-granted_at")
    )
    return BalanceDetail(
        balance=balance,
        leases=leases,
        transfers=list(Transfer.objects.filter(balance=balance).order_by("-sequence")[:transfers]),
        exposure=balance.held_amount + balance.suspense_amount,
        open_amount=sum(lease.open_amount for lease in leases),
    )


def burn_down(balance: Balance, *, now: datetime) -> list[BurnPoint]:
    """The course of a balance from its first movement until now, at most MAX_POINTS points."""
    first = Transfer.objects.filter(balance=balance).aggregate(at=Min("at"))["at"]
    if first is None:
        return []
    start = max(balance.window_start, first)
    end = now if balance.window_end is None else min(now, balance.window_end)
    step = next((step for step in _STEPS if (end - start) / step < MAX_POINTS), _STEPS[-1])
    with connection.cursor() as cursor:
        cursor.execute(_COURSE, [step // SECOND, EPOCH, balance.id, now])
        moved = cursor.fetchall()
    points: list[BurnPoint] = []
    used = 0
    for begin, amount in moved:
        if not points:
            points.append(BurnPoint(begin, 0))
        elif points[-1].at < begin:
            points.append(BurnPoint(begin, used))
        used += int(amount)
        points.append(BurnPoint(min(begin + step, now), used))
    if points and points[-1].at < end:
        points.append(BurnPoint(end, used))
    return points
