"""The API of serving nodes: their counters, and what went past the sidecars."""

# ruff: noqa: ARG002 -- DRF hands every action its request and key

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.urls import path
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter

from controlplane.api import CursorPagination, StrictSerializer, UsdField
from controlplane.idempotency import idempotent
from controlplane.identity.api.serializers import ReasonSerializer
from controlplane.identity.domain import find
from controlplane.identity.enums import Scope
from controlplane.viewsets import OrganizationViewSet, Row
from enforcement.domain.gather import Tokens
from enforcement.domain.nodecosts import record_cost
from enforcement.domain.nodes import create_node, set_labels, set_node_state, set_patience
from enforcement.domain.unattributed import Difference, HourOfNode, by_hour, differences
from enforcement.enums import NodeState
from enforcement.models import NodeCost, NodeSample, ServingNode

LONGEST = timedelta(days=31)

# ------------------------------------------------------------------------------- what is said


class NodeSerializer(serializers.ModelSerializer[ServingNode]):
    """A serving node. `last_error` is empty while its counters can be read; `warning` says what was
    left out of them.
    """

    models = serializers.ListField(child=serializers.CharField(), read_only=True)
    labels = serializers.DictField(child=serializers.CharField(), read_only=True)
    state = serializers.ChoiceField(choices=NodeState.choices, read_only=True)

    class Meta:
        model = ServingNode
        fields = [
            "id", "name", "sidecar", "base_url", "engine", "engine_version", "provider", "models",
            "context_window", "metrics_path", "state", "labels", "by_hand", "removed_at",
            "patience_s", "created_at", "last_scraped_at", "last_error", "warning",
        ]  # fmt: skip
        read_only_fields = fields


class NodeCreateSerializer(StrictSerializer):
    name = serializers.CharField(max_length=100, help_text="As sidecars name it, if one does.")
    base_url = serializers.CharField(max_length=500)
    engine = serializers.CharField(max_length=40, default="unknown", help_text="Found out if left.")
    metrics_path = serializers.CharField(
        max_length=200, default="/metrics", allow_blank=True, help_text="Empty: it has no counters."
    )
    labels = serializers.DictField(child=serializers.CharField(max_length=200), default=dict)


class NodeLabelsSerializer(StrictSerializer):
    labels = serializers.DictField(child=serializers.CharField(allow_blank=True))
    reason = serializers.CharField(max_length=500, default="", allow_blank=True)


class NodePatienceSerializer(StrictSerializer):
    patience_s = serializers.IntegerField(help_text="0: its silence is a failure at once.")
    reason = serializers.CharField(max_length=500, default="", allow_blank=True)


class NodeSampleSerializer(serializers.ModelSerializer[NodeSample]):
    """One reading of a node's totals; `epoch` rises when the engine began anew."""

    extra = serializers.DictField(read_only=True)

    class Meta:
        model = NodeSample
        fields = [
            "at", "epoch", "prompt_tokens_total", "cached_tokens_total", "generation_tokens_total",
            "requests_running", "requests_waiting", "extra",
        ]  # fmt: skip
        read_only_fields = fields


class NodeCostSerializer(serializers.ModelSerializer[NodeCost]):
    """What a node costs by the hour from `valid_from` on. Of two with the same date the later
    recorded one holds.
    """

    cost_per_hour = UsdField(source="cost_per_hour_nanos", read_only=True)

    class Meta:
        model = NodeCost
        fields = [
            "valid_from", "cost_per_hour", "accelerator", "accelerator_count", "watts",
            "reason", "recorded_by", "recorded_at",
        ]  # fmt: skip
        read_only_fields = fields


class NodeCostCreateSerializer(StrictSerializer):
    cost_per_hour = UsdField(source="cost_per_hour_nanos", help_text="Idle hours included.")
    valid_from = serializers.DateTimeField(required=False, help_text="Now if left.")
    accelerator = serializers.CharField(
        max_length=100, default="", allow_blank=True, help_text="Its kind, such as NVIDIA H100."
    )
    accelerator_count = serializers.IntegerField(default=0)
    watts = serializers.IntegerField(
        default=None, allow_null=True, help_text="Of the whole node, under load."
    )
    reason = serializers.CharField(max_length=500, default="", allow_blank=True)


class TokensSerializer(serializers.Serializer[Tokens]):
    """Tokens by kind. Cached ones are part of the prompt's."""

    prompt = serializers.IntegerField()
    cached = serializers.IntegerField()
    generation = serializers.IntegerField()


class HourSerializer(serializers.Serializer[HourOfNode]):
    """One hour of a node. `incomplete`: a restart or a silence hides some of it."""

    hour = serializers.DateTimeField()
    produced = TokensSerializer()
    metered = TokensSerializer()
    incomplete = serializers.BooleanField()


class DifferenceSerializer(serializers.Serializer[Difference]):
    """What a node produced and what sidecars metered of it."""

    node = serializers.UUIDField(source="node_id")
    node_name = serializers.CharField(source="node")
    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
    produced = TokensSerializer()
    metered = TokensSerializer()
    unattributed = TokensSerializer(help_text="negative where more was metered than produced")
    cause = serializers.CharField(help_text="the likely cause in words; empty where they agree")
    incomplete = serializers.BooleanField()
    fresh_at = serializers.DateTimeField(allow_null=True, help_text="when it was read last")


class NodeDifferenceSerializer(DifferenceSerializer):
    """The same with its hours, the oldest first."""

    hours = serializers.SerializerMethodField()

    @extend_schema_field(HourSerializer(many=True))
    def get_hours(self, row: Difference) -> Any:
        return HourSerializer(self.context["hours"], many=True).data


class WindowSerializer(StrictSerializer):
    """The time that is asked for; it begins with a full hour."""

    since = serializers.DateTimeField(required=False)
    until = serializers.DateTimeField(required=False)


def window_of(request: Request, now: datetime) -> tuple[datetime, datetime]:
    """What the address asks for; the last day by default.

    Raises ValidationError: a time that makes no sense.
    """
    asked = WindowSerializer(data=request.query_params.dict())
    asked.is_valid(raise_exception=True)
    until = asked.validated_data.get("until", now)
    since = asked.validated_data.get("since", until - timedelta(days=1))
    if not since < until <= since + LONGEST:
        raise serializers.ValidationError(
            {"since": [f"before until, and at most {LONGEST.days} days"]}
        )
    return since, until


# ------------------------------------------------------------------------------- what is asked


class NodeViews(mixins.ListModelMixin, mixins.RetrieveModelMixin, OrganizationViewSet[ServingNode]):
    """Serving nodes. Sidecars register theirs; others can be entered to be watched."""

    queryset = ServingNode.objects.all()
    serializer_class = NodeSerializer
    filterset_fields = {"name": ["exact"], "state": ["exact"], "engine": ["exact"]}
    write_scope = Scope.NODES_WRITE.value

    @extend_schema(request=NodeCreateSerializer, responses={201: NodeSerializer})
    @idempotent
    def create(self, request: Request) -> Response:
        """Enter a node whose counters are to be read."""
        node = create_node(**self.parse(NodeCreateSerializer), **self.who)
        return Response(NodeSerializer(node).data, status=201)

    @extend_schema(request=NodeLabelsSerializer, responses=NodeSerializer)
    @action(detail=True, methods=["put"])
    def labels(self, request: Request, pk: UUID) -> Response:
        """Give the node these labels in place of those that it has."""
        node = set_labels(node_id=pk, **self.parse(NodeLabelsSerializer), **self.who)
        return Response(NodeSerializer(node).data)

    @extend_schema(request=NodePatienceSerializer, responses=NodeSerializer)
    @action(detail=True, methods=["put"])
    def patience(self, request: Request, pk: UUID) -> Response:
        """Say for how long it may be silent: nodes at the edge are often away."""
        node = set_patience(node_id=pk, **self.parse(NodePatienceSerializer), **self.who)
        return Response(NodeSerializer(node).data)

    @extend_schema(request=ReasonSerializer, responses=NodeSerializer)
    @action(detail=True, methods=["post"])
    def drain(self, request: Request, pk: UUID) -> Response:
        """Take it out of service: no new calls; what runs on it goes on, and it is still read."""
        return self._set(pk, NodeState.DRAINING)

    @extend_schema(request=ReasonSerializer, responses=NodeSerializer)
    @action(detail=True, methods=["post"])
    def activate(self, request: Request, pk: UUID) -> Response:
        """Take it into service again, also after it was removed."""
        return self._set(pk, NodeState.ACTIVE)

    @extend_schema(request=ReasonSerializer, responses=NodeSerializer)
    @action(detail=True, methods=["post"])
    def remove(self, request: Request, pk: UUID) -> Response:
        """Remove it: no new calls, its counters are not read any more, its history stays."""
        return self._set(pk, NodeState.GONE)

    @extend_schema(
        operation_id="nodes_unattributed_list",
        parameters=[WindowSerializer],
        responses=DifferenceSerializer(many=True),
        filters=False,
    )
    @action(detail=False, url_path="unattributed", pagination_class=None)
    def unattributed_of_all(self, request: Request) -> Response:
        """What every node produced beside what was metered of it; today's last day by default."""
        since, until = window_of(request, self.now)
        rows: Any = differences(
            organization_id=self.caller.organization_id, since=since, until=until, now=self.now
        )
        return Response(DifferenceSerializer(rows, many=True).data)

    @extend_schema(parameters=[WindowSerializer], responses=NodeDifferenceSerializer)
    @action(detail=True)
    def unattributed(self, request: Request, pk: UUID) -> Response:
        """The same of one node, with its hours."""
        since, until = window_of(request, self.now)
        organization_id = self.caller.organization_id
        node = find(ServingNode, organization_id=organization_id, object_id=pk)
        (row,) = differences(
            organization_id=organization_id, since=since, until=until, now=self.now, node_id=pk
        )
        hours = by_hour(node=node, since=since, until=until)
        return Response(NodeDifferenceSerializer(row, context={"hours": hours}).data)

    def _set(self, node_id: UUID, state: NodeState) -> Response:
        reason = self.parse(ReasonSerializer)["reason"]
        node = set_node_state(node_id=node_id, state=state, reason=reason, **self.who)
        return Response(NodeSerializer(node).data)


class OfNodeViews(mixins.ListModelMixin, OrganizationViewSet[Row]):
    """Rows that belong to the node of the address."""

    def get_queryset(self) -> QuerySet[Row]:
        rows: QuerySet[Row] = super(OrganizationViewSet, self).get_queryset()
        if getattr(self, "swagger_fake_view", False):
            return rows.none()
        node_id, organization_id = self.kwargs["node_id"], self.caller.organization_id
        node = find(ServingNode, organization_id=organization_id, object_id=node_id)
        return rows.filter(node=node)


class ByTime(CursorPagination):
    ordering: Any = "-at"


class NodeSampleViews(OfNodeViews[NodeSample]):
    """The readings of one node."""

    queryset = NodeSample.objects.all()
    serializer_class = NodeSampleSerializer
    pagination_class = ByTime
    filterset_fields = {"at": ["gte", "lt"], "epoch": ["exact"]}

    @extend_schema(operation_id="nodes_samples_list")
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Readings of the node's counters, the youngest first; kept for a week."""
        return super().list(request, *args, **kwargs)


class ByRecording(CursorPagination):
    ordering: Any = "-recorded_at"


class NodeCostViews(OfNodeViews[NodeCost]):
    """The costs of one node."""

    queryset = NodeCost.objects.all()
    serializer_class = NodeCostSerializer
    pagination_class = ByRecording
    write_scope = Scope.NODES_WRITE.value

    @extend_schema(operation_id="nodes_costs_list")
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """All that was recorded, the last first, corrected ones too."""
        return super().list(request, *args, **kwargs)

    @extend_schema(
        operation_id="nodes_costs_create",
        request=NodeCostCreateSerializer,
        responses={201: NodeCostSerializer},
    )
    @idempotent
    def create(self, request: Request, node_id: UUID) -> Response:
        """Record what the node costs from a time on; corrects an earlier row of the same date."""
        given = self.parse(NodeCostCreateSerializer)
        cost = record_cost(node_id=node_id, **given, **self.who)
        return Response(NodeCostSerializer(cost).data, status=201)


router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("nodes", NodeViews, basename="node")

urlpatterns = [
    path(
        "nodes/<uuid:node_id>/samples",
        NodeSampleViews.as_view({"get": "list"}),
        name="node-samples",
    ),
    path(
        "nodes/<uuid:node_id>/costs",
        NodeCostViews.as_view({"get": "list", "post": "create"}),
        name="node-costs",
    ),
    *router.urls,
]
