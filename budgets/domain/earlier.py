"""Use that a new budget finds already there."""

from copy import deepcopy
from datetime import datetime, timedelta

from django.db.models import BigIntegerField, CharField, Count, F, Q, Sum, Value
from django.db.models.expressions import Combinable
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast, Coalesce, Extract, Floor

from budgets.domain.balances import BalanceKey, new_balance
from budgets.domain.charging import IDLE_FAILURE
from budgets.domain.ratings import with_charges
from budgets.domain.rings import ring_of
from budgets.enums import WindowKind
from budgets.models import Balance, Budget, Transfer, UsageEvent
from controlplane.audit.domain import Actor
from enforcement.rules.ledger import TransferKind
from enforcement.rules.matching import TAG
from enforcement.rules.policy import Per, ScopeKind, Unit
from enforcement.rules.rolling import Ring
from enforcement.rules.splits import OTHER_VALUE
from enforcement.rules.windows import EPOCH, window_at

_SCOPE_FIELDS = {
    ScopeKind.TEAM: "team_id",
    ScopeKind.PROJECT: "project_id",
    ScopeKind.AGENT: "agent_id",
    ScopeKind.SESSION: "agent_id",
}
_USE = {
    Unit.USD: Sum("current_nanos"),
    Unit.TOKENS: Sum(F("input_tokens") + F("output_tokens")),
    Unit.INPUT_TOKENS: Sum("input_tokens"),
    Unit.OUTPUT_TOKENS: Sum("output_tokens"),
    Unit.CACHED_TOKENS: Sum("cached_input_tokens"),
    Unit.REASONING_TOKENS: Sum("reasoning_tokens"),
    Unit.REQUESTS: Count("id", filter=~IDLE_FAILURE),
    Unit.GPU_MS: Sum("gpu_ms"),
    Unit.TOOL_CALLS: Sum("tool_calls"),
}
REASON = "used in this window before the budget was made"


def book_earlier_use(budget: Budget, *, actor: Actor, now: datetime) -> None:
    """Open a new budget's balances with what was used since the current window's start.

    What is above the limit is spent all the same: the cap is what was committed before (L9).
    Call it under `lock_budgets`, in the transaction that makes the budget.
    """
    if budget.window_kind in (WindowKind.LIFETIME, WindowKind.UNTIL):
        return
    start, end = window_at(budget.window, now)
    ring = ring_of(budget, now=now)
    counted = _counted_from(ring) if ring else start
    balances, transfers = [], []
    for value, parts in _used_since(budget, start=counted, ring=ring).items():
        used = sum(parts.values())
        balance = new_balance(budget, BalanceKey(budget.id, value, start), end=end, now=now)
        balance.spent_amount = used
        balance.cap_amount = max(balance.limit_amount, used)
        if ring is not None:
            own = deepcopy(ring)
            for bucket, amount in parts.items():
                own.add(bucket, spent=amount)
            balance.ring = own
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


def _counted_from(ring: Ring) -> datetime:
    """The beginning of the oldest sub-bucket of a ring."""
    oldest = ring.newest - len(ring.spent) + 1
    return EPOCH + timedelta(milliseconds=oldest * ring.bucket_ms)


def _used_since(budget: Budget, *, start: datetime, ring: Ring | None) -> dict[str, dict[int, int]]:
    """What was used of each split value, by sub-bucket; values beyond `max_values` are one."""
    events = UsageEvent.objects.filter(
        organization_id=budget.organization_id, started_at__gte=start
    )
    if budget.scope_kind != ScopeKind.ORGANIZATION:
        events = events.filter(**{_SCOPE_FIELDS[ScopeKind(budget.scope_kind)]: budget.scope_id})
    if budget.scope_kind == ScopeKind.SESSION:
        events = events.filter(session=budget.scope_session)
    for number, (fact, patterns) in enumerate(budget.filters.items()):
        name = f"fact_{number}"
        events = events.alias(**{name: _fact(fact)}).filter(_fits(name, patterns))
    rows = (
        with_charges(events)
        .annotate(split=_fact(budget.per), bucket=_bucket(ring))
        .values_list("split", "bucket")
        .annotate(used=Cast(_USE[Unit(budget.unit)], BigIntegerField()))
        .order_by("-used")
    )
    used: dict[str, dict[int, int]] = {}
    for value, bucket, amount in rows:
        known = value in used or len(used) < budget.max_values
        parts = used.setdefault(value if known else OTHER_VALUE, {}) if amount else {}
        parts[bucket] = parts.get(bucket, 0) + int(amount or 0)
    return used


def _bucket(ring: Ring | None) -> Combinable:
    """The sub-bucket of an event, as SQL; all are one where nothing rolls."""
    if ring is None:
        return Value(0)
    at_s = Extract("started_at", "epoch")
    return Cast(Floor(at_s * 1000 / Value(ring.bucket_ms)), BigIntegerField())


def _fact(name: str) -> Combinable:
    """A fact of an event by the name that filters and splits give it, as SQL."""
    if not name:
        return Value("")
    if name.startswith(TAG):
        tag = KeyTextTransform(name.removeprefix(TAG), "tags")
        return Coalesce(tag, Value(""), output_field=CharField())
    if name in (Per.TEAM, Per.PROJECT, Per.AGENT):
        return Coalesce(Cast(f"{name}_id", CharField()), Value(""))
    return F(name)


def _fits(name: str, patterns: list[str]) -> Q:
    """As `matching.fits` for any of the patterns."""
    found = Q()
    for pattern in patterns:
        prefix = pattern.endswith("*")
        found |= Q(**{f"{name}__startswith" if prefix else name: pattern.removesuffix("*")})
    return found & ~Q(**{name: ""})
