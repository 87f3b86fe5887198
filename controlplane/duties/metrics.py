"""What `/metrics` tells of background work: queues, duties, dead letters."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from controlplane.broker import waiting
from controlplane.duties.enums import LetterState
from controlplane.duties.models import DeadLetter, Duty

log = structlog.get_logger("duties")


def of_broker(broker_url: str, queues: list[str]) -> Iterator[Metric]:
    """Whether it answers, and what waits in each queue. At most a few seconds."""
    up = GaugeMetricFamily("comptroller_broker_up", "1 if the broker answers.")
    depth = GaugeMetricFamily(
        "comptroller_queue_messages", "Messages that no worker has taken.", labels=["queue"]
    )
    try:
        found = waiting(broker_url, queues)
    except Exception as error:  # noqa: BLE001 -- whatever a transport raises: it does not answer
        log.warning("the broker does not answer", error=type(error).__name__)
        found = {}
    up.add_metric([], int(bool(found)))
    for queue, messages in found.items():
        depth.add_metric([queue], messages)
    yield up
    yield depth


def of_duties(*, now: datetime) -> Iterator[Metric]:
    """How late each is, how often it ran and failed, how long that took."""
    late = GaugeMetricFamily(
        "comptroller_duty_late_seconds", "Since a turn of it was due.", labels=["duty"]
    )
    last = GaugeMetricFamily(
        "comptroller_duty_last_seconds", "What its last turn took.", labels=["duty"]
    )
    runs = CounterMetricFamily(
        "comptroller_duty_runs", "Attempts that ended, well or not.", labels=["duty"]
    )
    failures = CounterMetricFamily(
        "comptroller_duty_failures", "Attempts that failed.", labels=["duty"]
    )
    busy = CounterMetricFamily(
        "comptroller_duty_busy_seconds", "What all its attempts took.", labels=["duty"]
    )
    for duty in Duty.objects.order_by("name"):
        late.add_metric([duty.name], max(now - duty.due_at, timedelta()).total_seconds())
        last.add_metric([duty.name], duty.last_ms / 1_000)
        runs.add_metric([duty.name], duty.runs)
        failures.add_metric([duty.name], duty.failures)
        busy.add_metric([duty.name], duty.busy_ms / 1_000)
    yield from (late, last, runs, failures, busy)


def of_letters() -> Iterator[Metric]:
    """How many wait for somebody."""
    dead = GaugeMetricFamily(
        "comptroller_dead_letters", "Tasks that failed for good and wait for somebody."
    )
    dead.add_metric([], DeadLetter.objects.filter(state=LetterState.DEAD).count())
    yield dead
