"""Use of whole days (UTC) by up to two dimensions, or by one and time.

What a question names — its groupings and its filters together — decides who answers it. Up to two
dimensions: the cells, whole weeks first and days at the ends, so that a year is as quick as a
month. More, two tags, or sessions: the events themselves, which takes longer the more there are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import MAXYEAR, date, datetime, timedelta
from typing import Any

from django.db import OperationalError, connection, transaction
from django.db.backends.utils import CursorWrapper
from psycopg.errors import QueryCanceled

from budgets.domain.dimensions import COLUMNS, OWNERS, Dimension, Pair, pair_of
from budgets.domain.foldsql import MEASURES
from budgets.domain.rollups import NAME
from budgets.errors import UsageQueryError
from budgets.models import RollupWatermark
from budgets.queries.exploresql import (
    SESSION,
    TIMES,
    Grouping,
    Question,
    Source,
    of_cells,
    of_events,
)
from budgets.queries.spending import Spend, spend_of

MOST_GROUPS = 10_000
LONGEST_DAYS = 400
MOST_FILTERS = 8
PATIENCE_MS = 30_000  # then a question to the events is given up
# Cells are read in ranges of their key and added up in a hash, however many there are: the planner
# is left no choice, so that an answer does not take many times as long from one day to the next.
ONE_WAY = """
SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off;
SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL work_mem = '32MB'
"""
TAG = "tag:"


def grouping_of(name: str) -> Grouping:
    """What a name like `agent`, `tag:env`, `session` or `day` stands for.

    Raises:
        UsageQueryError: nothing of that name.
    """
    if name.startswith(TAG) and len(name) > len(TAG):
        return Grouping(name, Dimension.TAG, name.removeprefix(TAG))
    if name == SESSION or name in TIMES:
        return Grouping(name)
    if name in set(COLUMNS):
        return Grouping(name, Dimension(name))
    known = ", ".join([*COLUMNS, f"{TAG}NAME", SESSION, *TIMES])
    raise UsageQueryError("group_by", f"nothing is told apart by {name!r}; there is {known}")


@dataclass(frozen=True)
class Answer:
    """The dearest groups, or with time the earliest first; the total is of all groups."""

    groups: list[Spend]
    total: Spend
    found: int  # groups, also those beyond `most`
    from_events: bool
    folded_at: datetime | None  # of the last fold: the cells hold what was booked before


def ask(question: Question) -> Answer:
    """Answer a question.

    Raises:
        UsageQueryError: it cannot be asked so, or takes too long.
    """
    check_question(question)
    pair = pair_behind(question)
    source = of_events(question) if pair is None else of_cells(question, pair)
    mark = RollupWatermark.objects.filter(name=NAME).first()
    (found, _, *total), *rows = _run(question, source, of_cells=pair is not None)
    return Answer(
        groups=[spend_of(row[2:], key=_key(question, row[1])) for row in rows],
        total=spend_of(total, key=()),
        found=found,
        from_events=pair is None,
        folded_at=mark.folded_at if mark else None,
    )


def check_question(question: Question) -> None:
    """Refuse what cannot be meant.

    Raises:
        UsageQueryError: with the argument that is wrong.
    """
    check_days(question.since, question.until)
    names = [one.name for one in question.by]
    wrong = (
        (len(names) > 2, "group_by", "at most two"),
        (len(set(names)) < len(names), "group_by", "the same twice"),
        (sum(one.is_time for one in question.by) > 1, "group_by", "one span of time at most"),
        (len(question.filters) > MOST_FILTERS, "filter", f"at most {MOST_FILTERS}"),
        (any(one.is_time for one in question.filters), "filter", "time has since and until"),
        (not 1 <= question.most <= MOST_GROUPS, "limit", f"1 to {MOST_GROUPS:,}"),
    )
    for is_wrong, field, message in wrong:
        if is_wrong:
            raise UsageQueryError(field, message)


def check_days(since: date, until: date) -> None:
    """Refuse days that are none, or too many.

    Raises:
        UsageQueryError: with the argument that is wrong.
    """
    if since >= until:
        raise UsageQueryError("since", "must be before until")
    if until - since > timedelta(days=LONGEST_DAYS):
        raise UsageQueryError("since", f"at most {LONGEST_DAYS} days at once")
    if until.year >= MAXYEAR:
        raise UsageQueryError("until", f"must be before {MAXYEAR}")


def pair_behind(question: Question) -> Pair | None:
    """The pair of dimensions whose cells answer; None where the events must."""
    asked = {one for one in (*question.by, *question.filters) if not one.is_time}
    if any(one.dimension is None for one in asked):
        return None
    pair = pair_of([one.dimension for one in asked if one.dimension])
    by_hour = any(one.name == "hour" for one in question.by)
    return None if pair and pair.second and by_hour else pair


def statement(source: Source, question: Question) -> str:
    """One statement: a row (groups, no key, sums) of all, then (0, key, sums) of each shown."""
    sums = ", ".join(f"coalesce(sum({name}), 0)::bigint AS {name}" for name in MEASURES)
    keys = ", ".join(f"k{n}" for n in range(len(question.by)))
    grouped = f"GROUP BY {keys}" if keys else ""
    times = [f"k{n}" for n, one in enumerate(question.by) if one.is_time]
    order = ", ".join([*times, "charge_nanos DESC", "calls DESC", *keys.split(", ")]).rstrip(", ")
    values = ", ".join(source.values)
    return f"""
    WITH grouped AS MATERIALIZED (
        SELECT {keys}{"," if keys else ""} {sums} FROM ({source.sql}) AS source {grouped}
        HAVING sum(calls) <> 0 OR sum(charge_nanos) <> 0
    ), shown AS (
        SELECT *, row_number() OVER (ORDER BY {order}) AS place FROM grouped
        ORDER BY place LIMIT %(most)s
    )
    SELECT count(*), ARRAY[]::text[], {sums} FROM grouped
    UNION ALL (
        SELECT 0, ARRAY[{values}]::text[], {", ".join(MEASURES)}
        FROM shown ORDER BY place
    )
    """  # noqa: S608 -- of our own words alone


@contextmanager
def planned(*, of_cells: bool) -> Iterator[CursorWrapper]:
    """A cursor in a transaction with the settings under which questions are planned and run."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL jit = off; SET LOCAL timezone = 'UTC'")
        cursor.execute(f"SET LOCAL statement_timeout = {PATIENCE_MS}")
        if of_cells:
            cursor.execute(ONE_WAY)
        yield cursor


def _run(question: Question, source: Source, *, of_cells: bool) -> list[tuple[Any, ...]]:
    given = source.given | {"most": question.most}
    try:
        with planned(of_cells=of_cells) as cursor:
            cursor.execute(statement(source, question), given)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows
    except OperationalError as error:
        if isinstance(error.__cause__, QueryCanceled):
            raise UsageQueryError(
                "since", "too much to read: ask for fewer days, or for fewer dimensions"
            ) from error
        raise


def _key(question: Question, values: list[str]) -> tuple[str | None, ...]:
    """Values as text; nobody's team or project is None, as everywhere."""
    return tuple(
        None if one.dimension in OWNERS and value == "" else value
        for one, value in zip(question.by, values, strict=True)
    )
