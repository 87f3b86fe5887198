"""Counters as plain integers, collected into Prometheus text only when somebody asks.

Labels come from closed sets (outcomes, reasons, our own upstream names), so that no caller can
make the number of series grow.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

MAX_LABELS = 64
PREFIX = "comptroller_sidecar_"


class Metrics:
    """What a sidecar counts about itself."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()  # endpoint, outcome
        self.refusals: Counter[str] = Counter()  # reason
        self.http_errors: Counter[str] = Counter()  # status
        self.upstream_failures: Counter[tuple[str, str]] = Counter()  # upstream, kind
        self.syncs: Counter[str] = Counter()  # result
        self.retries: Counter[str] = Counter()  # upstream that failed
        self.reloads: Counter[str] = Counter()  # result
        self.input_tokens = 0
        self.cached_input_tokens = 0
        self.output_tokens = 0
        self.charge_nanos = 0
        self.presumed = 0
        self.estimated = 0
        self.disputed = 0
        self.overruns = 0
        self.cuts: Counter[str] = Counter()  # reason
        self.events_sent = 0
        self.uncaught = 0
        self.telemetry: Callable[[], Mapping[str, int]] = dict  # result
        self.by_upstream: dict[str, tuple[str, Callable[[], Mapping[str, float]]]] = {}
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(_Collector(self))

    def count_refusal(self, reason: str) -> None:
        self.refusals[_bounded(self.refusals, reason)] += 1

    def count_cut(self, reason: str) -> None:
        self.cuts[_bounded(self.cuts, reason)] += 1

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Register a value that is read when asked for."""
        self.gauges[name] = (text, read)

    def gauge_by_upstream(
        self, name: str, text: str, read: Callable[[], Mapping[str, float]]
    ) -> None:
        """Register a value of every upstream that is read when asked for."""
        self.by_upstream[name] = (text, read)

    def exposition(self) -> bytes:
        return bytes(generate_latest(self.registry))


class _Collector(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        found = self._metrics
        yield _pairs("requests", "Finished model calls", ["endpoint", "outcome"], found.requests)
        yield _pairs(
            "upstream_failures",
            "Calls that an upstream failed",
            ["upstream", "kind"],
            found.upstream_failures,
        )
        tokens = {
            "input": found.input_tokens,
            "cached_input": found.cached_input_tokens,
            "output": found.output_tokens,
        }
        for name, text, label, counts in (
            ("refusals", "Requests that were not forwarded", "reason", found.refusals),
            ("http_errors", "Malformed or oversized requests", "status", found.http_errors),
            ("tokens", "Metered tokens", "kind", tokens),
            ("syncs", "Syncs with the control plane", "result", found.syncs),
            ("retries", "Calls tried on another node", "upstream", found.retries),
            ("config_reloads", "Configurations that were read again", "result", found.reloads),
            ("cuts", "Streams that were cut", "reason", found.cuts),
        ):
            yield _pairs(name, text, [label], {(key,): n for key, n in counts.items()})
        yield _pairs(
            "telemetry_spans",
            "Spans for the OpenTelemetry collector",
            ["result"],
            {(result,): n for result, n in found.telemetry().items()},
        )
        for name, text, value in (
            ("charge_nanos", "Charged nano-dollars", found.charge_nanos),
            ("presumed", "Calls charged their whole hold", found.presumed),
            ("estimated", "Calls charged by our own count", found.estimated),
            ("disputed_usage", "Answers whose usage cannot be true", found.disputed),
            ("overruns", "Settlements above their hold", found.overruns),
            ("events_sent", "Usage events acknowledged by the control plane", found.events_sent),
            ("uncaught_errors", "Requests ended by an error of ours", found.uncaught),
        ):
            yield CounterMetricFamily(PREFIX + name, text, value=value)
        for name, (text, read) in found.gauges.items():
            yield GaugeMetricFamily(PREFIX + name, text, value=read())
        for name, (text, read_all) in found.by_upstream.items():
            family = GaugeMetricFamily(PREFIX + name, text, labels=["upstream"])
            for upstream, state in read_all().items():
                family.add_metric([upstream], state)
            yield family


def _pairs(
    name: str, text: str, labels: list[str], counts: Mapping[Any, int]
) -> CounterMetricFamily:
    family = CounterMetricFamily(PREFIX + name, text, labels=labels)
    for key, count in counts.items():
        family.add_metric([str(label) for label in key], count)
    return family


def _bounded(counts: Counter[str], reason: str) -> str:
    return reason if reason in counts or len(counts) < MAX_LABELS else "other"
