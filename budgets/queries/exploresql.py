"""The SQL behind `explore`: rows of (k0, k1, measures) out of cells, or out of the events."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from budgets.domain.dimensions import COLUMNS, NUMBERS, OWNERS, Dimension, Pair
from budgets.domain.foldsql import CUT, MEASURES

SESSION = "session"
TOO_MANY_TEXT = "(other)"
TIMES = {"hour": 1, "day": 24, "week": 168}
_NAMES = ", ".join(MEASURES)
_NEGATIVE = ", ".join(f"-{name}" for name in MEASURES)


@dataclass(frozen=True)
class Grouping:
    """One thing to group or filter by: a dimension, one tag, a session, or a span of time."""

    name: str
    dimension: Dimension | None = None
    tag: str = ""

    @property
    def is_time(self) -> bool:
        return self.name in TIMES


@dataclass(frozen=True)
class Question:
    """What is asked: days `[since, until)`, groupings in order, filters on exact values."""

    organization_id: UUID
    since: date
    until: date
    by: tuple[Grouping, ...] = ()
    filters: Mapping[Grouping, str] = field(default_factory=dict)
    most: int = 100


@dataclass(frozen=True)
class Source:
    """Rows of a key for each grouping (`k0`, `k1`) and the measures.

    `values`: how a key reads as text, for each; `given`: the parameters of all of it.
    """

    sql: str
    values: Sequence[str]
    given: dict[str, Any]


def spans(since: date, until: date, *, whole_weeks: bool) -> list[tuple[int, date, date]]:
    """Days `[since, until)` as (hours of a cell, from, to): whole weeks, and days at the ends."""
    monday = since + timedelta(days=-since.weekday() % 7)
    last = until - timedelta(days=until.weekday())
    if not whole_weeks or monday >= last:
        return [(TIMES["day"], since, until)]
    parts = [
        (TIMES["day"], since, monday),
        (TIMES["week"], monday, last),
        (TIMES["day"], last, until),
    ]
    return [part for part in parts if part[1] < part[2]]


# ------------------------------------------------------------------------------ cells


def of_cells(question: Question, pair: Pair) -> Source:
    """The cells of one pair: whole weeks and days, or hours where hours are asked for."""
    given: dict[str, Any] = {"organization": question.organization_id}
    step = next((one.name for one in question.by if one.is_time), None)
    periods = _periods(question, step, given)
    tag = next((one.tag for one in (*question.by, *question.filters) if one.tag), "")
    cells = _tagged(pair, periods) if tag else _of_pair(pair, periods)
    given |= {"tag": f"{tag}=", "tag_length": len(tag) + 1, "other": TOO_MANY_TEXT}
    keys = [f"{_cell_key(one, pair)} AS k{n}" for n, one in enumerate(question.by)]
    where = ["true"]
    for number, (one, value) in enumerate(question.filters.items()):
        where.append(f"{_cell_key(one, pair)} = {_value_number(one, number)}")
        given[f"value{number}"] = f"{one.tag}={value}" if one.tag and value else value
    sql = f"SELECT {', '.join([*keys, _NAMES])} FROM ({cells}) AS cells WHERE {' AND '.join(where)}"  # noqa: S608 -- of our own words alone
    values = [_text_of(one, number) for number, one in enumerate(question.by)]
    return Source(sql, values, given)


def _periods(question: Question, step: str | None, given: dict[str, Any]) -> list[str]:
    """Conditions, each of them one range of the cells' key."""
    parts = (
        [(TIMES["hour"], question.since, question.until)]
        if step == "hour"
        else spans(question.since, question.until, whole_weeks=step is None)
    )
    for number, (hours, since, until) in enumerate(parts):
        given[f"hours{number}"] = hours
        given[f"since{number}"], given[f"until{number}"] = midnight(since), midnight(until)
    return [
        f"hours = %(hours{n})s AND start >= %(since{n})s AND start < %(until{n})s"
        for n in range(len(parts))
    ]


def midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)


def _of_pair(pair: Pair, periods: Sequence[str], more: str = "") -> str:
    return " UNION ALL ".join(
        f"SELECT start, first, second, {_NAMES} FROM budgets_usagecell"  # noqa: S608 -- constants
        f" WHERE organization_id = %(organization)s AND dimensions = {pair.code} AND {period}{more}"
        for period in periods
    )


def _tagged(pair: Pair, periods: Sequence[str]) -> str:
    """Cells of one tag, and as value 0 what has not this tag: all without those that have it."""
    other = None if pair.second is None else pair.first
    keys = ("first", "0") if pair.second is None else ("first", "second")
    unsaid = "0, 0" if other is None else "first, 0"
    ids = f"""
    SELECT id FROM budgets_usagevalue WHERE organization_id = %(organization)s
        AND dimension = {NUMBERS[Dimension.TAG]} AND left(value, %(tag_length)s) = %(tag)s
    """  # noqa: S608 -- constants
    # "Is true" keeps it one look-up in a hash for each cell: a join would be planned by its size.
    has_tag = f" AND ({'first' if other is None else 'second'} IN ({ids})) IS TRUE"
    return f"""
    WITH mine AS MATERIALIZED ({_of_pair(pair, periods, has_tag)})
    SELECT start, {", ".join(keys)}, {_NAMES} FROM mine
    UNION ALL SELECT start, {unsaid}, {_NEGATIVE} FROM mine
    UNION ALL SELECT start, {unsaid}, {_NAMES} FROM ({_of_pair(Pair(other), periods)}) AS every
    """  # noqa: S608 -- constants


def _cell_key(one: Grouping, pair: Pair) -> str:
    if one.is_time:
        return f"date_trunc('{one.name}', start, 'UTC')"
    return "first" if pair.first is one.dimension else "second"


def _value_number(one: Grouping, number: int) -> str:
    dimension = NUMBERS[one.dimension] if one.dimension else 0
    found = (
        f"SELECT id FROM budgets_usagevalue WHERE organization_id = %(organization)s"  # noqa: S608 -- constants
        f" AND dimension = {dimension} AND value = %(value{number})s"
    )
    return f"CASE %(value{number})s::text WHEN '' THEN 0 ELSE ({found}) END"


def _text_of(one: Grouping, number: int) -> str:
    if one.is_time:
        return f"k{number}::text"
    value = "substr(value, %(tag_length)s + 1)" if one.tag else "value"
    found = f"SELECT {value} FROM budgets_usagevalue WHERE id = k{number}"  # noqa: S608 -- constants
    return f"CASE k{number} WHEN 0 THEN '' ELSE coalesce(({found}), %(other)s) END"


# ------------------------------------------------------------------------------ events


def of_events(question: Question) -> Source:
    """The events themselves, and what they were rated at since."""
    given: dict[str, Any] = {
        "organization": question.organization_id,
        "since": midnight(question.since),
        "until": midnight(question.until),
    }
    keys = [_event_key(one, f"by{n}", given) for n, one in enumerate(question.by)]
    where = ["e.organization_id = %(organization)s"]
    for number, (one, value) in enumerate(question.filters.items()):
        where.append(f"{_event_key(one, f'filter{number}', given)} = %(value{number})s")
        given[f"value{number}"] = value
    selected = [f"{key} AS k{n}" for n, key in enumerate(keys)]
    used = (
        f"1 AS calls, (e.outcome IN {CUT})::int AS cut_calls, "
        f"{', '.join(f'e.{name}' for name in MEASURES[2:])}"
    )
    rated = "0, 0, 0, 0, 0, 0, r.charge_nanos - r.old_charge_nanos"
    of_range = "{0}.started_at >= %(since)s AND {0}.started_at < %(until)s"
    sql = f"""
    SELECT {", ".join([*selected, used])} FROM budgets_usageevent e
    WHERE {" AND ".join([*where, of_range.format("e")])}
    UNION ALL
    SELECT {", ".join([*keys, rated])} FROM budgets_rating r JOIN budgets_usageevent e
        ON e.id = r.usage_event_id AND e.started_at = r.started_at
    WHERE {" AND ".join([*where, of_range.format("r"), of_range.format("e")])}
        AND r.organization_id = %(organization)s
    """  # noqa: S608 -- of our own words alone
    return Source(sql, [f"k{n}::text" for n in range(len(keys))], given)


def _event_key(one: Grouping, name: str, given: dict[str, Any]) -> str:
    if one.is_time:
        return f"date_trunc('{one.name}', e.started_at, 'UTC')"
    if one.tag:
        given[name] = one.tag
        return f"coalesce(e.tags ->> %({name})s, '')"
    if one.dimension is None:
        return "e.session"
    column = f"e.{COLUMNS[one.dimension]}"
    return f"coalesce({column}::text, '')" if one.dimension in OWNERS else column
