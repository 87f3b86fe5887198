"""`GET /api/v1/budgets/metrics`: an organization's budgets for its own Prometheus."""

from collections.abc import Iterator, Mapping
from typing import Any

from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from budgets.queries.gauges import Gauges, budget_gauges
from controlplane.api import caller_of
from controlplane.identity.models import Organization

LABELS = ("budget", "scope", "unit", "mode", "value")
FAMILIES = (
    ("limit", "What may be used in the window."),
    ("spent", "Settled use of the window."),
    ("held", "Leased to sidecars or given to child sessions: may still be used or come home."),
    ("suspense", "Leases that ended without word: count against the limit until accounted for."),
    ("overrun", "Measured use above what was held."),
    ("remaining", "What the limit still leaves; negative when it was lowered or overrun."),
)


class TextRenderer(BaseRenderer):
    """Prometheus text, whatever the client says that it accepts."""

    media_type = "text/plain"
    format = "text"
    charset = None

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,  # noqa: ARG002 -- DRF's signature
        renderer_context: Mapping[str, Any] | None = None,  # noqa: ARG002
    ) -> Any:
        return data if isinstance(data, bytes) else str(data).encode()


class BudgetMetricsView(APIView):
    """Gauges of the fullest balances, each with its budget, scope, unit, mode and split value."""

    renderer_classes = (TextRenderer,)

    @extend_schema(
        summary="Budgets for Prometheus",
        description=(
            "Limit, spent, held, suspense, overrun and remaining of each current balance, in"
            " dollars or in the budget's unit, and the hours until its window ends. At most 1,000"
            " balances, the fullest first; what was left out is counted."
        ),
        responses={(200, "text/plain"): OpenApiTypes.STR},
    )
    def get(self, request: Request) -> Response:
        organization = Organization.objects.get(pk=caller_of(request).organization_id)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Budgets(budget_gauges(organization, now=timezone.now())))
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


class _Budgets(Collector):
    def __init__(self, gauges: Gauges) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        for name, text in FAMILIES:
            family = GaugeMetricFamily(f"comptroller_budget_{name}", text, labels=LABELS)
            for gauge in self._gauges.rows:
                family.add_metric([gauge.labels[label] for label in LABELS], getattr(gauge, name))
            yield family
        resets = GaugeMetricFamily(
            "comptroller_budget_hours_to_reset", "Until the window ends.", labels=LABELS
        )
        for gauge in self._gauges.rows:
            if gauge.resets_in_hours is not None:
                resets.add_metric([gauge.labels[label] for label in LABELS], gauge.resets_in_hours)
        yield resets
        yield GaugeMetricFamily(
            "comptroller_budget_balances_left_out",
            "Balances beyond the most that are told.",
            value=self._gauges.left_out,
        )
