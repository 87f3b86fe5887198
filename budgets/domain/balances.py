"""Open and lock balances, and bring a changed limit to them."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from django.db import connection
from django.db.models import Q

from budgets.domain.rings import ring_of
from budgets.enums import LIMIT_TRANSFER
from budgets.models import Balance, Budget, BudgetOverride, Transfer
from controlplane.audit.domain import Actor
from enforcement.rules.policy import Mode, Unit
from enforcement.rules.splits import OTHER_VALUE, is_counted

_FIND = """
SELECT b.* FROM budgets_balance b
JOIN unnest(%s::uuid[], %s::text[], %s::timestamptz[]) AS k(budget, value, start)
    ON (b.budget_id, b.value, b.window_start) = (k.budget, k.value, k.start)
"""
_FIND_AND_LOCK = _FIND + "ORDER BY b.id FOR NO KEY UPDATE OF b"


class BalanceKey(NamedTuple):
    """Which balance: a budget, a split value, the start of a window."""

    budget_id: UUID
    value: str
    window_start: datetime


Windows = Mapping[BalanceKey, datetime | None]  # the end of each window


def new_balance(
    budget: Budget,
    key: BalanceKey,
    *,
    end: datetime | None,
    now: datetime,
    limit: int | None = None,
) -> Balance:
    """An empty balance, not saved; `limit` is its own where it differs from the budget's."""
    amount = (budget.limit_amount if limit is None else limit) + budget.increase_amount
    balance = Balance(
        organization_id=budget.organization_id,
        budget_id=budget.id,
        value=key.value,
        window_start=key.window_start,
        window_end=end,
        hard=budget.mode == Mode.HARD,
        lends=budget.unit == Unit.CONCURRENCY,
        limit_amount=amount,
        cap_amount=amount,
        updated_at=now,
    )
    ring = ring_of(budget, now=now)
    if ring is not None:
        balance.ring = ring
    return balance


def own_limits(budgets: Collection[UUID]) -> dict[tuple[UUID, str], int]:
    """The limits of split values that differ from their budget's."""
    rows = BudgetOverride.objects.filter(budget_id__in=budgets)
    return {
        (budget_id, value): limit
        for budget_id, value, limit in rows.values_list("budget_id", "value", "limit_amount")
    }


def open_balances(
    *, budgets: Mapping[UUID, Budget], windows: Windows, now: datetime
) -> dict[BalanceKey, Balance]:
    """Make the balances that are missing, lock all by id, and return them by what was asked.

    A split value beyond its budget's `max_values` gets the shared balance of the others.
    """
    known = {_key(balance) for balance in find_balances(windows)}
    missing = sorted(key for key in windows if key not in known)
    standins = _standins(budgets, missing)
    fresh = sorted({standins.get(key, key) for key in missing} - known)
    ends = {standins.get(key, key): end for key, end in windows.items()}
    limits = own_limits({key.budget_id for key in fresh if key.value})
    Balance.objects.bulk_create(
        [
            new_balance(
                budgets[key.budget_id],
                key,
                end=ends[key],
                now=now,
                limit=limits.get((key.budget_id, key.value)),
            )
            for key in fresh
        ],
        ignore_conflicts=True,
    )
    locked = {_key(balance): balance for balance in find_balances(ends, lock=True)}
    return {key: locked[standins.get(key, key)] for key in windows}


def find_balances(keys: Collection[BalanceKey], *, lock: bool = False) -> Iterable[Balance]:
    """The balances that are there of those asked for; `lock`: locked, in the order of ids."""
    if not keys:
        return []
    budgets, values, starts = zip(*keys, strict=True)
    return Balance.objects.raw(
        _FIND_AND_LOCK if lock else _FIND, [list(budgets), list(values), list(starts)]
    )


def _standins(
    budgets: Mapping[UUID, Budget], missing: Iterable[BalanceKey]
) -> dict[BalanceKey, BalanceKey]:
    """For new split values of budgets that are full: the key of the shared balance."""
    split = [key for key in missing if is_counted(key.value)]
    counts: dict[tuple[UUID, datetime], int] = {}
    standins = {}
    for key in split:
        place = (key.budget_id, key.window_start)
        if place not in counts:
            counts[place] = Balance.objects.filter(
                ~Q(value=OTHER_VALUE), budget_id=key.budget_id, window_start=key.window_start
            ).count()
        counts[place] += 1
        if counts[place] > budgets[key.budget_id].max_values:
            standins[key] = BalanceKey(key.budget_id, OTHER_VALUE, key.window_start)
    return standins


def _key(balance: Balance) -> BalanceKey:
    return BalanceKey(balance.budget_id, balance.value, balance.window_start)


def add_amounts(changes: Mapping[UUID, tuple[int, int]], *, now: datetime) -> None:
    """Add (spent, overrun) to locked balances, in one statement."""
    if not changes:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE budgets_balance b SET spent_amount = b.spent_amount + c.spent,"
            " overrun_amount = b.overrun_amount + c.overrun, updated_at = %s"
            " FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[]) AS c(id, spent, overrun)"
            " WHERE b.id = c.id",
            [
                now,
                list(changes),
                [spent for spent, _ in changes.values()],
                [overrun for _, overrun in changes.values()],
            ],
        )


def apply_limit(
    budget: Budget, *, actor: Actor, now: datetime, reason: str, value: str | None = None
) -> None:
    """Bring limits and mode to the balances whose window has not ended; of one value, if given.

    The cap becomes the greater of the limit and what is committed, and falls from there (L9).
    """
    open_ones = Balance.objects.filter(budget=budget, closed_at__isnull=True, delegated=False)
    current = open_ones.filter(Q(window_end__isnull=True) | Q(window_end__gt=now))
    if value is not None:
        current = current.filter(value=value)
    locked = list(current.select_for_update(no_key=True).order_by("id"))
    limits = own_limits([budget.id])
    changed = []
    for balance in locked:
        limit = limits.get((budget.id, balance.value), budget.limit_amount)
        limit += budget.increase_amount + balance.carried_amount + balance.approved_amount
        if limit != balance.limit_amount:
            changed.append(balance)
        balance.limit_amount, balance.hard = limit, budget.mode == Mode.HARD
        balance.cap_amount = max(limit, balance.committed_amount)
        balance.updated_at = now
    Balance.objects.bulk_update(
        locked, ["limit_amount", "hard", "cap_amount", "updated_at"], batch_size=1_000
    )
    Transfer.objects.bulk_create(
        Transfer(
            organization_id=budget.organization_id,
            balance=balance,
            kind=LIMIT_TRANSFER,
            amount=balance.limit_amount,
            at=now,
            actor=actor.label,
            reason=reason,
        )
        for balance in changed
    )
