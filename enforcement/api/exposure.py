"""`GET /api/v1/budgets/{id}/exposure`: what of a budget is out, with whom, and the bound."""

from typing import Any
from uuid import UUID

from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.generics import GenericAPIView, get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response

from budgets.api.fields import AMOUNT_SCHEMA, amount_out
from budgets.api.serializers import BalanceSerializer
from budgets.models import Budget
from controlplane.api import StrictSerializer, caller_of
from enforcement.domain.exposure import (
    Assumptions,
    BalanceExposure,
    BudgetExposure,
    Holder,
    budget_exposure,
)
from enforcement.rules.money import usd_text


class AssumptionsSerializer(StrictSerializer):
    """What the bound of a metered budget takes for granted of engines (docs/guarantees.md)."""

    tokens_per_second = serializers.IntegerField(min_value=1, max_value=1_000_000, default=200)
    stop_ms = serializers.IntegerField(min_value=0, max_value=600_000, default=100)
    chunk_tokens = serializers.IntegerField(min_value=0, max_value=10_000, default=1)
    margin_tokens = serializers.IntegerField(min_value=0, max_value=1_000_000, default=64)


@extend_schema_field(AMOUNT_SCHEMA)
class _LeaseAmount(serializers.Field[Any, Any, Any, Any]):
    """An amount of a holder's lease, in the budget's unit."""

    def __init__(self, column: str) -> None:
        self.column = column
        super().__init__(read_only=True, source="*")

    def to_representation(self, value: Holder) -> str | int:
        unit = value.lease.balance.budget.unit
        return amount_out(unit, getattr(value.lease, self.column))


class HolderSerializer(serializers.Serializer[Holder]):
    """One live lease. `open` is what running calls hold of it."""

    lease = serializers.UUIDField(source="lease.id")
    sidecar = serializers.CharField()
    book = serializers.CharField()
    state = serializers.CharField(source="lease.state")
    amount = _LeaseAmount("amount")
    used = _LeaseAmount("used_amount")
    open = _LeaseAmount("open_amount")
    granted_at = serializers.DateTimeField(source="lease.granted_at")
    expires_at = serializers.DateTimeField(source="lease.expires_at")


class BalanceExposureSerializer(serializers.Serializer[BalanceExposure]):
    balance = BalanceSerializer()
    holders = HolderSerializer(many=True)


class BudgetExposureSerializer(serializers.Serializer[BudgetExposure]):
    """`past_cap` is the published bound: 0 when strict, null where no limit is enforced."""

    budget = serializers.UUIDField(source="budget.id")
    mode = serializers.CharField(source="budget.mode")
    hold_mode = serializers.CharField(source="budget.hold_mode")
    past_cap = serializers.SerializerMethodField()
    running_streams = serializers.IntegerField()
    assumptions = AssumptionsSerializer()
    balances = BalanceExposureSerializer(many=True)

    def get_past_cap(self, found: BudgetExposure) -> str | None:
        return None if found.past_cap is None else usd_text(found.past_cap)


class ExposureView(GenericAPIView[Any]):
    """The live exposure of one budget."""

    serializer_class = BudgetExposureSerializer

    @extend_schema(parameters=[AssumptionsSerializer], responses=BudgetExposureSerializer)
    def get(self, request: Request, budget_id: UUID) -> Response:
        """What is held and in suspense, with whom, until when; and the worst case past the cap."""
        given = AssumptionsSerializer(data=request.query_params.dict())
        given.is_valid(raise_exception=True)
        rows = Budget.objects.filter(organization_id=caller_of(request).organization_id)
        budget = get_object_or_404(rows.select_related("organization"), pk=budget_id)
        taken = Assumptions(**given.validated_data)
        found = budget_exposure(budget, now=timezone.now(), assumptions=taken)
        return Response(BudgetExposureSerializer(found).data)
