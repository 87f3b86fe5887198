"""Today's figures of an organization, exact to the last event."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Count, F, Q, Sum

from budgets.enums import LIVE_LEASE_STATES
from budgets.models import Balance, Lease, Rating, Refusal, UsageEvent
from controlplane.identity.models import Organization
from enforcement.rules.policy import Unit, WindowSpec
from enforcement.rules.windows import window_at
from enforcement.rules.wire import Outcome

STOPPED = [Outcome.CUT.value, Outcome.CLAMPED.value, Outcome.KILLED.value]


@dataclass(frozen=True)
class Today:
    """What happened since the organization's midnight."""

    since: datetime
    charge_nanos: int
    calls: int
    tokens: int
    cut: int
    refused: int

    @property
    def stopped(self) -> int:
        return self.cut + self.refused


def day_start(organization: Organization, *, now: datetime) -> datetime:
    """The organization's last midnight."""
    spec = WindowSpec(kind="calendar", period="day", time_zone=organization.time_zone)
    return window_at(spec, now)[0]


def today(organization: Organization, *, now: datetime) -> Today:
    since = day_start(organization, now=now)
    used = UsageEvent.objects.filter(
        organization=organization, started_at__gte=since, started_at__lte=now
    ).aggregate(
        charge=Sum("charge_nanos", default=0),
        calls=Count("id"),
        tokens=Sum(F("input_tokens") + F("output_tokens"), default=0),
        cut=Count("id", filter=Q(outcome__in=STOPPED)),
    )
    refused = Refusal.objects.filter(
        organization=organization, at__gte=since, at__lte=now
    ).aggregate(count=Sum("count", default=0))
    rated = Rating.objects.filter(
        organization=organization, started_at__gte=since, started_at__lte=now
    ).aggregate(delta=Sum(F("charge_nanos") - F("old_charge_nanos"), default=0))
    return Today(
        since=since,
        charge_nanos=int(used["charge"]) + int(rated["delta"]),
        calls=used["calls"],
        tokens=int(used["tokens"]),
        cut=used["cut"],
        refused=int(refused["count"]),
    )


@dataclass(frozen=True)
class Held:
    """Dollars that running requests and idle leases keep out of budgets, and what is in suspense.

    One call holds on every budget that it matches, so levels are not added up: of each scope the
    budget with the most, then the level of ownership with the most.
    """

    nanos: int
    suspense_nanos: int
    leases: int


def held_now(organization: Organization) -> Held:
    rows = (
        Balance.objects.filter(organization=organization, budget__unit=Unit.USD)
        .filter(Q(held_amount__gt=0) | Q(suspense_amount__gt=0))
        .values("budget__scope_kind", "budget__scope_id", "budget_id")
        .annotate(held=Sum("held_amount"), suspense=Sum("suspense_amount"))
    )
    held: dict[str, dict[UUID, int]] = defaultdict(dict)
    suspense: dict[str, dict[UUID, int]] = defaultdict(dict)
    for row in rows:
        kind, scope = row["budget__scope_kind"], row["budget__scope_id"]
        held[kind][scope] = max(held[kind].get(scope, 0), int(row["held"]))
        suspense[kind][scope] = max(suspense[kind].get(scope, 0), int(row["suspense"]))
    leases = Lease.objects.filter(organization=organization, state__in=LIVE_LEASE_STATES)
    return Held(
        nanos=max((sum(scopes.values()) for scopes in held.values()), default=0),
        suspense_nanos=max((sum(scopes.values()) for scopes in suspense.values()), default=0),
        leases=leases.count(),
    )
