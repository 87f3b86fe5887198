"""`POST /api/v1/price-versions/import`: a price file as own rates, told before it is taken."""

# ruff: noqa: ARG002 -- DRF hands every action its request

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from budgets.api.fields import errors_by_field
from budgets.domain.pricefiles import PriceFormat, format_of, read_prices
from budgets.domain.priceimport import import_prices
from budgets.models import PriceVersion
from budgets.queries.pricediff import counts, lines
from controlplane.api import StrictSerializer
from controlplane.idempotency import idempotent
from controlplane.identity.enums import Scope
from controlplane.viewsets import OrganizationViewSet

MOST_CHARS = 2_000_000
MOST_CONFIRMED = 1_000


class PriceFileSerializer(StrictSerializer):
    """A whole file as text. Without `apply` nothing is changed."""

    content = serializers.CharField(max_length=MOST_CHARS, trim_whitespace=False)
    form = serializers.ChoiceField(choices=[one.value for one in PriceFormat], default="")
    apply = serializers.BooleanField(default=False)
    confirm = serializers.ListField(
        child=serializers.CharField(max_length=300), max_length=MOST_CONFIRMED, default=list
    )
    reason = serializers.CharField(max_length=500, default="", allow_blank=True)


class ChangedRateSerializer(serializers.Serializer[Any]):
    """A rate that differs; decimal strings of dollars."""

    model = serializers.CharField()
    what = serializers.ChoiceField(choices=["new", "changed"])
    rate = serializers.CharField()
    before = serializers.CharField(allow_null=True)
    after = serializers.CharField(allow_null=True)
    starts_at = serializers.DateTimeField()
    jump = serializers.BooleanField()


class PriceDiffSerializer(serializers.Serializer[Any]):
    """What a file changes, or would. `left_out_models`: it names them without a usable price."""

    price_list = serializers.CharField()
    added = serializers.IntegerField()
    changed = serializers.IntegerField()
    unchanged = serializers.IntegerField()
    only_here = serializers.IntegerField()
    held_back = serializers.IntegerField()
    left_out = serializers.IntegerField()
    applied = serializers.BooleanField()
    changes = ChangedRateSerializer(many=True)
    left_out_models = serializers.ListField(child=serializers.CharField())


class PriceImportViews(OrganizationViewSet[PriceVersion]):
    """Price files as own rates."""

    queryset = PriceVersion.objects.all()
    write_scope = Scope.PRICES_WRITE.value

    @extend_schema(request=PriceFileSerializer, responses=PriceDiffSerializer)
    @idempotent
    def bring(self, request: Request) -> Response:
        """Tell what a price file changes in the own rates; with `apply`, take it whole."""
        data = self.parse(PriceFileSerializer)
        content = data["content"].encode()
        with errors_by_field():
            form = PriceFormat(data["form"]) if data["form"] else format_of("", content)
            diff = import_prices(
                read_prices(content, form),
                organization_id=self.caller.organization_id,
                actor=self.caller.actor,
                now=timezone.now(),
                reason=data["reason"],
                confirmed=data["confirm"],
                dry_run=not data["apply"],
            )
        told = {"changes": lines(diff), "left_out_models": diff.left_out, "applied": data["apply"]}
        return Response(PriceDiffSerializer(counts(diff) | told).data)
