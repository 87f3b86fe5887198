"""How visits of nodes end, counted for metrics: a row for an outcome, however many nodes."""

from collections.abc import Iterable
from datetime import timedelta
from typing import NamedTuple

from django.db import connection

from enforcement.rules.readings import Outcome


class Ended(NamedTuple):
    """One visit, and how long after it was due it read the node."""

    outcome: Outcome
    late: timedelta = timedelta()


def count_readings(ended: Iterable[Ended]) -> None:
    """Add them. The rows are written in one order: batches wait for each other, never in a ring."""
    counts: dict[str, list[int]] = {}
    for visit in ended:
        count = counts.setdefault(visit.outcome.value, [0, 0])
        count[0] += 1
        count[1] += max(visit.late, timedelta()) // timedelta(milliseconds=1)
    if not counts:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO enforcement_readingcount AS c (outcome, readings, late_ms)"
            " SELECT * FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) n ORDER BY 1"
            " ON CONFLICT (outcome) DO UPDATE SET readings = c.readings + excluded.readings,"
            " late_ms = c.late_ms + excluded.late_ms",
            [
                list(counts),
                [readings for readings, _ in counts.values()],
                [late_ms for _, late_ms in counts.values()],
            ],
        )
