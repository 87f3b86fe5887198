"""What receivers count for Prometheus: of this process, never of an organization."""

from prometheus_client import Counter

from enforcement.domain.receiving import Received

CALLS = Counter(
    "comptroller_reported_calls_total",
    "Spans and documents of receivers, by what became of them.",
    ["source", "result"],
)


def count(source: str, received: Received, *, empty: int) -> None:
    """Count a batch; `empty` ones told of no usage."""
    known = received.booked - received.unattributed
    for result, calls in (
        ("booked", known),
        ("unattributed", received.unattributed),
        ("duplicate", received.duplicates),
        ("metered", received.metered),
        ("contradiction", received.contradictions),
        ("rejected", len(received.rejected) - received.contradictions),
        ("no_usage", empty),
    ):
        CALLS.labels(source, result).inc(calls)
