"""The API of reached thresholds, questions to people, and what people are told."""

# ruff: noqa: ARG002 -- DRF hands every action its request and key

from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from budgets.api.fields import AmountField, GivenAmountField, errors_by_field
from budgets.api.serializers import given_amount
from budgets.domain.approvals import approve, deny_approval
from budgets.domain.notifications import mark_seen
from budgets.domain.thresholds import lift_firing
from budgets.models import ApprovalRequest, Notification, ThresholdFiring
from controlplane.api import CursorPagination, StrictSerializer
from controlplane.identity.enums import Scope
from controlplane.viewsets import OrganizationViewSet


class FiringSerializer(serializers.ModelSerializer[ThresholdFiring]):
    """A threshold that a balance has reached. Its measures hold until it is armed or lifted."""

    value = serializers.CharField(source="balance.value", read_only=True)
    used = AmountField("used_amount")
    limit = AmountField("limit_amount")
    actions = serializers.SerializerMethodField()

    class Meta:
        model = ThresholdFiring
        fields = [
            "id",
            "budget",
            "balance",
            "value",
            "percent",
            "basis",
            "actions",
            "used",
            "limit",
            "fired_at",
            "lifted_at",
            "lifted_by",
            "rearmed_at",
        ]
        read_only_fields = fields

    @extend_schema_field(serializers.ListField(child=serializers.DictField()))
    def get_actions(self, firing: ThresholdFiring) -> list[dict[str, Any]]:
        return list(firing.actions)


class ApprovalSerializer(serializers.ModelSerializer[ApprovalRequest]):
    """A question: may this balance have so much more in its window?"""

    value = serializers.CharField(source="balance.value", read_only=True)
    amount = AmountField("amount")

    class Meta:
        model = ApprovalRequest
        fields = [
            "id",
            "budget",
            "balance",
            "value",
            "amount",
            "reason",
            "state",
            "asked_at",
            "decided_at",
            "decided_by",
            "decision",
        ]
        read_only_fields = fields


class NotificationSerializer(serializers.ModelSerializer[Notification]):
    class Meta:
        model = Notification
        fields = ["id", "budget", "title", "body", "created_at", "seen_at", "seen_by"]
        read_only_fields = fields


class LiftSerializer(StrictSerializer):
    reason = serializers.CharField(max_length=500)


class ApproveSerializer(StrictSerializer):
    amount = GivenAmountField(required=False, help_text="default: what was asked for")
    reason = serializers.CharField(max_length=500)


class DenySerializer(StrictSerializer):
    reason = serializers.CharField(max_length=500)


class SeenSerializer(serializers.Serializer[Any]):
    seen = serializers.IntegerField(help_text="how many were new")


class _AlertViews(mixins.ListModelMixin, mixins.RetrieveModelMixin, OrganizationViewSet[Any]):
    write_scope = Scope.BUDGETS_WRITE.value


class ByFiring(CursorPagination):
    ordering: Any = ("-fired_at", "-id")


class ByAsking(CursorPagination):
    ordering: Any = ("-asked_at", "-id")


class ByCreation(CursorPagination):
    ordering: Any = ("-created_at", "-id")


class FiringViews(_AlertViews):
    """Thresholds that were reached, the latest first."""

    queryset = ThresholdFiring.objects.select_related("budget", "balance")
    serializer_class = FiringSerializer
    pagination_class = ByFiring
    filterset_fields = ("budget", "basis")

    @extend_schema(request=LiftSerializer, responses=FiringSerializer)
    @action(detail=True, methods=["post"])
    def lift(self, request: Request, pk: str) -> Response:
        """End what it does to calls. It acts again only after it was armed again."""
        given = self.parse(LiftSerializer)
        with errors_by_field():
            firing = lift_firing(firing_id=self.get_object().id, reason=given["reason"], **self.who)
        return Response(FiringSerializer(firing).data)


class ApprovalViews(_AlertViews):
    """Questions to people, the latest first."""

    queryset = ApprovalRequest.objects.select_related("budget", "balance")
    serializer_class = ApprovalSerializer
    pagination_class = ByAsking
    filterset_fields = ("budget", "state")

    @extend_schema(request=ApproveSerializer, responses=ApprovalSerializer)
    @action(detail=True, methods=["post"])
    def approve(self, request: Request, pk: str) -> Response:
        """Raise the limit of its balance, for the balance's window."""
        given, asked = self.parse(ApproveSerializer), self.get_object()
        amount = given.get("amount")
        if amount is not None:
            amount = given_amount(asked.budget.unit, "amount", amount)
        with errors_by_field():
            decided = approve(
                approval_id=asked.id, amount=amount, reason=given["reason"], **self.who
            )
        return Response(ApprovalSerializer(decided).data)

    @extend_schema(request=DenySerializer, responses=ApprovalSerializer)
    @action(detail=True, methods=["post"])
    def deny(self, request: Request, pk: str) -> Response:
        """Give nothing."""
        given = self.parse(DenySerializer)
        with errors_by_field():
            decided = deny_approval(
                approval_id=self.get_object().id, reason=given["reason"], **self.who
            )
        return Response(ApprovalSerializer(decided).data)


class NotificationViews(_AlertViews):
    """What people were told, the latest first."""

    queryset = Notification.objects.all()
    serializer_class = NotificationSerializer
    pagination_class = ByCreation
    filterset_fields = ("budget",)

    @extend_schema(request=None, responses=SeenSerializer)
    @action(detail=True, methods=["post"])
    def seen(self, request: Request, pk: str) -> Response:
        """Somebody has seen it."""
        count = mark_seen(notification_id=self.get_object().id, **self.who)
        return Response({"seen": count})
