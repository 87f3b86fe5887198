"""The API of session trees: what sessions gave to child sessions, and the end of one."""

# ruff: noqa: ARG002 -- DRF hands every action its request and key

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from budgets.api.fields import AmountField
from budgets.domain.delegations import end_delegation
from budgets.models import Delegation
from controlplane.api import CursorPagination
from controlplane.identity.enums import Scope
from controlplane.viewsets import OrganizationViewSet


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


class DelegationViews(mixins.ListModelMixin, mixins.RetrieveModelMixin, OrganizationViewSet[Any]):
    """Session trees, the latest first."""

    queryset = Delegation.objects.select_related("budget", "parent", "child")
    serializer_class = DelegationSerializer
    pagination_class = ByCreation
    filterset_fields = ("budget", "handle", "state")
    write_scope = Scope.BUDGETS_WRITE.value

    @extend_schema(request=None, responses=DelegationSerializer)
    @action(detail=True, methods=["post"])
    def end(self, request: Request, pk: str) -> Response:
        """End the child session: it gets nothing more, and what it has left goes home."""
        row = self.get_object()
        end_delegation(
            organization_id=row.organization_id,
            handle=row.handle,
            agent_id=None,
            now=self.now,
        )
        return Response(DelegationSerializer(self.get_object()).data)
