"""Fold usage events into hourly rows, from a watermark of their receipt.

A fold finds the hours that events received since the watermark belong to, or calls that were rated
since, and computes those hours anew from all their events. So it may run twice, be cut short, or
find an event of last week: the result is always what a fold of everything would give. Events are
append-only, so no row of an hour ever becomes empty.
"""

from datetime import datetime, timedelta
from typing import NamedTuple

from django.db import connection, transaction

from budgets.models import RollupWatermark
from enforcement.rules.windows import EPOCH

NAME = "usage"
# Events become visible at their commit, a little after their receipt: look back that far.
OVERLAP = timedelta(minutes=10)
HOURS_AT_ONCE = 2_000

_DIRTY = """
SELECT organization_id, date_trunc('hour', started_at, 'UTC') AS hour
FROM budgets_usageevent WHERE received_at >= %(since)s AND received_at <= %(now)s
UNION
SELECT organization_id, date_trunc('hour', started_at, 'UTC')
FROM budgets_rating WHERE at >= %(since)s AND at <= %(now)s
ORDER BY hour, organization_id
"""
_FOLD = """
WITH d AS (
    SELECT * FROM unnest(%s::uuid[], %s::timestamptz[]) AS d(organization_id, hour)
), rated AS (
    SELECT r.usage_event_id, sum(r.charge_nanos - r.old_charge_nanos) AS delta_nanos
    FROM d JOIN budgets_rating r ON r.organization_id = d.organization_id
        AND r.started_at >= d.hour AND r.started_at < d.hour + interval '1 hour'
    GROUP BY 1
)
INSERT INTO budgets_usagerollup (
    hour, organization_id, team_id, project_id, agent_id, model, provider, node, calls, cut_calls,
    input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, charge_nanos
)
SELECT d.hour, e.organization_id, e.team_id, e.project_id, e.agent_id, e.model, e.provider, e.node,
    count(*), count(*) FILTER (WHERE e.outcome IN ('cut', 'clamped', 'killed')),
    sum(e.input_tokens), sum(e.cached_input_tokens), sum(e.output_tokens),
    sum(e.reasoning_tokens), sum(e.charge_nanos + coalesce(rated.delta_nanos, 0))
FROM d
JOIN budgets_usageevent e ON e.organization_id = d.organization_id
    AND e.started_at >= d.hour AND e.started_at < d.hour + interval '1 hour'
LEFT JOIN rated ON rated.usage_event_id = e.id
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
ON CONFLICT ON CONSTRAINT rollup_one_for_each_key DO UPDATE SET
    calls = excluded.calls, cut_calls = excluded.cut_calls,
    input_tokens = excluded.input_tokens, cached_input_tokens = excluded.cached_input_tokens,
    output_tokens = excluded.output_tokens, reasoning_tokens = excluded.reasoning_tokens,
    charge_nanos = excluded.charge_nanos
"""


class Folded(NamedTuple):
    """What a fold did. `busy`: another worker is folding, nothing was done."""

    hours: int
    busy: bool = False


@transaction.atomic
def fold_usage(*, now: datetime) -> Folded:
    """Bring the hourly rows up to what has been received until `now`."""
    RollupWatermark.objects.bulk_create(
        [RollupWatermark(name=NAME, received_at=EPOCH, folded_at=now)], ignore_conflicts=True
    )
    watermark = (
        RollupWatermark.objects.select_for_update(skip_locked=True).filter(name=NAME).first()
    )
    if watermark is None:
        return Folded(hours=0, busy=True)
    since = max(EPOCH, watermark.received_at - OVERLAP)
    with connection.cursor() as cursor:
        cursor.execute(_DIRTY, {"since": since, "now": now})
        dirty = cursor.fetchall()
        for first in range(0, len(dirty), HOURS_AT_ONCE):
            organizations, hours = zip(*dirty[first : first + HOURS_AT_ONCE], strict=True)
            cursor.execute(_FOLD, [list(organizations), list(hours)])
    watermark.received_at = max(watermark.received_at, now)
    watermark.folded_at = now
    watermark.save()
    return Folded(hours=len(dirty))
