"""Use over time and by kind: whole folded hours from the rollups, the rest from the events."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection

from budgets.domain.rollups import NAME, OVERLAP
from budgets.models import RollupWatermark
from enforcement.rules.windows import EPOCH

HOUR = timedelta(hours=1)

# What use can be grouped by, and the columns that stand for it: both tables have them all.
GROUPINGS = {
    "agent": "agent_id",
    "team": "team_id",
    "project": "project_id",
    "model": "model",
    "provider": "provider",
    "node": "node",
}
_COLUMNS = "team_id, project_id, agent_id, model, provider, node"
_SOURCE = f"""
SELECT hour, {_COLUMNS}, calls, cut_calls, input_tokens, cached_input_tokens, output_tokens,
    reasoning_tokens, charge_nanos
FROM budgets_usagerollup
WHERE organization_id = %(organization)s AND hour >= %(whole_from)s AND hour < %(whole_to)s
UNION ALL
SELECT date_trunc('hour', started_at, 'UTC'), {_COLUMNS}, 1,
    CASE WHEN outcome IN ('cut', 'clamped', 'killed') THEN 1 ELSE 0 END, input_tokens,
    cached_input_tokens, output_tokens, reasoning_tokens, charge_nanos
FROM budgets_usageevent
WHERE organization_id = %(organization)s AND started_at >= %(since)s AND started_at < %(until)s
    AND (started_at < %(whole_from)s OR started_at >= %(whole_to)s)
UNION ALL
SELECT date_trunc('hour', e.started_at, 'UTC'), e.team_id, e.project_id, e.agent_id, e.model,
    e.provider, e.node, 0, 0, 0, 0, 0, 0, r.charge_nanos - r.old_charge_nanos
FROM budgets_rating r JOIN budgets_usageevent e ON e.id = r.usage_event_id
    AND e.started_at = r.started_at
WHERE r.organization_id = %(organization)s
    AND r.started_at >= %(since)s AND r.started_at < %(until)s
    AND (r.started_at < %(whole_from)s OR r.started_at >= %(whole_to)s)
"""  # noqa: S608 -- no value of a caller stands in it
_SUMS = """
    coalesce(sum(calls), 0), coalesce(sum(cut_calls), 0), coalesce(sum(input_tokens), 0),
    coalesce(sum(cached_input_tokens), 0), coalesce(sum(output_tokens), 0),
    coalesce(sum(reasoning_tokens), 0), coalesce(sum(charge_nanos), 0)
"""


@dataclass(frozen=True)
class Spend:
    """Use of one group: `key` has a value for each grouping, in their order; or of one hour."""

    key: tuple[str | None, ...]
    calls: int
    cut_calls: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    charge_nanos: int
    hour: datetime | None = None

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


def spend_by(
    *,
    organization_id: UUID,
    since: datetime,
    until: datetime,
    by: Sequence[str] = ("agent",),
    agent_id: UUID | None = None,
) -> list[Spend]:
    """Use in `[since, until)` grouped by one or more of GROUPINGS, the dearest first.

    Raises:
        KeyError: a grouping that is not known.
    """
    columns = [GROUPINGS[name] for name in by]
    keys = ", ".join(columns)
    rows = _run(
        f"SELECT {keys}, {_SUMS} FROM source {_WHERE_AGENT} GROUP BY {keys} ORDER BY sum(charge_nanos) DESC, sum(calls) DESC, {keys}",  # noqa: S608, E501 -- columns from GROUPINGS
        organization_id=organization_id,
        since=since,
        until=until,
        agent_id=agent_id,
    )
    return [
        spend_of(row[len(by) :], key=tuple(None if k is None else str(k) for k in row[: len(by)]))
        for row in rows
    ]


def spend_total(
    *, organization_id: UUID, since: datetime, until: datetime, agent_id: UUID | None = None
) -> Spend:
    """All use in `[since, until)`."""
    (row,) = _run(
        f"SELECT {_SUMS} FROM source {_WHERE_AGENT}",  # noqa: S608 -- constants
        organization_id=organization_id,
        since=since,
        until=until,
        agent_id=agent_id,
    )
    return spend_of(row, key=())


def hourly(
    *, organization_id: UUID, since: datetime, until: datetime, agent_id: UUID | None = None
) -> list[Spend]:
    """Use in `[since, until)` by the hour, hours without use included."""
    rows = _run(
        f"SELECT hour, {_SUMS} FROM source {_WHERE_AGENT} GROUP BY hour",  # noqa: S608 -- constants
        organization_id=organization_id,
        since=since,
        until=until,
        agent_id=agent_id,
    )
    found = {row[0]: spend_of(row[1:], key=(), hour=row[0]) for row in rows}
    hour, hours = floor_hour(since), []
    while hour < until:
        hours.append(found.get(hour) or spend_of((0,) * 7, key=(), hour=hour))
        hour += HOUR
    return hours


def floor_hour(instant: datetime) -> datetime:
    return EPOCH + (instant - EPOCH) // HOUR * HOUR


_WHERE_AGENT = "WHERE %(agent)s::uuid IS NULL OR agent_id = %(agent)s::uuid"


def spend_of(
    sums: Sequence[int], *, key: tuple[str | None, ...], hour: datetime | None = None
) -> Spend:
    calls, cut, inputs, cached, outputs, reasoning, charge = (int(amount) for amount in sums)
    return Spend(
        key=key,
        calls=calls,
        cut_calls=cut,
        input_tokens=inputs,
        cached_input_tokens=cached,
        output_tokens=outputs,
        reasoning_tokens=reasoning,
        charge_nanos=charge,
        hour=hour,
    )


def _run(
    query: str,
    *,
    organization_id: UUID,
    since: datetime,
    until: datetime,
    agent_id: UUID | None,
) -> list[tuple[Any, ...]]:
    whole_from = max(EPOCH, -(-(since - EPOCH) // HOUR) * HOUR + EPOCH)
    whole_to = max(whole_from, floor_hour(min(until, _folded_until())))
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH source AS ({_SOURCE}) {query}",
            {
                "organization": organization_id,
                "since": since,
                "until": until,
                "whole_from": whole_from,
                "whole_to": whole_to,
                "agent": agent_id,
            },
        )
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows


def _folded_until() -> datetime:
    """Hours before it are folded, except for what was received within the last fold's overlap."""
    watermark = RollupWatermark.objects.filter(name=NAME).first()
    return watermark.received_at - OVERLAP if watermark else EPOCH
