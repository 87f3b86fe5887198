"""The API of efficiency: what serving nodes cost, what they made of it, and for whom."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter

from controlplane.api import UsdField
from controlplane.viewsets import OrganizationViewSet
from enforcement.api.nodes import TokensSerializer, WindowSerializer, window_of
from enforcement.domain.efficiency import (
    Charge,
    EnergySource,
    ModelEfficiency,
    NodeEfficiency,
    efficiency,
)
from enforcement.models import ServingNode
from enforcement.rules.efficiency import Line


class ChargeSerializer(serializers.Serializer[Charge]):
    """A part of a node's cost; the parts add up to it. Agent and model are told of agents."""

    line = serializers.ChoiceField(choices=[line.value for line in Line])
    agent = serializers.CharField()
    model = serializers.CharField()
    cost = UsdField(source="cost_nanos")
    tokens = serializers.IntegerField()


class ModelEfficiencySerializer(serializers.Serializer[ModelEfficiency]):
    """One model of a node, by what sidecars metered of it."""

    model = serializers.CharField()
    tokens = serializers.IntegerField()
    cost = UsdField(source="cost_nanos")
    tokens_per_usd = serializers.IntegerField(allow_null=True)
    per_million_tokens = UsdField(source="nanos_per_million", allow_null=True)


class NodeEfficiencySerializer(serializers.Serializer[NodeEfficiency]):
    """One node in a time; what is not known is null. Shares are thousandths."""

    node = serializers.UUIDField(source="node_id")
    node_name = serializers.CharField(source="node")
    engine = serializers.CharField()
    cost = UsdField(source="cost_nanos")
    idle_cost = UsdField(source="idle_nanos")
    unpriced_ms = serializers.IntegerField(help_text="for so long nobody had told its cost")
    produced = TokensSerializer()
    tokens_per_usd = serializers.IntegerField(allow_null=True)
    per_million_tokens = UsdField(source="nanos_per_million", allow_null=True)
    energy_millijoules = serializers.IntegerField(allow_null=True)
    energy_source = serializers.ChoiceField(choices=[source.value for source in EnergySource])
    millijoules_per_token = serializers.IntegerField(allow_null=True)
    busy_ms = serializers.IntegerField()
    idle_ms = serializers.IntegerField()
    unread_ms = serializers.IntegerField()
    busy_permille = serializers.IntegerField(allow_null=True)
    prefill_permille = serializers.IntegerField(allow_null=True)
    cached_permille = serializers.IntegerField(allow_null=True)
    milli_at_once = serializers.IntegerField(
        allow_null=True, help_text="thousandths of requests at once while it was busy"
    )
    models = ModelEfficiencySerializer(many=True)
    charges = ChargeSerializer(many=True)


class EfficiencyViews(OrganizationViewSet[Any]):
    """What serving nodes cost, and who it was for."""

    queryset = ServingNode.objects.all()
    serializer_class = NodeEfficiencySerializer
    pagination_class = None
    filterset_fields = ()

    @extend_schema(
        operation_id="efficiency_list",
        parameters=[WindowSerializer],
        responses=NodeEfficiencySerializer(many=True),
    )
    def list(self, request: Request) -> Response:
        """Every node that was read or has a cost, by name; today's last day by default."""
        since, until = window_of(request, self.now)
        rows: Any = efficiency(
            organization_id=self.caller.organization_id, since=since, until=until, now=self.now
        )
        return Response(NodeEfficiencySerializer(rows, many=True).data)


router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("efficiency", EfficiencyViews, basename="efficiency")
