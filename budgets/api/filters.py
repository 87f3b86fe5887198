"""Filters of the lists."""

from datetime import datetime
from typing import Any

from django.db.models import Q, QuerySet
from django.utils import timezone
from django_filters import rest_framework as filters

from budgets.models import (
    Balance,
    Budget,
    Lease,
    PriceVersion,
    Rating,
    Refusal,
    RejectedEvent,
    Transfer,
    UsageEvent,
)
from controlplane.api import StrictFilterSet


class Filters(StrictFilterSet):
    """Base of our filters: references by id alone, so that foreign ids are as unknown as none."""


class BudgetFilter(Filters):
    archived = filters.BooleanFilter(method="by_archived", help_text="default: false")

    class Meta:
        model = Budget
        fields = ["scope_kind", "scope_id", "per", "unit", "mode", "state", "name"]

    def by_archived(self, rows: QuerySet[Budget], _name: str, value: bool) -> QuerySet[Budget]:
        return rows.filter(archived_at__isnull=not value)


class BalanceFilter(Filters):
    current = filters.BooleanFilter(method="by_current", help_text="the window holds this moment")

    class Meta:
        model = Balance
        fields = ["budget", "value", "hard"]

    def by_current(self, rows: QuerySet[Balance], _name: str, value: bool) -> QuerySet[Balance]:
        now = timezone.now()
        current = Q(window_start__lte=now) & (Q(window_end=None) | Q(window_end__gt=now))
        return rows.filter(current if value else ~current)


class LeaseFilter(Filters):
    budget = filters.UUIDFilter(field_name="balance__budget")

    class Meta:
        model = Lease
        fields = ["balance", "spool", "state", "group_key"]


class TransferFilter(Filters):
    budget = filters.UUIDFilter(field_name="balance__budget")
    since = filters.IsoDateTimeFilter(field_name="at", lookup_expr="gte")
    until = filters.IsoDateTimeFilter(field_name="at", lookup_expr="lt")

    class Meta:
        model = Transfer
        fields = ["balance", "lease", "usage_event", "kind"]


class UsageEventFilter(Filters):
    since = filters.IsoDateTimeFilter(field_name="started_at", lookup_expr="gte")
    until = filters.IsoDateTimeFilter(field_name="started_at", lookup_expr="lt")

    class Meta:
        model = UsageEvent
        fields = [
            "agent",
            "team",
            "project",
            "session",
            "user",
            "model",
            "provider",
            "node",
            "outcome",
            "source",
            "presumed",
            "estimated",
        ]


class RejectedEventFilter(Filters):
    since = filters.IsoDateTimeFilter(field_name="received_at", lookup_expr="gte")
    until = filters.IsoDateTimeFilter(field_name="received_at", lookup_expr="lt")

    class Meta:
        model = RejectedEvent
        fields = ["sidecar", "spool", "event"]


class RatingFilter(Filters):
    since = filters.IsoDateTimeFilter(field_name="started_at", lookup_expr="gte")
    until = filters.IsoDateTimeFilter(field_name="started_at", lookup_expr="lt")

    class Meta:
        model = Rating
        fields = ["usage_event", "price_version"]


class RefusalFilter(Filters):
    since = filters.IsoDateTimeFilter(field_name="at", lookup_expr="gte")
    until = filters.IsoDateTimeFilter(field_name="at", lookup_expr="lt")

    class Meta:
        model = Refusal
        fields = ["agent", "model", "budget", "code"]


class PriceVersionFilter(Filters):
    valid_at = filters.IsoDateTimeFilter(method="by_validity")

    class Meta:
        model = PriceVersion
        fields = ["provider", "model", "match", "own", "source"]

    def by_validity(
        self, rows: QuerySet[PriceVersion], _name: str, value: datetime
    ) -> QuerySet[PriceVersion]:
        valid: Any = Q(valid_from__lte=value) & (Q(valid_to=None) | Q(valid_to__gt=value))
        return rows.filter(valid)
