"""What the API says and takes of charging recorded calls again."""

# ruff: noqa: ARG002 -- DRF hands every action its request

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from budgets.api.fields import errors_by_field
from budgets.domain.rerate import Rerating, Wish, preview, rerate
from budgets.models import Balance, Rating
from controlplane.api import StrictSerializer, UsdField
from controlplane.idempotency import idempotent
from controlplane.identity.enums import Scope
from controlplane.viewsets import OrganizationViewSet

MOST_CALLS = 10_000  # in one request: all of them are one transaction


class RerateSerializer(StrictSerializer):
    """Which calls, and whether to book: without `apply` it is only told what would be."""

    model = serializers.CharField(max_length=200, help_text="exact, or with a * at its end")
    provider = serializers.CharField(max_length=64, default="", allow_blank=True)
    since = serializers.DateTimeField(help_text="calls that began then or later")
    until = serializers.DateTimeField(help_text="and before this instant")
    price_version = serializers.UUIDField(
        required=False, help_text="default: the version that is valid now for each call's model"
    )
    apply = serializers.BooleanField(default=False)
    reason = serializers.CharField(max_length=300, default="", allow_blank=True)


class RatedModelSerializer(serializers.Serializer[Any]):
    model = serializers.CharField()
    calls = serializers.IntegerField()
    old_charge = UsdField(source="old_nanos")
    new_charge = UsdField(source="new_nanos")
    delta = UsdField(source="delta_nanos")


class RatedBalanceSerializer(serializers.Serializer[Any]):
    balance = serializers.UUIDField(allow_null=True, help_text="null: it would be made")
    budget = serializers.UUIDField()
    name = serializers.CharField()
    value = serializers.CharField()
    window_start = serializers.DateTimeField()
    calls = serializers.IntegerField()
    spent = UsdField(source="spent_nanos")
    overrun = UsdField(source="overrun_nanos")


class ReratingSerializer(serializers.Serializer[Any]):
    """Differences: what costs less is below zero. `left_out` names some of the calls left alone."""

    applied = serializers.BooleanField()
    calls = serializers.IntegerField()
    rated = serializers.IntegerField()
    unchanged = serializers.IntegerField()
    unpriced = serializers.IntegerField()
    contradictory = serializers.IntegerField()
    short = serializers.IntegerField()
    left_out = serializers.ListField(child=serializers.UUIDField())
    old_charge = UsdField()
    new_charge = UsdField()
    delta = UsdField()
    models = RatedModelSerializer(many=True)
    balances = RatedBalanceSerializer(many=True)


class RatingSerializer(serializers.ModelSerializer[Rating]):
    """A call's charge at another price. The last one of a call says what it costs now."""

    old_charge = UsdField(source="old_charge_nanos", read_only=True)
    charge = UsdField(source="charge_nanos", read_only=True)

    class Meta:
        model = Rating
        fields = [
            "id",
            "usage_event",
            "number",
            "started_at",
            "old_price_version",
            "price_version",
            "old_charge",
            "charge",
            "at",
            "actor",
            "reason",
        ]
        read_only_fields = fields


class RerateViews(OrganizationViewSet[Rating]):
    """Recorded calls at other prices."""

    queryset = Rating.objects.all()
    write_scope = Scope.PRICES_WRITE.value

    @extend_schema(
        operation_id="usage_rerate", request=RerateSerializer, responses=ReratingSerializer
    )
    @idempotent
    def rerate(self, request: Request) -> Response:
        """Charge recorded calls again at the prices of now, and book the differences."""
        given = self.parse(RerateSerializer)
        booked, reason = given.pop("apply"), given.pop("reason")
        wish = Wish(organization_id=self.caller.organization_id, **given)
        with errors_by_field():
            if booked:
                result = rerate(
                    wish,
                    actor=self.caller.actor,
                    reason=reason,
                    now=self.now,
                    batch=MOST_CALLS,
                    most=MOST_CALLS,
                )
            else:
                result = preview(wish, now=self.now, most=MOST_CALLS)
        return Response(ReratingSerializer(told(result, applied=booked)).data)


def told(result: Rerating, *, applied: bool) -> dict[str, Any]:
    """A run as API, command and page show it: models and balances by what they cost more."""
    rows = Balance.objects.select_related("budget").in_bulk(list(result.balances))
    planned = {one: rows.get(one) or result.planned[one] for one in result.balances}
    balances = [
        {
            "balance": balance_id if balance_id in rows else None,
            "budget": planned[balance_id].budget_id,
            "name": planned[balance_id].budget.name,
            "value": planned[balance_id].value,
            "window_start": planned[balance_id].window_start,
            **vars(change),
        }
        for balance_id, change in result.balances.items()
    ]
    models = [
        {"model": model, "delta_nanos": change.delta_nanos, **vars(change)}
        for model, change in result.models.items()
    ]
    return {
        "applied": applied,
        "calls": result.calls,
        "rated": result.total.calls,
        "unchanged": result.unchanged,
        "unpriced": result.unpriced,
        "contradictory": result.contradictory,
        "short": result.short,
        "left_out": result.left_out,
        "old_charge": result.total.old_nanos,
        "new_charge": result.total.new_nanos,
        "delta": result.total.delta_nanos,
        "models": sorted(models, key=lambda row: (-abs(row["delta_nanos"]), row["model"])),
        "balances": sorted(
            balances,
            key=lambda row: (-abs(row["spent_nanos"] + row["overrun_nanos"]), row["name"]),
        ),
    }
