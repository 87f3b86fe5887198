"""The SQL of a fold, made from the dimensions once.

`TAKE` sums the events and ratings of some rows of `UnfoldedUse` by hour and all dimensions, in a
temporary table; `KEY` finds the number of each value; `VALUES` numbers new ones, after which
`KEY` finds them; `STEPS` add all of it to the hourly rollups and to the cells. `FITS` tells whether
no sum of theirs can leave a bigint: then `QUICK_STEPS` do the same with sums of half the cost.
"""

# ruff: noqa: S608 -- nothing stands in it but names of our own

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from budgets.domain.cuboids import ALL, OF_DAYS, OF_HOURS, OF_TAGGED_DAYS, TAGGED, Cuboid, parents
from budgets.domain.dimensions import (
    COLUMNS,
    MOST_TAG_VALUES,
    MOST_VALUES,
    NOTHING_SAID,
    NUMBERS,
    OWNERS,
    PAIRS,
    PLAIN,
    SINGLES,
    TAG_PAIRS,
    TAG_SINGLES,
    TOO_MANY,
    Dimension,
    Pair,
)

CUT = "('cut', 'clamped', 'killed')"  # the endings that we brought about
MEASURES = (
    "calls",
    "cut_calls",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "charge_nanos",
)
_TOKENS = MEASURES[2:6]
_NAMES = ", ".join(MEASURES)
# What a sidecar says of a call may be up to 2**62. Sums that no truth reaches stay here: one that
# does not fit would hold up every fold after it. Two of these fit into a bigint.
MOST = 2**62 - 1


def _within(number: str) -> str:
    return f"greatest(least({number}, {MOST}), -{MOST})::bigint"


# PostgreSQL's own sum of bigints is a numeric. Ours is a bigint, and fails where it does not fit.
_SUMS = ", ".join(f"{_within(f'sum({name})')} AS {name}" for name in MEASURES)
_QUICK_SUMS = ", ".join(f"budgets_sum({name}) AS {name}" for name in MEASURES)
_DIMENSIONS = ", ".join(f'"{name}"' for name in PLAIN)
_NUMBERS = ", ".join(f"{name}_n" for name in PLAIN)
_TAG = NUMBERS[Dimension.TAG]


def added_to(table: str) -> str:
    """What an upsert of sums does with the row that it finds."""
    return ", ".join(
        f"{name} = {_within(f'{table}.{name}')} + excluded.{name}" for name in MEASURES
    )


def _of_event(measures: str) -> str:
    said = ", ".join(
        f"coalesce(e.{column}::text, '') AS \"{name}\""
        if name in OWNERS
        else f'e.{column} AS "{name}"'
        for name, column in COLUMNS.items()
    )
    return f"""
    SELECT e.organization_id, date_trunc('hour', e.started_at, 'UTC') AS hour, {said}, e.tags,
        {measures}"""


_CREATE = f"""
CREATE TEMPORARY TABLE IF NOT EXISTS folding (
    organization_id uuid, hour timestamptz, {", ".join(f'"{name}" text' for name in PLAIN)},
    tags jsonb, {", ".join(f"{name} bigint" for name in MEASURES)}
) ON COMMIT DELETE ROWS
"""
_FILL = f"""
WITH taken AS (
    DELETE FROM budgets_unfoldeduse WHERE id = ANY(%(rows)s) RETURNING events, starts, ratings
), use AS (
    {
    _of_event(
        f"1 AS calls, (e.outcome IN {CUT})::int AS cut_calls, "
        + ", ".join(f"e.{name}" for name in (*_TOKENS, "charge_nanos"))
    )
}
    FROM taken CROSS JOIN LATERAL unnest(taken.events, taken.starts) AS new (id, started_at)
    JOIN budgets_usageevent e ON e.id = new.id AND e.started_at = new.started_at
    UNION ALL
    {_of_event("0, 0, 0, 0, 0, 0, r.charge_nanos - r.old_charge_nanos")}
    FROM taken CROSS JOIN LATERAL unnest(taken.ratings) AS new (id)
    JOIN budgets_rating r ON r.id = new.id
    JOIN budgets_usageevent e ON e.id = r.usage_event_id AND e.started_at = r.started_at
)
INSERT INTO pg_temp.folding
SELECT organization_id, hour, {_DIMENSIONS}, tags, {_SUMS} FROM use
GROUP BY organization_id, hour, {_DIMENSIONS}, tags
"""
TAKE = (_CREATE, "TRUNCATE pg_temp.folding", _FILL)
# A call counts once in a cell, and in that of tags that are too many once for each of its tags: no
# sum of so few is beyond what is left.
_FEW = MOST >> 16
_ALL_FEW = " AND ".join(f"sum(abs({name}::numeric)) <= {_FEW}" for name in MEASURES)
FITS = f"SELECT coalesce({_ALL_FEW}, true) FROM pg_temp.folding"


def _hourly(sums: str) -> str:
    return f"""
INSERT INTO budgets_usagerollup AS kept (
    hour, organization_id, team_id, project_id, agent_id, model, provider, node, {_NAMES}
)
SELECT hour, organization_id, nullif(team, '')::uuid, nullif(project, '')::uuid, agent::uuid,
    model, provider, node, {sums}
FROM pg_temp.folding GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
ON CONFLICT ON CONSTRAINT rollup_one_for_each_key DO UPDATE SET {added_to("kept")}
"""


# The values most used come first, so that those beyond the bound are the rare ones.
VALUES = f"""
WITH said AS (
    SELECT organization_id, v.dimension, v.value, sum(calls) AS calls
    FROM pg_temp.folding_keyed CROSS JOIN LATERAL (
        VALUES {", ".join(f'({NUMBERS[name]}, {name}_n, "{name}")' for name in PLAIN)}
    ) AS v (dimension, number, value)
    WHERE {TOO_MANY} IN ({_NUMBERS}) AND v.number = {TOO_MANY} GROUP BY 1, 2, 3
    UNION ALL
    SELECT organization_id, {_TAG}, t.key || '=' || t.value, sum(calls)
    FROM pg_temp.folding CROSS JOIN LATERAL jsonb_each_text(tags) AS t GROUP BY 1, 2, 3
), new AS (
    SELECT organization_id, dimension, value, calls,
        CASE dimension WHEN {_TAG} THEN split_part(value, '=', 1) ELSE '' END AS key
    FROM said WHERE NOT EXISTS (
        SELECT FROM budgets_usagevalue k WHERE k.organization_id = said.organization_id
            AND k.dimension = said.dimension AND k.value = said.value
    )
), known AS (
    SELECT organization_id, dimension,
        CASE dimension WHEN {_TAG} THEN split_part(value, '=', 1) ELSE '' END AS key,
        count(*) AS many
    FROM budgets_usagevalue WHERE (organization_id, dimension) IN (
        SELECT organization_id, dimension FROM new
    ) GROUP BY 1, 2, 3
), ranked AS (
    SELECT new.organization_id, new.dimension, new.value, new.calls, coalesce(known.many, 0)
        + row_number() OVER of_key AS of_key,
        coalesce((SELECT sum(k.many) FROM known k WHERE k.organization_id = new.organization_id
            AND k.dimension = new.dimension), 0) + row_number() OVER of_dimension AS of_dimension
    FROM new LEFT JOIN known USING (organization_id, dimension, key)
    WINDOW of_key AS (PARTITION BY new.organization_id, new.dimension, new.key
            ORDER BY new.calls DESC, new.value),
        of_dimension AS (PARTITION BY new.organization_id, new.dimension
            ORDER BY new.calls DESC, new.value)
)
INSERT INTO budgets_usagevalue (organization_id, dimension, value)
SELECT organization_id, dimension, value FROM ranked
WHERE of_dimension <= {MOST_VALUES}
    AND (dimension <> {_TAG} OR of_key <= {MOST_TAG_VALUES})
ORDER BY organization_id, dimension, value  -- two folds at once never wait in a ring
ON CONFLICT DO NOTHING
"""


def _join(alias: str, number: int, value: str) -> str:
    return f"""LEFT JOIN budgets_usagevalue {alias} ON {alias}.organization_id = f.organization_id
        AND {alias}.dimension = {number} AND {alias}.value = {value}"""


_CREATE_KEYED = f"""
CREATE TEMPORARY TABLE IF NOT EXISTS folding_keyed (
    LIKE pg_temp.folding, {", ".join(f"{name}_n int" for name in PLAIN)}
) ON COMMIT DELETE ROWS
"""
_NUMBERED = ", ".join(
    f"CASE f.\"{name}\" WHEN '' THEN {NOTHING_SAID}"
    f" ELSE coalesce(v{NUMBERS[name]}.id, {TOO_MANY}) END AS {name}_n"
    for name in PLAIN
)
_NAMED = "\n".join(_join(f"v{NUMBERS[name]}", NUMBERS[name], f'f."{name}"') for name in PLAIN)
KEY = (
    _CREATE_KEYED,
    "TRUNCATE pg_temp.folding_keyed",
    f"INSERT INTO pg_temp.folding_keyed SELECT f.*, {_NUMBERED} FROM pg_temp.folding f {_NAMED}",
)


def _rows(pairs: Iterable[Pair]) -> str:
    """`VALUES` of (code, first, second) for each pair."""
    return ", ".join(
        f"({pair.code}, {_number_column(pair.first)}, {_number_column(pair.second)})"
        for pair in pairs
    )


def _number_column(dimension: Dimension | None) -> str:
    return f"{dimension}_n" if dimension else str(NOTHING_SAID)


class _Source(NamedTuple):
    """Pairs, the cuboids on their way, and what stands before these."""

    before: str
    cuboids: Sequence[Cuboid]
    pairs: Sequence[Pair]


def _cells(start: str, plain: _Source, tagged: _Source, sums: str) -> str:
    """Sums of `folding` by these pairs and the span that begins at `start`."""
    steps = [*_cuboids(plain, "", sums), *_cuboids(tagged, "tag_n, ", sums)]
    counted = " UNION ALL ".join((*_counted(plain), *_counted(tagged)))
    return f"""
WITH keyed AS MATERIALIZED (
    SELECT organization_id, {start} AS start, tags, {_NUMBERS}, {_NAMES}
    FROM pg_temp.folding_keyed
), tagged AS (
    SELECT f.*, coalesce(t_n.id, {TOO_MANY}) AS tag_n
    FROM keyed f CROSS JOIN LATERAL jsonb_each_text(f.tags) AS t
    {_join("t_n", _TAG, "t.key || '=' || t.value")}
), {"".join(f"{step}, " for step in steps)} counted AS ({counted})
SELECT organization_id, dimensions, start, first, second, {sums} FROM counted
GROUP BY organization_id, dimensions, start, first, second
"""


def _cuboids(source: _Source, tag: str, sums: str) -> Iterable[str]:
    for one in source.cuboids:
        columns = tag + ", ".join(f"{name}_n" for name in one.dimensions)
        yield f"""{one.name} AS MATERIALIZED (
    SELECT organization_id, start, {columns}, {sums} FROM {one.of}
    GROUP BY organization_id, start, {columns}
)"""


def _counted(source: _Source) -> Iterable[str]:
    for name, pairs in parents(source.pairs, source.cuboids, source.before).items():
        yield f"""
    SELECT organization_id, start, p.*, {_NAMES} FROM {name}
    CROSS JOIN LATERAL (VALUES {_rows(pairs)}) AS p (dimensions, first, second)"""


def _upsert(hours: int, source: str) -> str:
    return f"""
INSERT INTO budgets_usagecell AS kept (
    organization_id, dimensions, hours, start, first, second, {_NAMES}
)
SELECT organization_id, dimensions, {hours}, start, first, second, {_NAMES} FROM ({source}) AS new
ORDER BY organization_id, dimensions, start, first, second
ON CONFLICT (organization_id, dimensions, hours, start, first, second)
DO UPDATE SET {added_to("kept")}
"""


_CREATE_DAYS = f"""
CREATE TEMPORARY TABLE IF NOT EXISTS folding_days (
    organization_id uuid, dimensions smallint, start timestamptz, first int, second int,
    {", ".join(f"{name} bigint" for name in MEASURES)}
) ON COMMIT DELETE ROWS
"""


def _steps(sums: str) -> tuple[str, ...]:
    hours = _cells("hour", _Source(ALL, OF_HOURS, SINGLES), _Source(TAGGED, (), TAG_SINGLES), sums)
    days = _cells(
        "date_trunc('day', hour, 'UTC')",
        _Source(ALL, OF_DAYS, (*SINGLES, *PAIRS)),
        _Source(TAGGED, OF_TAGGED_DAYS, (*TAG_SINGLES, *TAG_PAIRS)),
        sums,
    )
    weeks = f"""
SELECT organization_id, dimensions, date_trunc('week', start, 'UTC') AS start, first, second,
    {sums}
FROM pg_temp.folding_days GROUP BY 1, 2, 3, 4, 5
"""
    return (
        _hourly(sums),
        _upsert(1, hours),
        _CREATE_DAYS,
        "TRUNCATE pg_temp.folding_days",
        f"INSERT INTO pg_temp.folding_days {days}",
        _upsert(24, "SELECT * FROM pg_temp.folding_days"),
        _upsert(168, weeks),
    )


STEPS, QUICK_STEPS = _steps(_SUMS), _steps(_QUICK_SUMS)
