"""How long nodes worked and waited, hour by hour, and what their devices drew.

Between two readings a node is what the first of them showed. That is exact for none, but true on
the average: readings every few seconds are a sample of the time. A longer silence than `HOLD` is
unread, and so is a node that does not tell what runs on it.
"""

from datetime import datetime, timedelta
from typing import Any

from django.db import connection

from enforcement.collectors.registry import WITHOUT_COUNTERS
from enforcement.domain.gather import EVERY, HOUR, hour_of

HOLD = max(timedelta(minutes=1), 4 * EVERY)
AGAIN = timedelta(hours=2)  # hours before now that are measured at each turn

# Microseconds are summed, and cut once, so that the parts of an hour never exceed it. Totals of a
# node are looked up through the index of its own readings.
_MEASURE = """
INSERT INTO enforcement_nodeactivity AS old
    (node_id, hour, busy_ms, idle_ms, running_ms, prefill_ms, decode_ms, energy_millijoules,
    energy_is_counted)
SELECT n.id, h.hour, t.busy_us / 1000, t.idle_us / 1000,
    greatest(t.running_us / 1000, t.busy_us / 1000), t.prefill_ms, t.decode_ms,
    coalesce(e.counted_mj, e.drawn_mj), e.counted_mj IS NOT NULL
FROM unnest(%(hours)s::timestamptz[]) AS h(hour)
JOIN enforcement_servingnode n ON n.engine <> ALL(%(without_counters)s)
CROSS JOIN LATERAL (
    SELECT coalesce(sum(us) FILTER (WHERE running > 0), 0)::bigint AS busy_us,
        coalesce(sum(us) FILTER (WHERE running = 0), 0)::bigint AS idle_us,
        coalesce(sum(us * running), 0)::bigint AS running_us,
        coalesce(sum(greatest(0, prefill)) FILTER (WHERE same AND begins), 0)::bigint
            AS prefill_ms,
        coalesce(sum(greatest(0, decode)) FILTER (WHERE same AND begins), 0)::bigint AS decode_ms
    FROM (
        SELECT running, same, prefill, decode, at >= h.hour AS begins,
            (extract(epoch FROM least(next_at, h.hour + interval '1 hour')
                - greatest(at, h.hour)) * 1000000)::bigint AS us
        FROM (
            SELECT at, greatest(requests_running, 0) AS running, lead(at) OVER w AS next_at,
                lead(epoch) OVER w = epoch AS same,
                lead((extra->>'prefill_ms')::bigint) OVER w - (extra->>'prefill_ms')::bigint
                    AS prefill,
                lead((extra->>'decode_ms')::bigint) OVER w - (extra->>'decode_ms')::bigint
                    AS decode
            FROM enforcement_nodesample
            WHERE node_id = n.id AND at > h.hour - %(hold)s
                AND at < h.hour + interval '1 hour' + %(hold)s
            WINDOW w AS (ORDER BY at)
        ) AS readings
        WHERE next_at - at <= %(hold)s AND next_at > h.hour
            AND at < h.hour + interval '1 hour'
    ) AS stretches
    HAVING count(*) > 0
) AS t
CROSS JOIN LATERAL (
    SELECT sum(counted) AS counted_mj, sum(drawn)::bigint AS drawn_mj
    FROM (
        SELECT at, CASE WHEN lead(energy_millijoules) OVER d >= energy_millijoules
                THEN lead(energy_millijoules) OVER d - energy_millijoules END AS counted,
            CASE WHEN lead(at) OVER d - at <= %(hold)s THEN power_milliwatts
                * extract(epoch FROM lead(at) OVER d - at) END AS drawn
        FROM enforcement_devicesample
        WHERE node_id = n.id AND at >= h.hour AND at < h.hour + interval '1 hour' + %(hold)s
        WINDOW d AS (PARTITION BY device ORDER BY at)
    ) AS draws
    WHERE at < h.hour + interval '1 hour'
) AS e
ON CONFLICT (node_id, hour) DO UPDATE SET
    busy_ms = excluded.busy_ms, idle_ms = excluded.idle_ms, running_ms = excluded.running_ms,
    prefill_ms = excluded.prefill_ms, decode_ms = excluded.decode_ms,
    energy_millijoules = excluded.energy_millijoules,
    energy_is_counted = excluded.energy_is_counted
WHERE (old.busy_ms, old.idle_ms, old.running_ms, old.prefill_ms, old.decode_ms)
    <> (excluded.busy_ms, excluded.idle_ms, excluded.running_ms, excluded.prefill_ms,
        excluded.decode_ms)
    OR old.energy_millijoules IS DISTINCT FROM excluded.energy_millijoules
"""


def measure_activity(*, now: datetime, since: datetime | None = None) -> int:
    """Measure the hours from `since` (two hours ago by default) anew. How many rows it wrote."""
    values: dict[str, Any] = {
        "hours": _hours(hour_of(since or now - AGAIN), now),
        "hold": HOLD,
        "without_counters": sorted(WITHOUT_COUNTERS),
    }
    with connection.cursor() as cursor:
        cursor.execute(_MEASURE, values)
        return int(cursor.rowcount)


def _hours(first: datetime, now: datetime) -> list[datetime]:
    return [first + number * HOUR for number in range((now - first) // HOUR + 1)]
