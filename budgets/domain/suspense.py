"""The last ways out of suspense, and corrections of what was spent (L6).

Suspense is what an expired lease had out and nobody has accounted for. Its own spool settles it; if
that never comes back, it is written off as spent: a day after its window ended by itself, before
that or in a lifetime window by a person with a reason. Nothing here refunds by itself.
"""

from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Q

from budgets.domain.rings import RING_FIELDS, count, take_back
from budgets.errors import CorrectionError, LeaseNotFoundError, LeaseNotSuspendedError
from budgets.models import Balance, Lease, Transfer
from controlplane.audit.domain import Actor, record
from enforcement.rules.ledger import LeaseState, TransferKind

PATIENCE = timedelta(hours=24)  # after the end of a window
PERMITS_BACK = "the longest request that may have held them has ended"
BY_ITSELF = "nobody accounted for it within a day after its window"


@transaction.atomic
def write_off_due(*, now: datetime, most: int = 500) -> int:
    """Write off leases that are in suspense a day after their window ended. How many it were."""
    due = Lease.objects.filter(
        Q(balance__window_end__lte=now - PATIENCE)
        | Q(balance__ring_bucket_ms__isnull=False, expires_at__lte=now - PATIENCE),
        state=LeaseState.SUSPENDED.value,
    ).order_by("id")[:most]
    places = dict(due.values_list("id", "balance_id"))
    return len(_write_off(places, now=now, actor="", reason=BY_ITSELF))


@transaction.atomic
def free_permits_due(*, now: datetime, longest: timedelta, most: int = 500) -> int:
    """Free permits whose holder died so long ago that its requests must have ended. How many.

    The only place where time frees: a permit that is free too early costs load, not money.
    """
    due = Lease.objects.filter(
        state=LeaseState.SUSPENDED.value, balance__lends=True, expires_at__lte=now - longest
    ).order_by("id")[:most]
    places = dict(due.values_list("id", "balance_id"))
    return len(_write_off(places, now=now, actor="", reason=PERMITS_BACK))


@transaction.atomic
def write_off_lease(
    *, organization_id: UUID, lease_id: UUID, actor: Actor, reason: str, now: datetime
) -> Lease:
    """A person gives up on a lease in suspense: what it had out counts as spent, for ever.

    Permits are never spent: they are free again.

    Raises:
        LeaseNotFoundError: the organization has no such lease.
        LeaseNotSuspendedError: it is live, or closed already.
        CorrectionError: no reason is given.
    """
    _need_reason(reason)
    lease = Lease.objects.filter(organization_id=organization_id, id=lease_id).first()
    if lease is None:
        raise LeaseNotFoundError(f"no lease {lease_id}")
    written = _write_off({lease.id: lease.balance_id}, now=now, actor=actor.label, reason=reason)
    if not written:
        raise LeaseNotSuspendedError(f"lease {lease_id} is {lease.state}, not suspended")
    record(
        organization_id=organization_id,
        actor=actor,
        action="lease.write_off",
        object_kind="lease",
        object_id=str(lease_id),
        reason=reason,
        before={"state": lease.state, "suspense": lease.rest_amount},
        after={"state": LeaseState.WRITTEN_OFF.value, "spent": lease.rest_amount},
        now=now,
    )
    return written[0]


@transaction.atomic
def correct_spent(
    *,
    organization_id: UUID,
    balance_id: UUID,
    amount: int,
    actor: Actor,
    reason: str,
    now: datetime,
) -> Balance:
    """Take back from what a balance has spent, as when the engine's own usage shows less.

    Raises:
        CorrectionError: nothing to take back, more than was spent, or no reason.
    """
    _need_reason(reason)
    balance = (
        Balance.objects.select_for_update(no_key=True)
        .filter(organization_id=organization_id, id=balance_id)
        .first()
    )
    if balance is None:
        raise CorrectionError("no such balance")
    if not 0 < amount <= balance.spent_amount:
        raise CorrectionError(f"between 1 and {balance.spent_amount} can be taken back")
    before = balance.spent_amount
    balance.spent_amount -= amount
    aged = take_back(balance, amount, now=now)
    balance.cap_amount = min(
        balance.cap_amount, max(balance.limit_amount, balance.committed_amount)
    )
    balance.updated_at = now
    balance.save(update_fields=RING_FIELDS)
    Transfer.objects.bulk_create(aged)
    Transfer.objects.create(
        organization_id=organization_id,
        balance=balance,
        kind=TransferKind.CORRECTION.value,
        amount=amount,
        at=now,
        actor=actor.label,
        reason=reason,
    )
    record(
        organization_id=organization_id,
        actor=actor,
        action="balance.correct",
        object_kind="balance",
        object_id=str(balance_id),
        reason=reason,
        before={"spent_amount": before},
        after={"spent_amount": balance.spent_amount},
        now=now,
    )
    return balance


def _need_reason(reason: str) -> None:
    if not reason.strip():
        raise CorrectionError("say why")


def _write_off(places: dict[UUID, UUID], *, now: datetime, actor: str, reason: str) -> list[Lease]:
    """Lock balances by id, then leases by id; write off what is in suspense still."""
    balances = {
        balance.id: balance
        for balance in Balance.objects.select_for_update(no_key=True)
        .filter(id__in=set(places.values()))
        .order_by("id")
    }
    leases = list(
        Lease.objects.select_for_update(no_key=True)
        .filter(id__in=places, state=LeaseState.SUSPENDED.value)
        .order_by("id")
    )
    transfers = [
        transfer
        for lease in leases
        for transfer in _closed(
            lease, balances[lease.balance_id], now=now, actor=actor, reason=reason
        )
    ]
    Lease.objects.bulk_update(
        leases, ["used_amount", "returned_amount", "open_amount", "state", "closed_at"]
    )
    Balance.objects.bulk_update(balances.values(), ["suspense_amount", *RING_FIELDS])
    Transfer.objects.bulk_create(transfer for transfer in transfers if transfer.amount)
    return leases


def _closed(
    lease: Lease, balance: Balance, *, now: datetime, actor: str, reason: str
) -> list[Transfer]:
    """Close one locked lease and move what it had out; the transfers are not saved yet."""
    rest = lease.rest_amount
    balance.suspense_amount -= rest
    aged: list[Transfer] = []
    if balance.lends:
        kind, state = TransferKind.LATE_RELEASE, LeaseState.SETTLED
        lease.returned_amount += rest
    else:
        kind, state = TransferKind.WRITE_OFF, LeaseState.WRITTEN_OFF
        lease.used_amount += rest
        if balance.ring is None:
            balance.spent_amount += rest
        else:  # a lease ends with its sub-bucket
            within = lease.expires_at - timedelta(milliseconds=1)
            aged = count(balance, at=within, now=now, spent=rest)
    balance.updated_at = now
    lease.open_amount = 0
    lease.state, lease.closed_at = state.value, now
    moved = Transfer(
        organization_id=lease.organization_id,
        balance=balance,
        lease=lease,
        kind=kind.value,
        amount=rest,
        at=now,
        actor=actor,
        reason=reason,
    )
    return [moved, *aged]
