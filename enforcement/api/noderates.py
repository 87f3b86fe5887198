"""The API of rates that are measured: what a token of a self-hosted model costs, and why."""

# ruff: noqa: ARG002 -- DRF hands every action its request

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from budgets.api.fields import RateField, errors_by_field
from budgets.models import PriceVersion
from controlplane.api import StrictSerializer
from controlplane.idempotency import idempotent
from controlplane.identity.enums import Scope
from controlplane.viewsets import OrganizationViewSet
from enforcement.domain.noderates import measure, set_measured_price
from enforcement.rules.noderates import Weights


class MeasureSerializer(StrictSerializer):
    """Which model and hours, and whether its rates are to hold: without `apply` they are told."""

    model = serializers.CharField(max_length=200, help_text="As its nodes call it.")
    since = serializers.DateTimeField(help_text="A whole hour.")
    until = serializers.DateTimeField(help_text="A whole hour that is over; 92 days at most.")
    answer_per_mille = serializers.IntegerField(
        default=Weights().answer_per_mille, help_text="Weight of an answer's token, in thousandths."
    )
    cached_per_mille = serializers.IntegerField(
        default=Weights().cached_per_mille, help_text="Weight of a prompt token out of the cache."
    )
    apply = serializers.BooleanField(default=False)
    confirm = serializers.BooleanField(default=False, help_text="A hundredfold jump is meant.")
    reason = serializers.CharField(max_length=300, default="", allow_blank=True)


class MeasuredSerializer(serializers.Serializer[Any]):
    """Rates of a model, and all that they were computed from."""

    model = serializers.CharField()
    input_per_mtok = RateField(source="rates.input")
    cached_input_per_mtok = RateField(source="rates.cached_input")
    cache_write_per_mtok = RateField(source="rates.cache_write")
    output_per_mtok = RateField(source="rates.output")
    jumps = serializers.ListField(
        child=serializers.CharField(), help_text="What is a hundredfold of the rate before."
    )
    evidence = serializers.DictField()
    price_version = serializers.UUIDField(allow_null=True, help_text="null: nothing was changed")


class MeasureViews(OrganizationViewSet[PriceVersion]):
    """Rates out of what nodes cost and made."""

    queryset = PriceVersion.objects.all()
    write_scope = Scope.PRICES_WRITE.value

    @extend_schema(
        operation_id="prices_measure",
        request=MeasureSerializer,
        responses=MeasuredSerializer,
    )
    @idempotent
    def measure(self, request: Request) -> Response:
        """Tell what a token of a model costs, and make that its own rates from now on."""
        given = self.parse(MeasureSerializer)
        weights = Weights(
            answer_per_mille=given["answer_per_mille"], cached_per_mille=given["cached_per_mille"]
        )
        found = measure(
            organization_id=self.caller.organization_id,
            model=given["model"],
            since=given["since"],
            until=given["until"],
            weights=weights,
            now=self.now,
        )
        version = None
        if given["apply"]:
            with errors_by_field():
                version = set_measured_price(
                    found, reason=given["reason"], confirmed=given["confirm"], **self.who
                )
        told = {**vars(found), "price_version": version.pk if version else None}
        return Response(MeasuredSerializer(told).data)
