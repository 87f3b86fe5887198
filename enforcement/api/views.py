"""The API of orders, sidecars and their books: parse, call one domain function, serialize."""

# ruff: noqa: ARG002 -- DRF hands every action its request and key

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework import mixins
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.api import CursorPagination
from controlplane.idempotency import idempotent
from controlplane.identity.api.serializers import ReasonSerializer
from controlplane.identity.enums import Scope
from controlplane.viewsets import OrganizationViewSet
from enforcement.api import serializers as forms
from enforcement.domain.enrolment import enrol_sidecar, revoke_sidecar
from enforcement.domain.orders import order_agent, order_session
from enforcement.domain.spools import waive_spool
from enforcement.models import Order, Sidecar, Spool
from enforcement.queries import exposures
from enforcement.rules.policy import OrderKind


class AgentOrderViews(OrganizationViewSet[Order]):
    """Orders to one agent. The answer comes when the order is durable and on its way."""

    queryset = Order.objects.all()
    serializer_class = forms.OrderReceiptSerializer
    pagination_class = None
    filterset_fields = ()
    write_scope = Scope.KILL.value

    @extend_schema(
        operation_id="agents_kill",
        request=forms.StopSerializer,
        responses={201: forms.OrderReceiptSerializer},
    )
    @idempotent
    def kill(self, request: Request, agent_id: UUID) -> Response:
        """Cut every running stream of the agent (or of one session of it) and refuse its calls."""
        return self._order(agent_id, OrderKind.KILL, forms.StopSerializer)

    @extend_schema(
        operation_id="agents_pause",
        request=forms.StopSerializer,
        responses={201: forms.OrderReceiptSerializer},
    )
    @idempotent
    def pause(self, request: Request, agent_id: UUID) -> Response:
        """Stop the agent (or one session of it) until it is resumed; running streams are cut."""
        return self._order(agent_id, OrderKind.PAUSE, forms.StopSerializer)

    @extend_schema(
        operation_id="agents_throttle",
        request=forms.OrderReasonSerializer,
        responses={201: forms.OrderReceiptSerializer},
    )
    @idempotent
    def throttle(self, request: Request, agent_id: UUID) -> Response:
        """Slow the agent down until it is resumed."""
        return self._order(agent_id, OrderKind.THROTTLE)

    @extend_schema(
        operation_id="agents_resume",
        request=forms.ResumeSerializer,
        responses={201: forms.OrderReceiptSerializer},
    )
    @idempotent
    def resume(self, request: Request, agent_id: UUID) -> Response:
        """Let the agent call again, within its budgets."""
        return self._order(agent_id, OrderKind.RESUME, forms.ResumeSerializer)

    def _order(
        self,
        agent_id: UUID,
        kind: OrderKind,
        form: type[forms.OrderReasonSerializer] = forms.OrderReasonSerializer,
    ) -> Response:
        given = self.parse(form)
        send = order_session if "session" in given else order_agent
        order = send(agent_id=agent_id, kind=kind, **given, **self.who)
        return Response(forms.OrderReceiptSerializer(order).data, status=201)


class ByCursor(CursorPagination):
    ordering: Any = "-cursor"


class OrderViews(mixins.ListModelMixin, mixins.RetrieveModelMixin, OrganizationViewSet[Order]):
    """Orders; one alone also tells who has acknowledged it."""

    queryset = Order.objects.all()
    serializer_class = forms.OrderSerializer
    pagination_class = ByCursor
    filterset_fields = {
        "kind": ["exact"],
        "scope_id": ["exact"],
        "scope_session": ["exact"],
        "created_at": ["gte", "lt"],
    }

    @extend_schema(responses=forms.OrderReceiptSerializer)
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """An order with its receipts: streams cut, tokens after it came, time to the last byte."""
        return Response(forms.OrderReceiptSerializer(self.get_object()).data)


class SidecarViews(mixins.ListModelMixin, mixins.RetrieveModelMixin, OrganizationViewSet[Sidecar]):
    """Sidecars. Their tokens are shown once, on enrolment."""

    queryset = Sidecar.objects.select_related("token")
    serializer_class = forms.SidecarSerializer
    filterset_fields = {"name": ["exact"], "token__revoked_at": ["isnull"]}
    write_scope = Scope.NODES_WRITE.value

    @extend_schema(
        request=forms.SidecarEnrolSerializer, responses={201: forms.EnrolledSidecarSerializer}
    )
    @idempotent
    def create(self, request: Request) -> Response:
        """Enrol a sidecar. Its token is in this answer and nowhere else."""
        name = self.parse(forms.SidecarEnrolSerializer)["name"]
        enrolled = enrol_sidecar(name=name, **self.who)
        shown = forms.SidecarSerializer(enrolled.sidecar).data
        return Response({**shown, "secret": enrolled.secret}, status=201)

    @extend_schema(request=ReasonSerializer, responses=forms.SidecarSerializer)
    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, pk: UUID) -> Response:
        """Take its token away: within a second it can neither spend nor report."""
        reason = self.parse(ReasonSerializer)["reason"]
        sidecar = revoke_sidecar(sidecar_id=pk, reason=reason, **self.who)
        sidecar.refresh_from_db()
        return Response(forms.SidecarSerializer(sidecar).data)


class SpoolViews(mixins.ListModelMixin, mixins.RetrieveModelMixin, OrganizationViewSet[Spool]):
    """Books of sidecars, with the exact amounts that are out at each."""

    queryset = Spool.objects.select_related("sidecar")
    serializer_class = forms.SpoolSerializer
    filterset_fields = {"sidecar": ["exact"], "last_sync_at": ["gte", "lt"]}
    write_scope = Scope.NODES_WRITE.value

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Books, the youngest first."""
        books = self.paginate_queryset(self.filter_queryset(self.get_queryset())) or []
        return self.get_paginated_response(self._shown(books))

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """One book."""
        return Response(self._shown([self.get_object()])[0])

    @extend_schema(request=ReasonSerializer, responses=forms.SpoolSerializer)
    @action(detail=True, methods=["post"])
    def waive(self, request: Request, pk: str) -> Response:
        """After a failover: do not wait for this book, which will not come back."""
        given = self.parse(ReasonSerializer)
        book = waive_spool(spool_id=self.get_object().pk, reason=given["reason"], **self.who)
        return Response(self._shown([book])[0])

    def _shown(self, books: Sequence[Spool]) -> Any:
        context = {"exposures": exposures([book.pk for book in books])}
        return forms.SpoolSerializer(books, many=True, context=context).data
