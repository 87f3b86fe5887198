"""Use that a new budget finds already there."""

from datetime import datetime

from django.db.models import CharField, Count, F, Sum, Value
from django.db.models.functions import Cast

from budgets.domain.balances import OTHER_VALUE, BalanceKey, new_balance
from budgets.domain.usage import IDLE_FAILURE
from budgets.enums import WindowKind
from budgets.models import Balance, Budget, Transfer, UsageEvent
from controlplane.audit.domain import Actor
from enforcement.rules.ledger import TransferKind
from enforcement.rules.policy import Per, ScopeKind, Unit
from enforcement.rules.windows import window_at

_SCOPE_FIELDS = {
    ScopeKind.TEAM: "team_id",
    ScopeKind.PROJECT: "project_id",
    ScopeKind.AGENT: "agent_id",
}
REASON = "used in this window before the budget was made"


def book_earlier_use(budget: Budget, *, actor: Actor, now: datetime) -> None:
    """Open a new budget's balances with what was used since the current window's start.

    What is above the limit is spent all the same: the cap is what was committed before (L9).
    Call it under `lock_budgets`, in the transaction that makes the budget.
    """
    if budget.window_kind == WindowKind.LIFETIME:
        return
    start, end = window_at(budget.window, now)
    balances, transfers = [], []
    for value, used in _used_since(budget, start=start).items():
        balance = new_balance(budget, BalanceKey(budget.id, value, start), end=end, now=now)
        balance.spent_amount = used
        balance.cap_amount = max(budget.limit_amount, used)
        balances.append(balance)
        transfers.append(
            Transfer(
                organization_id=budget.organization_id,
                balance=balance,
                kind=TransferKind.USAGE.value,
                amount=used,
                at=now,
                actor=actor.label,
                reason=REASON,
            )
        )
    Balance.objects.bulk_create(balances)
    Transfer.objects.bulk_create(transfers)


def _used_since(budget: Budget, *, start: datetime) -> dict[str, int]:
    """What was used of each split value; those beyond `max_values` are one."""
    events = UsageEvent.objects.filter(
        organization_id=budget.organization_id, started_at__gte=start
    )
    if budget.scope_kind != ScopeKind.ORGANIZATION:
        events = events.filter(**{_SCOPE_FIELDS[ScopeKind(budget.scope_kind)]: budget.scope_id})
    split = {
        Per.NONE: Value(""),
        Per.AGENT: Cast("agent_id", CharField()),
        Per.SESSION: F("session"),
    }[Per(budget.per)]
    use = {
        Unit.USD: Sum("charge_nanos"),
        Unit.TOKENS: Sum(F("input_tokens") + F("output_tokens")),
        Unit.REQUESTS: Count("id", filter=~IDLE_FAILURE),
    }[Unit(budget.unit)]
    rows = events.annotate(split=split).values_list("split").annotate(used=use).order_by("-used")
    used: dict[str, int] = {}
    for value, amount in rows:
        place = value if len(used) < budget.max_values else OTHER_VALUE
        if amount:
            used[place] = used.get(place, 0) + int(amount)
    return used
