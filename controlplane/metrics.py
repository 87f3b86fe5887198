"""Prometheus metrics of the control plane: totals of the installation, never of an organization."""

import hmac
from collections.abc import Iterator

from django.conf import settings
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from budgets.domain.archive import due_days
from budgets.domain.usagestore import ARCHIVED_AFTER_DAYS
from budgets.models import Rating, RejectedEvent
from budgets.queries.unpriced import unpriced_calls
from controlplane.celery import QUEUES
from controlplane.duties import metrics as work
from controlplane.identity.domain import upkeep
from controlplane.identity.enums import State
from controlplane.identity.models import Agent, Organization
from enforcement import metrics as gathering

REQUESTS = Counter(
    "comptroller_http_requests_total",
    "Requests to the control plane.",
    ["route", "method", "status"],
)
SECONDS = Histogram(
    "comptroller_http_request_seconds",
    "Time from a request to the begin of its answer.",
    ["route", "method"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Totals(Collector):
    """What database and broker know, counted when somebody asks."""

    def collect(self) -> Iterator[Metric]:
        organizations = GaugeMetricFamily("comptroller_organizations", "Organizations.")
        organizations.add_metric([], Organization.objects.count())
        yield organizations
        agents = GaugeMetricFamily("comptroller_agents", "Living agents.", labels=["state"])
        living = Agent.objects.filter(retired_at__isnull=True)
        counts = dict(living.values_list("state").annotate(Count("id")))
        for state in State.values:
            agents.add_metric([state], counts.get(state, 0))
        yield agents
        rated = CounterMetricFamily(
            "comptroller_rated_calls", "Recorded calls that were charged again at another price."
        )
        rated.add_metric([], Rating.objects.count())
        yield rated
        rejected = CounterMetricFamily(
            "comptroller_usage_events_rejected", "Usage events that cannot be true, kept aside."
        )
        rejected.add_metric([], RejectedEvent.objects.count())
        yield rejected
        now = timezone.now()
        overdue = GaugeMetricFamily(
            "comptroller_usage_days_to_archive",
            "Days of usage events in the database that are due to be archived.",
        )
        if keep_days := settings.USAGE_KEEP_DAYS:
            kept = max(keep_days, ARCHIVED_AFTER_DAYS)
            overdue.add_metric([], len(due_days(keep_days=kept, now=now)))
        yield overdue
        unpriced = GaugeMetricFamily(
            "comptroller_unpriced_calls_last_day",
            "Calls of models that nobody has priced: refused, or charged nothing.",
            labels=["outcome"],
        )
        for outcome, calls in unpriced_calls(now=now).items():
            unpriced.add_metric([outcome], calls)
        yield unpriced
        yield from gathering.of_readings(now=now)
        yield from gathering.of_drift(now=now)
        yield from gathering.of_bills(now=now)
        yield from work.of_duties(now=now)
        yield from work.of_letters()
        yield from work.of_broker(settings.BROKER_URL, [queue.name for queue in QUEUES])
        age = upkeep.age_of_pulse(now=now)
        if age is not None:
            worker = GaugeMetricFamily(
                "comptroller_worker_pulse_age_seconds", "Since the worker's last beat."
            )
            worker.add_metric([], age.total_seconds())
            yield worker


TOTALS = CollectorRegistry(auto_describe=False)
TOTALS.register(Totals())


def count_request(request: HttpRequest, status: int, seconds: float) -> None:
    """Count by route, as paths have ids in them; unknown methods and paths share one name."""
    match = request.resolver_match
    route = match.route if match else "unknown"
    method = request.method if request.method in METHODS else "other"
    REQUESTS.labels(route, method, str(status)).inc()
    SECONDS.labels(route, method).observe(seconds)


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """For Prometheus. With `COMPTROLLER_METRICS_TOKEN` set, it is asked for as a bearer token."""
    wanted = f"Bearer {settings.METRICS_TOKEN}"
    given = request.headers.get("Authorization", "")
    if settings.METRICS_TOKEN and not hmac.compare_digest(given.encode(), wanted.encode()):
        return HttpResponse("a token is needed\n", status=401, content_type="text/plain")
    text = generate_latest(REGISTRY) + generate_latest(TOTALS)
    return HttpResponse(text, content_type=CONTENT_TYPE_LATEST)
