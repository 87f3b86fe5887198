"""What a serving node costs by the hour, and what a stretch of time of it cost. Pure.

Costs are dated. A later one with the same date corrects the one before it; none is ever edited.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

MOST_PER_HOUR_NANOS = 100_000 * 1_000_000_000
MOST_ACCELERATORS = 10_000
MOST_WATTS = 10_000_000
_HOUR_US = 3_600_000_000
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Cost:
    """From `valid_from` on: nano-dollars for each hour, also an idle one, and what stands there.

    `order` tells which of two with the same date was recorded later. `watts`: drawn under load, of
    the whole node, where somebody told it.
    """

    valid_from: datetime
    order: int
    cost_per_hour_nanos: int
    accelerator: str = ""
    accelerator_count: int = 0
    watts: int | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time [since, until) of one cost; None where none was known."""

    since: datetime
    until: datetime
    cost: Cost | None


def in_force(costs: Iterable[Cost]) -> list[Cost]:
    """Those that nobody corrected, the oldest first: one for each date."""
    by_date: dict[datetime, Cost] = {}
    for cost in sorted(costs, key=lambda one: one.order):
        by_date[cost.valid_from] = cost
    return [by_date[date] for date in sorted(by_date)]


def cost_at(costs: Iterable[Cost], at: datetime) -> Cost | None:
    """The cost in force at a time; None before the first."""
    begun = (cost for cost in costs if cost.valid_from <= at)
    return max(begun, key=lambda cost: (cost.valid_from, cost.order), default=None)


def spans(costs: Iterable[Cost], *, since: datetime, until: datetime) -> Iterator[Span]:
    """[since, until) divided wherever another cost begins, without gaps; empty if it is empty."""
    known = in_force(costs)
    current = cost_at(known, since)
    for cost in known:
        if since < cost.valid_from < until:
            yield Span(since, cost.valid_from, current)
            since, current = cost.valid_from, cost
    if since < until:
        yield Span(since, until, current)


def cost_between_nanos(
    costs: Iterable[Cost], *, since: datetime, until: datetime
) -> tuple[int, timedelta]:
    """What [since, until) cost in nano-dollars, rounded up once, and how long no cost was known."""
    scaled, unknown = 0, timedelta(0)
    for span in spans(costs, since=since, until=until):
        length = span.until - span.since
        if span.cost is None:
            unknown += length
        else:
            scaled += span.cost.cost_per_hour_nanos * (length // _MICROSECOND)
    return -(-scaled // _HOUR_US), unknown
