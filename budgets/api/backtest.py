"""`POST /api/v1/budgets/backtest`: recorded calls against proposed budgets."""

from datetime import timedelta
from typing import Any

from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.generics import GenericAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from budgets.api.fields import errors_by_field
from budgets.queries.backtest import replay_trace, replay_usage
from controlplane.api import StrictSerializer, caller_of
from controlplane.identity.enums import Scope
from enforcement.rules.replaydata import as_data

MAX_TRACE_CHARS = 8_000_000
DEFAULT_PERIOD = timedelta(days=7)


class BacktestSerializer(StrictSerializer):
    """Proposed budgets, and what to replay: a CSV, or the organization's own calls of a period."""

    budgets = serializers.ListField(child=serializers.DictField(), min_length=1, max_length=500)
    prices = serializers.ListField(child=serializers.DictField(), default=list, max_length=500)
    trace = serializers.CharField(
        max_length=MAX_TRACE_CHARS, required=False, help_text="CSV text, as the command reads it"
    )
    since = serializers.DateTimeField(required=False, help_text="default: seven days ago")
    until = serializers.DateTimeField(required=False, help_text="default: now")


class BacktestView(GenericAPIView[Any]):
    """Who would have been throttled, cut or refused, when, and what it would have saved."""

    serializer_class = BacktestSerializer
    write_scope = Scope.READ.value  # nothing is written

    @extend_schema(request=BacktestSerializer, responses={200: OpenApiTypes.OBJECT})
    def post(self, request: Request) -> Response:
        """Replay and tell. The answer is that of `comptroller backtest --json`."""
        given = BacktestSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        values, now = given.validated_data, timezone.now()
        proposal = {"budgets": values["budgets"], "prices": values["prices"]}
        with errors_by_field():
            if "trace" in values:
                found = replay_trace(text=values["trace"], proposal=proposal)
            else:
                found = replay_usage(
                    organization_id=caller_of(request).organization_id,
                    since=values.get("since", now - DEFAULT_PERIOD),
                    until=values.get("until", now),
                    proposal=proposal,
                )
        units = {budget.id: budget.unit for budget in found.budgets}
        return Response(as_data(found.report, units))
