"""The API of session trees: what sessions gave to child sessions, and the end of one."""

# ruff: noqa: ARG002 -- DRF hands every action its request and key

from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from budgets.api.fields import AmountField
from budgets.domain.delegations import end_delegation
from budgets.models import Delegation
from controlplane.api import CursorPagination, caller_of
from controlplane.identity.enums import Scope


class DelegationSerializer(serializers.ModelSerializer[Delegation]):
    """What a session gave to a child session of one balance."""

    parent_session = serializers.CharField(source="parent.value", read_only=True)
    child_session = serializers.CharField(source="child.value", read_only=True)
    amount = AmountField("amount")
    home = AmountField("home_amount")
    spent = AmountField("spent_amount")

    class Meta:
        model = Delegation
        fields = [
            "id",
            "handle",
            "budget",
            "parent_session",
            "child_session",
            "parent_agent",
            "child_agent",
            "depth",
            "amount",
            "home",
            "spent",
            "state",
            "created_at",
            "expires_at",
            "closed_at",
        ]
        read_only_fields = fields


class ByCreation(CursorPagination):
    ordering: Any = ("-created_at", "-id")


class DelegationViews(mixins.ListModelMixin, mixins.RetrieveModelMixin, GenericViewSet[Any]):
    """Session trees, the latest first."""

    queryset = Delegation.objects.select_related("budget", "parent", "child")
    serializer_class = DelegationSerializer
    pagination_class = ByCreation
    filterset_fields = ("budget", "handle", "state")
    write_scope = Scope.BUDGETS_WRITE.value

    def get_queryset(self) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset()
        if getattr(self, "swagger_fake_view", False):
            return rows
        return rows.filter(organization_id=caller_of(self.request).organization_id)

    @extend_schema(request=None, responses=DelegationSerializer)
    @action(detail=True, methods=["post"])
    def end(self, request: Request, pk: str) -> Response:
        """End the child session: it gets nothing more, and what it has left goes home."""
        row = self.get_object()
        end_delegation(
            organization_id=row.organization_id,
            handle=row.handle,
            agent_id=None,
            now=timezone.now(),
        )
        return Response(DelegationSerializer(self.get_object()).data)
