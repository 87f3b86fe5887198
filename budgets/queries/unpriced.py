"""Models that nobody has priced: refused, charged nothing, or held by the alias of every name."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Max, Q, QuerySet, Sum

from budgets.enums import PriceMatch, PriceRuleKind
from budgets.models import PriceVersion, Refusal, UsageEvent
from controlplane.identity.models import Organization

LOOKED_BACK = timedelta(days=1)
REFUSED = "unpriced_model"
MOST_SHOWN = 20


@dataclass
class Unpriced:
    """Calls of one model without a price of its own, in the last day."""

    model: str
    at: datetime
    refused: int = 0
    free: int = 0  # went through and were charged nothing
    free_tokens: int = 0
    held: int = 0  # paid what the alias of every name says

    @property
    def calls(self) -> int:
        return self.refused + self.free + self.held


def unpriced_models(organization: Organization, *, now: datetime) -> list[Unpriced]:
    """The most wanted first: those that cost money nobody counts, then the refused ones."""
    found: dict[str, Unpriced] = {}
    since = now - LOOKED_BACK
    for kind, rows in (
        ("refused", _refused(organization, since)),
        ("free", _free(organization, since)),
        ("held", _held(organization, since)),
    ):
        for row in rows:
            one = found.setdefault(row["model"], Unpriced(row["model"], row["last"]))
            setattr(one, kind, row["calls"])
            one.free_tokens += row.get("tokens") or 0
            one.at = max(one.at, row["last"])
    ranked = sorted(found.values(), key=lambda one: (-one.free, -one.calls, one.model))
    return ranked[:MOST_SHOWN]


def unpriced_calls(*, now: datetime) -> dict[str, int]:
    """Calls of the whole installation in the last day: refused for want of a price, or free."""
    since = now - LOOKED_BACK
    everyone = list(Organization.objects.values_list("id", flat=True))
    refused = _refusals(since).filter(organization__in=everyone).aggregate(n=Sum("count"))["n"]
    free = _free_calls(since).filter(organization__in=everyone).count()
    return {"refused": refused or 0, "free": free}


def _refusals(since: datetime) -> QuerySet[Refusal]:
    return Refusal.objects.filter(at__gte=since, code=REFUSED)


def _free_calls(since: datetime) -> QuerySet[UsageEvent]:
    """By the partial index of calls without a price."""
    made = Q(input_tokens__gt=0) | Q(output_tokens__gt=0)
    return UsageEvent.objects.filter(made, started_at__gte=since, price_version=None)


def _refused(organization: Organization, since: datetime) -> Iterable[Mapping[str, Any]]:
    rows = _refusals(since).filter(organization=organization).exclude(model="")
    return rows.values("model").annotate(calls=Sum("count"), last=Max("at"))


def _free(organization: Organization, since: datetime) -> Iterable[Mapping[str, Any]]:
    rows = _free_calls(since).filter(organization=organization).values("model")
    tokens = Sum("input_tokens") + Sum("output_tokens")
    return rows.annotate(calls=Count("id"), tokens=tokens, last=Max("started_at"))


def _held(organization: Organization, since: datetime) -> Iterable[Mapping[str, Any]]:
    fallbacks = PriceVersion.objects.filter(
        organization=organization,
        rule__kind=PriceRuleKind.ALIAS,
        model="",
        match=PriceMatch.PREFIX,
    ).values_list("id", flat=True)
    rows = UsageEvent.objects.filter(
        organization=organization, started_at__gte=since, price_version__in=list(fallbacks)
    )
    return rows.values("model").annotate(calls=Count("id"), last=Max("started_at"))
