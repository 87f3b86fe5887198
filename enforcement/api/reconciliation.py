"""The API of reconciliation: metered use, engine counters and provider bills beside each other."""

# ruff: noqa: ARG002 -- DRF hands every action its request and key

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter

from controlplane.api import CursorPagination, StrictSerializer, UsdField
from controlplane.identity.enums import Scope
from controlplane.viewsets import OrganizationViewSet
from enforcement.domain.bills.reading import read_bill
from enforcement.domain.bills.storing import Kept, keep_bill
from enforcement.models import BillLine, Reconciliation

MOST_CHARS = 8 * 1024 * 1024


class ReconciliationSerializer(serializers.ModelSerializer[Reconciliation]):
    """Three counts of one node, model and time; what nobody told is null."""

    charge = UsdField(source="charge_nanos", read_only=True)
    billed = UsdField(source="billed_nanos", read_only=True, allow_null=True)

    class Meta:
        model = Reconciliation
        fields = [
            "node", "provider", "model", "starts_at", "ends_at", "verdict", "cause_kind", "cause",
            "calls", "metered_prompt_tokens", "metered_cached_tokens",
            "metered_generation_tokens", "charge", "produced_prompt_tokens",
            "produced_cached_tokens", "produced_generation_tokens", "billed_prompt_tokens",
            "billed_cached_tokens", "billed_generation_tokens", "billed", "computed_at",
            "alerted_at",
        ]  # fmt: skip
        read_only_fields = fields


class BillLineSerializer(serializers.ModelSerializer[BillLine]):
    """What a provider said last of a model in a time: tokens (`usage`) or money (`cost`)."""

    cost = UsdField(source="cost_nanos", read_only=True, allow_null=True)

    class Meta:
        model = BillLine
        fields = [
            "provider", "account", "kind", "model", "item", "starts_at", "ends_at",
            "prompt_tokens", "cached_tokens", "generation_tokens", "calls", "cost",
            "source", "read_at",
        ]  # fmt: skip
        read_only_fields = fields


class BillSerializer(StrictSerializer):
    """A bill as the provider's API or console writes it: JSON or CSV, as text."""

    content = serializers.CharField(max_length=MOST_CHARS, trim_whitespace=False)
    provider = serializers.CharField(
        max_length=64, default="", allow_blank=True, help_text="As calls name it, if not the bill's"
    )
    account = serializers.CharField(max_length=64, default="", allow_blank=True)
    origin = serializers.CharField(max_length=200, default="API", help_text="Where it is from.")


class KeptSerializer(serializers.Serializer[Kept]):
    """How many lines are new, say something else than before, are gone, are the same."""

    new = serializers.IntegerField()
    changed = serializers.IntegerField()
    gone = serializers.IntegerField()
    same = serializers.IntegerField()


class ByTime(CursorPagination):
    ordering: Any = ("-starts_at", "-id")


class ReconciliationViews(mixins.ListModelMixin, OrganizationViewSet[Reconciliation]):
    """Rows of reconciliation, the youngest first; computed anew every five minutes."""

    queryset = Reconciliation.objects.all()
    serializer_class = ReconciliationSerializer
    pagination_class = ByTime
    filterset_fields = {
        "node": ["exact"],
        "provider": ["exact"],
        "model": ["exact"],
        "verdict": ["exact"],
        "cause_kind": ["exact"],
        "starts_at": ["gte", "lt"],
    }


class BillViews(mixins.ListModelMixin, OrganizationViewSet[BillLine]):
    """Lines of provider bills, the youngest first."""

    queryset = BillLine.objects.all()
    serializer_class = BillLineSerializer
    pagination_class = ByTime
    filterset_fields = {
        "provider": ["exact"],
        "account": ["exact"],
        "kind": ["exact"],
        "model": ["exact"],
        "starts_at": ["gte", "lt"],
    }
    write_scope = Scope.PRICES_WRITE.value

    @extend_schema(operation_id="bills_import", request=BillSerializer, responses=KeptSerializer)
    @action(detail=False, methods=["post"], url_path="import")
    def import_bill(self, request: Request) -> Response:
        """Keep a bill, and reconcile the time that it is about. It may be sent again."""
        given = self.parse(BillSerializer)
        lines = read_bill(given["content"].encode(), provider=given["provider"])
        kept = keep_bill(lines=lines, account=given["account"], source=given["origin"], **self.who)
        return Response(KeptSerializer(kept).data)


router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("reconciliation", ReconciliationViews, basename="reconciliation")
router.register("bills", BillViews, basename="bill")
