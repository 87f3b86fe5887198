"""Rules of prices over the API: aliases and negotiated discounts."""

# ruff: noqa: ARG002 -- DRF hands every action its request and key

from decimal import Decimal
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from budgets.api.fields import errors_by_field
from budgets.domain.pricerules import MOST_CHARS, end_rule, set_rule
from budgets.enums import PriceMatch, PriceRuleKind
from budgets.models import PriceRule
from controlplane.api import CursorPagination, StrictSerializer
from controlplane.idempotency import idempotent
from controlplane.identity.enums import Scope
from controlplane.viewsets import OrganizationViewSet

PER_MILLE_OF_PERCENT = 10


class PriceRuleSerializer(serializers.ModelSerializer[PriceRule]):
    """`says` is the rule as people read it."""

    percent = serializers.SerializerMethodField()
    says = serializers.CharField(source="__str__", read_only=True)

    class Meta:
        model = PriceRule
        fields = [
            "id",
            "kind",
            "provider",
            "model",
            "match",
            "target_provider",
            "target_model",
            "percent",
            "says",
            "valid_from",
            "valid_to",
            "reason",
        ]
        read_only_fields = fields

    @extend_schema_field(OpenApiTypes.STR)
    def get_percent(self, rule: PriceRule) -> str:
        return str(Decimal(rule.off_per_mille) / PER_MILLE_OF_PERCENT)


class NewPriceRuleSerializer(StrictSerializer):
    """An alias has a target, a discount a percentage: a decimal string, in tenths at the finest."""

    kind = serializers.ChoiceField(choices=PriceRuleKind.choices)
    provider = serializers.CharField(
        max_length=MOST_CHARS["provider"], default="", allow_blank=True
    )
    model = serializers.CharField(max_length=MOST_CHARS["model"], default="", allow_blank=True)
    match = serializers.ChoiceField(choices=PriceMatch.choices, default=PriceMatch.EXACT)
    target_provider = serializers.CharField(
        max_length=MOST_CHARS["target_provider"], default="", allow_blank=True
    )
    target_model = serializers.CharField(
        max_length=MOST_CHARS["target_model"], default="", allow_blank=True
    )
    percent = serializers.DecimalField(max_digits=4, decimal_places=1, default=Decimal(0))
    valid_from = serializers.DateTimeField(required=False)
    valid_to = serializers.DateTimeField(required=False)
    reason = serializers.CharField(max_length=500, default="", allow_blank=True)

    def to_arguments(self) -> dict[str, Any]:
        data = dict(self.validated_data)
        percent = data.pop("percent")
        return data | {
            "kind": PriceRuleKind(data["kind"]),
            "match": PriceMatch(data["match"]),
            "off_per_mille": int(percent * PER_MILLE_OF_PERCENT),
        }


class EndSerializer(StrictSerializer):
    reason = serializers.CharField(max_length=500, default="", allow_blank=True)


class ByBeginning(CursorPagination):
    ordering: Any = ("-valid_from", "-id")


class PriceRuleViews(
    mixins.ListModelMixin, mixins.RetrieveModelMixin, OrganizationViewSet[PriceRule]
):
    """Aliases and discounts: rates that follow from others."""

    queryset = PriceRule.objects.all()
    serializer_class = PriceRuleSerializer
    pagination_class = ByBeginning
    write_scope = Scope.PRICES_WRITE.value

    @extend_schema(request=NewPriceRuleSerializer, responses={201: PriceRuleSerializer})
    @idempotent
    def create(self, request: Request) -> Response:
        """Let rates follow from others, from now or a later instant on."""
        given = NewPriceRuleSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        with errors_by_field():
            rule = set_rule(**self.who, **given.to_arguments())
        return Response(PriceRuleSerializer(rule).data, status=201)

    @extend_schema(request=EndSerializer, responses=PriceRuleSerializer)
    @action(detail=True, methods=["post"])
    @idempotent
    def end(self, request: Request, pk: Any = None) -> Response:
        """End a rule now; what it priced keeps its price."""
        data = self.parse(EndSerializer)
        rule = end_rule(**self.who, rule_id=pk, reason=data["reason"])
        return Response(PriceRuleSerializer(rule).data)
