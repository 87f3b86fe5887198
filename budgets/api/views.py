"""The API of budgets and the ledger: parse, call one domain function, serialize."""

# ruff: noqa: ARG002 -- DRF hands every action its request and key

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet
from django.http import Http404
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from budgets import queries
from budgets.api import adjustments, filters, rates
from budgets.api import serializers as forms
from budgets.api.fields import errors_by_field
from budgets.api.rerate import RatingSerializer
from budgets.domain.archive import find_event
from budgets.domain.budgets import archive_budget, change_budget, create_budget
from budgets.domain.changes import cancel_change, plan_change
from budgets.domain.overrides import clear_override, set_override
from budgets.domain.prices import set_own_price
from budgets.domain.ratings import with_charges
from budgets.domain.suspense import correct_spent, write_off_lease
from budgets.enums import ChangeKind
from budgets.errors import UsageEventArchivedError
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
from budgets.queries.owners import names_of
from budgets.queries.spending import GROUPINGS, Spend
from controlplane.api import CursorPagination
from controlplane.idempotency import idempotent
from controlplane.identity.enums import Scope
from controlplane.viewsets import OrganizationViewSet

CHANGES_SHOWN = 200
LONGEST_SUMMARY = timedelta(days=400)


class _Views(OrganizationViewSet[Any]):
    """Views whose serializers turn their data into arguments: `parse` gives them whole."""

    def parse(self, kind: type[BaseSerializer[Any]], *, partial: bool = False) -> Any:
        given = kind(data=self.request.data, partial=partial)
        given.is_valid(raise_exception=True)
        return given


class _ReadViews(mixins.ListModelMixin, mixins.RetrieveModelMixin, _Views):
    pass


class ByStart(CursorPagination):
    ordering: Any = ("-started_at", "-id")


class BySequence(CursorPagination):
    ordering: Any = "-sequence"


class ByInstant(CursorPagination):
    ordering: Any = ("-at", "-id")


class ByReceipt(CursorPagination):
    ordering: Any = ("-received_at", "-id")


class BudgetViews(_ReadViews):
    """Budgets. Archived ones are listed with `archived=true`."""

    queryset = Budget.objects.all()
    serializer_class = forms.BudgetSerializer
    filterset_class = filters.BudgetFilter
    write_scope = Scope.BUDGETS_WRITE.value

    def get_queryset(self) -> QuerySet[Budget]:
        rows = super().get_queryset()
        if self.action == "list" and "archived" not in self.request.query_params:
            rows = rows.filter(archived_at__isnull=True)
        return rows

    @extend_schema(request=forms.NewBudgetSerializer, responses={201: forms.BudgetSerializer})
    @idempotent
    def create(self, request: Request) -> Response:
        """Make a budget."""
        given = self.parse(forms.NewBudgetSerializer)
        with errors_by_field():
            budget = create_budget(
                organization_id=self.caller.organization_id,
                spec=given.to_spec(),
                actor=self.caller.actor,
                now=timezone.now(),
                reason=given.validated_data["reason"],
            )
        return Response(forms.BudgetSerializer(budget).data, status=201)

    @extend_schema(request=forms.BudgetChangeSerializer, responses=forms.BudgetSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        """Change a budget's name, limit, mode, hold mode or number of split values."""
        given = self.parse(forms.BudgetChangeSerializer)
        budget = self.get_object()
        with errors_by_field():
            budget = change_budget(
                organization_id=self.caller.organization_id,
                budget_id=budget.id,
                changes=given.changes(budget),
                actor=self.caller.actor,
                now=timezone.now(),
                reason=given.validated_data["reason"],
            )
        return Response(forms.BudgetSerializer(budget).data)

    @extend_schema(request=forms.ArchiveSerializer, responses=forms.BudgetSerializer)
    @action(detail=True, methods=["post"])
    @idempotent
    def archive(self, request: Request, pk: str) -> Response:
        """End a budget. Its ledger stays."""
        given = self.parse(forms.ArchiveSerializer)
        with errors_by_field():
            budget = archive_budget(
                organization_id=self.caller.organization_id,
                budget_id=self.get_object().id,
                actor=self.caller.actor,
                now=timezone.now(),
                reason=given.validated_data["reason"],
            )
        return Response(forms.BudgetSerializer(budget).data)

    @extend_schema(responses=adjustments.ChangeSerializer(many=True))
    @action(detail=True, methods=["get"], filterset_class=None, pagination_class=None)
    def changes(self, request: Request, pk: str) -> Response:
        """Planned changes of the limit, the latest first: to come, holding, done, cancelled."""
        rows = self.get_object().changes.select_related("budget").order_by("-starts_at", "-id")
        return Response(adjustments.ChangeSerializer(rows[:CHANGES_SHOWN], many=True).data)

    @extend_schema(
        request=adjustments.NewChangeSerializer, responses={201: adjustments.ChangeSerializer}
    )
    @changes.mapping.post
    @idempotent
    def plan(self, request: Request, pk: str) -> Response:
        """Plan a new limit from an instant on, or an increase for a while."""
        given, budget = self.parse(adjustments.NewChangeSerializer), self.get_object()
        values = given.validated_data
        with errors_by_field():
            change = plan_change(
                organization_id=self.caller.organization_id,
                budget_id=budget.id,
                kind=ChangeKind(values["kind"]),
                amount=given.amount_of(budget),
                starts_at=values.get("starts_at"),
                ends_at=values.get("ends_at"),
                actor=self.caller.actor,
                reason=values["reason"],
                now=timezone.now(),
            )
        return Response(adjustments.ChangeSerializer(change).data, status=201)

    @extend_schema(
        request=adjustments.CancelSerializer,
        responses=adjustments.ChangeSerializer,
        parameters=[OpenApiParameter("change_id", OpenApiTypes.UUID, "path")],
    )
    @action(detail=True, methods=["post"], url_path="changes/(?P<change_id>[0-9a-f-]{36})/cancel")
    @idempotent
    def cancel(self, request: Request, pk: str, change_id: str) -> Response:
        """Cancel a change that is to come, or end an increase before its time."""
        budget = self.get_object()
        change = get_object_or_404(budget.changes.all(), pk=change_id)
        cancelled = cancel_change(
            organization_id=self.caller.organization_id,
            change_id=change.id,
            actor=self.caller.actor,
            now=timezone.now(),
            reason=self.parse(adjustments.CancelSerializer).validated_data["reason"],
        )
        return Response(adjustments.ChangeSerializer(cancelled).data)

    @extend_schema(responses=adjustments.OverrideSerializer(many=True))
    @action(detail=True, methods=["get"], filterset_class=None, pagination_class=None)
    def overrides(self, request: Request, pk: str) -> Response:
        """The split values with a limit of their own, by value."""
        rows = self.get_object().overrides.select_related("budget").order_by("value")
        return Response(adjustments.OverrideSerializer(rows, many=True).data)

    @extend_schema(
        request=adjustments.NewOverrideSerializer, responses=adjustments.OverrideSerializer
    )
    @overrides.mapping.put
    def set_override(self, request: Request, pk: str) -> Response:
        """Give one split value a limit of its own. Agents, teams and projects by id or slug."""
        given, budget = self.parse(adjustments.NewOverrideSerializer), self.get_object()
        with errors_by_field():
            override = set_override(
                organization_id=self.caller.organization_id,
                budget_id=budget.id,
                value=given.validated_data["value"],
                limit_amount=given.limit_amount(budget),
                actor=self.caller.actor,
                now=timezone.now(),
                reason=given.validated_data["reason"],
            )
        return Response(adjustments.OverrideSerializer(override).data)

    @extend_schema(
        parameters=[adjustments.OverrideValueSerializer], responses={204: None}, request=None
    )
    @overrides.mapping.delete
    def clear_override(self, request: Request, pk: str) -> Response:
        """Let a split value have its budget's limit again."""
        given = adjustments.OverrideValueSerializer(data=request.query_params.dict())
        given.is_valid(raise_exception=True)
        with errors_by_field():
            clear_override(
                organization_id=self.caller.organization_id,
                budget_id=get_object_or_404(self.get_queryset(), pk=pk).id,
                value=given.validated_data["value"],
                actor=self.caller.actor,
                now=timezone.now(),
                reason=given.validated_data["reason"],
            )
        return Response(status=204)


class BalanceViews(_ReadViews):
    """Balances: one for each budget, split value and window."""

    queryset = Balance.objects.select_related("budget")
    serializer_class = forms.BalanceSerializer
    filterset_class = filters.BalanceFilter
    write_scope = Scope.BUDGETS_WRITE.value

    @extend_schema(request=forms.CorrectionSerializer, responses=forms.BalanceSerializer)
    @action(detail=True, methods=["post"])
    @idempotent
    def correct(self, request: Request, pk: str) -> Response:
        """Take back from what was spent, with a reason, when the truth is known to be less."""
        given, balance = self.parse(forms.CorrectionSerializer), self.get_object()
        corrected = correct_spent(
            organization_id=self.caller.organization_id,
            balance_id=balance.id,
            amount=given.amount(balance),
            actor=self.caller.actor,
            reason=given.validated_data["reason"],
            now=timezone.now(),
        )
        return Response(forms.BalanceSerializer(corrected).data)


class LeaseViews(_ReadViews):
    """Leases: what sidecars have of the balances."""

    queryset = Lease.objects.select_related("balance__budget")
    serializer_class = forms.LeaseSerializer
    filterset_class = filters.LeaseFilter
    write_scope = Scope.BUDGETS_WRITE.value

    @extend_schema(request=forms.WriteOffSerializer, responses=forms.LeaseSerializer)
    @action(detail=True, methods=["post"], url_path="write-off")
    @idempotent
    def write_off(self, request: Request, pk: str) -> Response:
        """Give up on a lease in suspense: what it had out counts as spent, for ever."""
        lease = write_off_lease(
            organization_id=self.caller.organization_id,
            lease_id=self.get_object().id,
            actor=self.caller.actor,
            reason=self.parse(forms.WriteOffSerializer).validated_data["reason"],
            now=timezone.now(),
        )
        return Response(forms.LeaseSerializer(lease).data)


class TransferViews(_ReadViews):
    """The ledger's journal. It is only ever appended to."""

    queryset = Transfer.objects.select_related("balance__budget")
    serializer_class = forms.TransferSerializer
    pagination_class = BySequence
    filterset_class = filters.TransferFilter


class RefusalViews(_ReadViews):
    """Refused calls, counted by kind."""

    queryset = Refusal.objects.all()
    serializer_class = forms.RefusalSerializer
    filterset_class = filters.RefusalFilter
    pagination_class = ByInstant


class RejectedEventViews(_ReadViews):
    """Usage events that cannot be true: kept aside, charged nowhere."""

    queryset = RejectedEvent.objects.all()
    serializer_class = forms.RejectedEventSerializer
    filterset_class = filters.RejectedEventFilter
    pagination_class = ByReceipt


class RatingViews(_ReadViews):
    """Recorded calls at other prices than they were charged at."""

    queryset = Rating.objects.all()
    serializer_class = RatingSerializer
    filterset_class = filters.RatingFilter
    pagination_class = ByInstant


class UsageEventViews(_ReadViews):
    """Finished and cut model calls."""

    queryset = with_charges(UsageEvent.objects.select_related("price_version__rule"))
    serializer_class = forms.UsageEventSerializer
    filterset_class = filters.UsageEventFilter
    pagination_class = ByStart

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """One call. 410 with the name of the file, when its day was archived."""
        try:
            return super().retrieve(request, *args, **kwargs)
        except Http404:
            organization = self.caller.organization_id
            found = find_event(kwargs["pk"], organization_id=organization)
            if found is None or found.archive is None:
                raise
            raise UsageEventArchivedError(
                f"it was booked, and stands in the archive {found.archive.file}"
            ) from None


class PriceVersionViews(_ReadViews):
    """The price catalogue and the organization's own rates."""

    queryset = PriceVersion.objects.all()
    serializer_class = rates.PriceVersionSerializer
    filterset_class = filters.PriceVersionFilter
    write_scope = Scope.PRICES_WRITE.value

    def get_queryset(self) -> QuerySet[PriceVersion]:
        if getattr(self, "swagger_fake_view", False):
            return PriceVersion.objects.none()
        return PriceVersion.objects.filter(
            Q(organization=None) | Q(organization_id=self.caller.organization_id)
        )

    @extend_schema(request=rates.NewPriceSerializer, responses={201: rates.PriceVersionSerializer})
    @idempotent
    def create(self, request: Request) -> Response:
        """Set an own rate. It wins over the catalogue, from now or a later instant on."""
        given = self.parse(rates.NewPriceSerializer)
        with errors_by_field():
            price = set_own_price(
                organization_id=self.caller.organization_id,
                actor=self.caller.actor,
                now=timezone.now(),
                **given.to_arguments(),
            )
        return Response(rates.PriceVersionSerializer(price).data, status=201)


class UsageSummaryViews(_Views):
    """Sums of use."""

    queryset = UsageEvent.objects.all()
    filter_backends = ()
    pagination_class = None

    @extend_schema(
        operation_id="usage_summary",
        parameters=[forms.SummaryQuerySerializer],
        responses=forms.UsageSummarySerializer,
    )
    def summary(self, request: Request) -> Response:
        """Use in a half-open time, grouped by agent, team, project, model, provider or node."""
        asked = forms.SummaryQuerySerializer(data=request.query_params.dict())
        asked.is_valid(raise_exception=True)
        since, until = _range(asked.validated_data, now=timezone.now())
        by = [name for name in asked.validated_data["group_by"].split(",") if name]
        unknown = sorted(set(by) - set(GROUPINGS))
        if unknown or not by:
            known = ", ".join(GROUPINGS)
            raise serializers.ValidationError({"group_by": [f"give one or more of: {known}"]})
        scope = {
            "organization_id": self.caller.organization_id,
            "since": since,
            "until": until,
            "agent_id": asked.validated_data.get("agent"),
        }
        groups = queries.spend_by(by=by, **scope)
        body = {
            "since": since,
            "until": until,
            "group_by": by,
            "total": queries.spend_total(**scope),
            "groups": _named(self.caller.organization_id, by, groups),
        }
        return Response(forms.UsageSummarySerializer(body).data)


def _range(data: dict[str, Any], *, now: datetime) -> tuple[datetime, datetime]:
    until = data.get("until", now)
    since = data.get("since", until - timedelta(days=1))
    if since >= until:
        raise serializers.ValidationError({"since": ["must be before until"]})
    if until - since > LONGEST_SUMMARY:
        raise serializers.ValidationError({"since": ["at most 400 days at once"]})
    return since, until


def _named(organization_id: UUID, by: list[str], groups: list[Spend]) -> list[dict[str, Any]]:
    """Groups with their keys by name, and names for the ids among them."""
    names = names_of(organization_id, by)
    found = []
    for group in groups:
        key = dict(zip(by, group.key, strict=True))
        named = {
            grouping: known[str(key[grouping])]
            for grouping, known in names.items()
            if str(key[grouping]) in known
        }
        found.append({**vars(group), "key": key, "names": named})
    return found
