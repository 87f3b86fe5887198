"""Sums are exact whether an hour is folded, half in range, or not folded yet."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from budgets import queries
from budgets.domain.rollups import fold_usage
from budgets.domain.usage import book_usage
from budgets.models import RollupWatermark
from controlplane.identity.ids import new_id
from enforcement.rules.wire import Outcome
from tests.budgets.world import NOW, World, call, make_world, ms

HOUR = timedelta(hours=1)
TEN = datetime(2026, 5, 13, 10, tzinfo=UTC)
WIDE: dict[str, Any] = {"since": NOW - timedelta(days=2), "until": NOW}


def book(world: World, *starts: datetime, **changes: Any) -> None:
    events = [call(world, started_at_ms=ms(start), **changes) for start in starts]
    book_usage(organization_id=world.id, sidecar_id=None, events=events, now=NOW)


def test_groups_come_dearest_first(world: World) -> None:
    book(world, TEN, model="cheap", charge_nanos=1)
    book(world, TEN, model="dear", charge_nanos=9, outcome=Outcome.CUT)
    book(world, TEN, model="cheap", charge_nanos=0, agent=str(world.loner.id))
    book(make_world("other"), TEN)
    groups = queries.spend_by(organization_id=world.id, by=["model"], **WIDE)
    assert [(g.key, g.calls, g.cut_calls, g.charge_nanos) for g in groups] == [
        (("dear",), 1, 1, 9),
        (("cheap",), 2, 0, 1),
    ]
    both = queries.spend_by(organization_id=world.id, by=["agent", "model"], **WIDE)
    assert [group.key for group in both] == [
        (str(world.agent.id), "dear"),
        (str(world.agent.id), "cheap"),
        (str(world.loner.id), "cheap"),
    ]
    assert queries.spend_by(organization_id=world.id, by=["team"], **WIDE)[1].key == (None,)


def test_an_unknown_grouping_is_an_error(world: World) -> None:
    with pytest.raises(KeyError):
        queries.spend_by(organization_id=world.id, by=["mood"], **WIDE)


def test_ranges_are_half_open(world: World) -> None:
    book(world, TEN, TEN + HOUR / 4, TEN + HOUR / 2)
    scope: dict[str, Any] = {"organization_id": world.id}
    for _ in range(2):
        total = queries.spend_total(since=TEN, until=TEN + HOUR / 2, **scope)
        assert total.calls == 2
        fold_usage(now=NOW + 3 * HOUR)


def test_hours_without_use_are_there(world: World) -> None:
    book(world, TEN - 2 * HOUR, TEN, TEN)
    hours = queries.hourly(organization_id=world.id, since=TEN - 3 * HOUR, until=NOW)
    assert [(hour.hour, hour.calls, hour.tokens) for hour in hours] == [
        (TEN - 3 * HOUR, 0, 0),
        (TEN - 2 * HOUR, 1, 120),
        (TEN - HOUR, 0, 0),
        (TEN, 2, 240),
    ]


def test_of_one_agent(world: World) -> None:
    book(world, TEN)
    book(world, TEN, TEN, agent=str(world.loner.id))
    scope: dict[str, Any] = {"organization_id": world.id, "agent_id": world.loner.id, **WIDE}
    assert queries.spend_total(**scope).calls == 2
    assert len(queries.spend_by(**scope)) == 1
    assert sum(hour.calls for hour in queries.hourly(**scope)) == 2


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    minutes=st.lists(st.integers(0, 600), min_size=1, max_size=8),
    since=st.integers(0, 600),
    length=st.integers(1, 600),
    folded=st.one_of(st.none(), st.integers(0, 900)),
)
def test_any_range_sums_the_events_in_it(
    world: World, minutes: list[int], since: int, length: int, folded: int | None
) -> None:
    other = make_world(f"w{new_id().hex}")
    RollupWatermark.objects.all().delete()
    base = NOW - timedelta(minutes=600)
    starts = [base + timedelta(minutes=minute) for minute in minutes]
    book(other, *starts)
    if folded is not None:
        fold_usage(now=NOW + timedelta(minutes=folded))
    begin = base + timedelta(minutes=since)
    end = begin + timedelta(minutes=length)
    expected = sum(begin <= start < end for start in starts)
    scope: dict[str, Any] = {"organization_id": other.id, "since": begin, "until": end}
    assert queries.spend_total(**scope).calls == expected
    assert sum(hour.calls for hour in queries.hourly(**scope)) == expected
