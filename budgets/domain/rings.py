"""Rolling windows outside of leases: use that is booked, taken back or grows old.

The rules are `enforcement.rules.rolling`; the coordinator turns the rings of what it grants. Here a
ring never turns back: only the ledger's own clock may say that time did.
"""

from datetime import datetime

from django.db import transaction
from django.db.models import F, Q
from django.db.models.expressions import CombinedExpression

from budgets.models import Balance, Budget, Transfer
from enforcement.rules.ledger import TransferKind
from enforcement.rules.rolling import Aged, Ring, new_ring
from enforcement.rules.windows import EPOCH

FIELDS = ("spent_amount", "overrun_amount", "cap_amount", "ring_newest", "ring_spent")
RING_FIELDS = (*FIELDS, "ring_overrun", "updated_at")


def ring_of(budget: Budget, *, now: datetime) -> Ring | None:
    """An empty ring for a new balance of a rolling budget."""
    if budget.rolling_s is None:
        return None
    return new_ring(length_s=budget.rolling_s, parts=budget.rolling_parts, now_ms=_ms(now))


def count(
    balance: Balance, *, at: datetime, now: datetime, spent: int = 0, overrun: int = 0
) -> list[Transfer]:
    """Count use in a locked rolling balance. Returns the transfers of what has left its window."""
    ring = balance.ring
    if ring is None:
        raise ValueError(f"balance {balance.id} has no rolling window")
    aged = ring.turn(max(_ms(now), ring.newest * ring.bucket_ms))
    balance.spent_amount += spent
    balance.overrun_amount += overrun
    again = ring.add(ring.bucket_at(_ms(at)), spent=spent, overrun=overrun)
    return _let_go(
        balance, ring, Aged(aged.spent + again.spent, aged.overrun + again.overrun), now=now
    )


def take_back(balance: Balance, amount: int, *, now: datetime) -> list[Transfer]:
    """A correction of a locked rolling balance: its ring follows what was taken from spent."""
    ring = balance.ring
    if ring is None:
        return []
    aged = ring.turn(max(_ms(now), ring.newest * ring.bucket_ms))
    ring.take_back(amount)
    return _let_go(balance, ring, aged, now=now)


def spent_at(balance: Balance, *, at: datetime) -> int | None:
    """What a balance spent in the sub-bucket of an instant; None if that has left its window.

    Without a rolling window it is all that was spent. The ring must have been turned to now.
    """
    ring = balance.ring
    return balance.spent_amount if ring is None else ring.spent_in(ring.bucket_at(_ms(at)))


def take_back_at(balance: Balance, amount: int, *, at: datetime) -> None:
    """A correction of use at an instant that is in the window still; the cap follows (L9)."""
    ring = balance.ring
    if ring is not None:
        ring.take_back_from(ring.bucket_at(_ms(at)), amount)
        balance.ring = ring
    balance.spent_amount -= amount
    lowest = max(balance.limit_amount, balance.committed_amount)
    balance.cap_amount = min(balance.cap_amount, lowest)


@transaction.atomic
def turn_due(*, now: datetime, most: int = 500) -> int:
    """Let idle rolling windows follow the clock, so that what is shown is what counts."""
    end_ms = CombinedExpression(F("ring_newest") + 1, "*", F("ring_bucket_ms"))
    due = (
        Balance.objects.select_for_update(no_key=True, skip_locked=True)
        .filter(~Q(spent_amount=0) | ~Q(overrun_amount=0), ring_bucket_ms__isnull=False)
        .alias(end_ms=end_ms)
        .filter(end_ms__lte=_ms(now))
        .order_by("id")[:most]
    )
    turned = list(due)
    transfers = [t for balance in turned for t in count(balance, at=now, now=now)]
    Balance.objects.bulk_update(turned, RING_FIELDS)
    Transfer.objects.bulk_create(transfers)
    return len(turned)


def _let_go(balance: Balance, ring: Ring, aged: Aged, *, now: datetime) -> list[Transfer]:
    balance.ring = ring
    balance.spent_amount -= aged.spent
    balance.overrun_amount -= aged.overrun
    lowest = max(balance.limit_amount, balance.committed_amount)
    balance.cap_amount = min(balance.cap_amount, lowest) if balance.hard else lowest
    balance.updated_at = now
    return [
        Transfer(
            organization_id=balance.organization_id,
            balance=balance,
            kind=kind.value,
            amount=amount,
            at=now,
        )
        for kind, amount in (
            (TransferKind.AGE, aged.spent),
            (TransferKind.AGE_OVERRUN, aged.overrun),
        )
        if amount
    ]


def _ms(instant: datetime) -> int:
    return int((instant - EPOCH).total_seconds() * 1000)
