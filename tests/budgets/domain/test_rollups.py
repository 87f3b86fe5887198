"""Hourly rows are what the events say, whenever and however often they are folded."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import DataError, connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from budgets.domain import rollups
from budgets.domain.foldsql import MOST
from budgets.domain.rollups import Folded, fold_usage
from budgets.domain.usage import book_usage
from budgets.models import RollupWatermark, UnfoldedUse, UsageCell, UsageEvent, UsageRollup
from controlplane.identity.ids import new_id
from enforcement.rules.wire import Outcome
from tests.budgets.world import NOW, World, call, make_world, ms

HOUR = timedelta(hours=1)
TEN = datetime(2026, 5, 13, 10, tzinfo=UTC)


def book(world: World, *starts: datetime, now: datetime = NOW, **changes: Any) -> None:
    events = [call(world, started_at_ms=ms(start), **changes) for start in starts]
    book_usage(organization_id=world.id, sidecar_id=None, events=events, now=now)


def hours(world: World) -> dict[datetime, tuple[int, int]]:
    rows = UsageRollup.objects.filter(organization=world.organization)
    return {row.hour: (row.calls, row.charge_nanos) for row in rows}


def test_an_event_lands_in_the_hour_of_its_start(world: World) -> None:
    book(world, TEN - timedelta(milliseconds=1), TEN, TEN + timedelta(minutes=20))
    assert fold_usage(now=NOW) == Folded(hours=2)
    assert hours(world) == {TEN - HOUR: (1, 1_500), TEN: (2, 3_000)}


def test_every_figure_is_summed(world: World) -> None:
    kinds: dict[str, Any] = {"cached_input_tokens": 7, "reasoning_tokens": 3}
    book(world, TEN, TEN, outcome=Outcome.CUT, **kinds)
    fold_usage(now=NOW)
    row = UsageRollup.objects.get()
    assert (row.calls, row.cut_calls, row.input_tokens, row.cached_input_tokens) == (2, 2, 200, 14)
    assert (row.output_tokens, row.reasoning_tokens, row.charge_nanos) == (40, 6, 3_000)
    assert (row.team, row.project, row.agent) == (world.team, world.project, world.agent)


def test_what_no_call_can_have_used_holds_up_no_fold(world: World) -> None:
    """An enemy with a sidecar's token may say the largest count of each call."""
    for _ in range(3):
        book(world, TEN, TEN, TEN, input_tokens=2**62, charge_nanos=2**62)
        fold_usage(now=NOW)
    book(world, TEN - HOUR)
    assert fold_usage(now=NOW) == Folded(hours=1)
    wild, honest = UsageRollup.objects.order_by("-hour")
    assert (wild.calls, wild.input_tokens, wild.charge_nanos) == (9, 2 * MOST, 2 * MOST)
    assert (honest.calls, honest.charge_nanos) == (1, 1_500)


@pytest.mark.parametrize("most", [2**46 - 2_001, 2**46 + 5])
def test_sums_are_exact_by_either_way(world: World, most: int) -> None:
    """The quick sums end at 2**46, where those that cannot overflow go on."""
    book(world, TEN, input_tokens=most, charge_nanos=1)
    book(world, TEN, input_tokens=7, charge_nanos=2)
    fold_usage(now=NOW)
    row = UsageRollup.objects.get()
    assert (row.input_tokens, row.charge_nanos) == (most + 7, 3)
    days = UsageCell.objects.filter(hours=24).values_list("input_tokens", "charge_nanos")
    assert set(days) == {(most + 7, 3)}


def test_the_quick_sum_never_wraps(world: World) -> None:
    with connection.cursor() as cursor, pytest.raises(DataError, match="out of range"):
        cursor.execute("SELECT budgets_sum(n) FROM (VALUES (%s), (1)) v (n)", [2**63 - 1])


@pytest.mark.parametrize("field", ["model", "provider", "node"])
def test_each_key_has_a_row(world: World, field: str) -> None:
    for name in ("one", "two"):
        changes: dict[str, Any] = {field: name}
        book(world, TEN, **changes)
    fold_usage(now=NOW)
    assert UsageRollup.objects.count() == 2


def test_rows_without_team_are_not_doubled(world: World) -> None:
    for _ in range(2):
        book(world, TEN, agent=str(world.loner.id))
        fold_usage(now=NOW)
    assert hours(world) == {TEN: (2, 3_000)}


def test_a_second_fold_changes_nothing(world: World) -> None:
    book(world, TEN)
    fold_usage(now=NOW)
    before = list(UsageRollup.objects.values())
    fold_usage(now=NOW)
    fold_usage(now=NOW + HOUR)
    assert list(UsageRollup.objects.values()) == before


def test_a_late_event_corrects_its_hour(world: World) -> None:
    book(world, TEN)
    fold_usage(now=NOW)
    much_later = NOW + timedelta(days=9)
    book(world, TEN, now=much_later)
    assert fold_usage(now=much_later) == Folded(hours=1)
    assert hours(world) == {TEN: (2, 3_000)}


def test_an_event_that_became_visible_late_is_found(world: World) -> None:
    """Received before the last fold, committed after it."""
    fold_usage(now=NOW)
    book(world, TEN, now=NOW - timedelta(minutes=1))
    fold_usage(now=NOW + timedelta(seconds=15))
    assert hours(world) == {TEN: (1, 1_500)}


def test_the_watermark_never_falls(world: World) -> None:
    fold_usage(now=NOW)
    fold_usage(now=NOW - HOUR)
    assert RollupWatermark.objects.get().received_at == NOW


def test_a_fold_takes_what_waits_in_batches(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for minutes in range(5):
        book(world, TEN + timedelta(minutes=minutes))
    monkeypatch.setattr(rollups, "ROWS_AT_ONCE", 2)
    monkeypatch.setattr(rollups, "MOST_BATCHES", 2)
    later = NOW + HOUR
    fold_usage(now=later)
    assert hours(world) == {TEN: (4, 6_000)}
    assert RollupWatermark.objects.get().received_at == NOW, "what waits was received then"
    fold_usage(now=later)
    assert hours(world) == {TEN: (5, 7_500)}
    assert RollupWatermark.objects.get().received_at == later
    assert not UnfoldedUse.objects.exists()


def test_organizations_are_apart(world: World) -> None:
    other = make_world("other")
    book(world, TEN)
    book(other, TEN, TEN)
    fold_usage(now=NOW)
    assert (hours(world), hours(other)) == ({TEN: (1, 1_500)}, {TEN: (2, 3_000)})


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_course_of_folds_ends_at_the_truth(world: World, data: st.DataObject) -> None:
    """Late events, folds in between, folds by clocks apart: the rows are the sums of the events."""
    mine = f"m{new_id()}"
    now = NOW
    for minutes, late, fold in data.draw(
        st.lists(
            st.tuples(st.integers(0, 90), st.integers(0, 5_000), st.booleans()),
            min_size=1,
            max_size=8,
        )
    ):
        now += timedelta(minutes=minutes)
        book(world, now - timedelta(minutes=late), now=now, model=mine)
        if fold:
            fold_usage(now=now + timedelta(seconds=data.draw(st.integers(0, 60))))
    fold_usage(now=now + timedelta(minutes=2))
    truth: dict[datetime, int] = {}
    for event in UsageEvent.objects.filter(model=mine):
        hour = event.started_at.replace(minute=0, second=0, microsecond=0)
        truth[hour] = truth.get(hour, 0) + 1
    rows = UsageRollup.objects.filter(model=mine)
    assert {row.hour: row.calls for row in rows} == truth
