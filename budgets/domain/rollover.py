"""What a calendar window leaves goes to the next one, where its budget says so.

1. What is carried leaves the old balance (`given`) and raises the limit of the new one (`carried`),
   in one transaction: it is never in both.
2. Only what is free moves. What is still held or in suspense follows when it has come home; then
   the old balance is closed.
3. A capped rollover never lets one window have more than its amount beside its own limit.
4. An unsplit budget carries through windows in which nobody used it. A split one carries for the
   values it knows.
"""

from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import F

from budgets.domain import locks
from budgets.domain.balances import BalanceKey, open_balances
from budgets.domain.incarnation import is_learning
from budgets.enums import Rollover
from budgets.models import Balance, Budget, Transfer
from enforcement.rules.ledger import TransferKind
from enforcement.rules.windows import window_after, window_at


def roll_over_due(*, now: datetime, most: int = 500) -> int:
    """Carry what ended windows left. Each balance in its own transaction; how many it were."""
    due = (
        Balance.objects.filter(
            budget__archived_at__isnull=True,
            window_end__lte=now,
            closed_at__isnull=True,
        )
        .exclude(budget__rollover=Rollover.NONE)
        .order_by("window_end", "id")
    )
    places = list(due.values_list("organization_id", "id")[:most])
    return sum(_roll(*place, now=now) for place in places)


def begin_rollover(budget: Budget, *, now: datetime) -> None:
    """Let the window of now be the first that is carried: what ended before stays as it is.

    The current balance of an unsplit budget is opened, so that an idle window is carried too. Call
    it in the transaction that makes the budget or sets its rollover.
    """
    if budget.rollover == Rollover.NONE:
        return
    Balance.objects.filter(budget=budget, window_end__lte=now, closed_at__isnull=True).update(
        closed_at=now
    )
    if budget.per:
        return
    start, end = window_at(budget.window, now)
    open_balances(
        budgets={budget.id: budget}, windows={BalanceKey(budget.id, "", start): end}, now=now
    )


@transaction.atomic
def _roll(organization_id: UUID, balance_id: UUID, *, now: datetime) -> bool:
    locks.share_budgets(organization_id)
    if is_learning(organization_id):
        return False  # what looks free may be leased
    place = Balance.objects.select_related("budget").get(id=balance_id)
    budget = place.budget
    coming = window_after(budget.window, (place.window_start, place.window_end))
    if coming is None:
        return False
    old_key = BalanceKey(budget.id, place.value, place.window_start)
    new_key = BalanceKey(budget.id, place.value, coming[0])
    rows = open_balances(
        budgets={budget.id: budget},
        windows={old_key: place.window_end, new_key: coming[1]},
        now=now,
    )
    old, new = rows[old_key], rows[new_key]
    if old.closed_at is not None or budget.rollover == Rollover.NONE:
        return False
    amount = _carried(budget, old, new)
    if amount:
        _carry(old, new, amount, now=now)
    if not old.held_amount and not old.suspense_amount:
        old.closed_at = now
    old.save(update_fields=["given_amount", "closed_at", "updated_at"])
    return bool(amount) or old.closed_at is not None


def _carried(budget: Budget, old: Balance, new: Balance) -> int:
    """How much of an old balance may still go on to the new one."""
    free = max(0, old.free_amount)
    if budget.rollover == Rollover.ALL:
        return free
    return min(free, max(0, (budget.rollover_amount or 0) - new.carried_amount))


def _carry(old: Balance, new: Balance, amount: int, *, now: datetime) -> None:
    old.given_amount += amount
    old.updated_at = now
    Balance.objects.filter(id=new.id).update(
        limit_amount=F("limit_amount") + amount,
        carried_amount=F("carried_amount") + amount,
        cap_amount=max(new.limit_amount + amount, new.committed_amount),
        updated_at=now,
    )
    Transfer.objects.bulk_create(
        Transfer(
            organization_id=old.organization_id,
            balance=balance,
            kind=kind.value,
            amount=amount,
            at=now,
        )
        for balance, kind in ((old, TransferKind.CARRY_OUT), (new, TransferKind.CARRY_IN))
    )
