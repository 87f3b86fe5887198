"""What a node costs at a time, and what a stretch of time of it cost."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from enforcement.rules.nodecost import Cost, Span, cost_at, cost_between_nanos, in_force, spans

START = datetime(2026, 5, 13, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
USD = 1_000_000_000
FIRST = Cost(START, 1, 2 * USD, "NVIDIA H100", 1, 700)
DEARER = Cost(START + 2 * HOUR, 2, 3 * USD, "NVIDIA H100", 1, 700)
CORRECTED = Cost(START, 3, 4 * USD, "NVIDIA H200", 1, 700)
ALL = [DEARER, CORRECTED, FIRST]


def test_before_the_first_date_nothing_is_known() -> None:
    assert cost_at([FIRST], START - timedelta(microseconds=1)) is None
    assert cost_at([], START) is None


def test_a_cost_is_in_force_from_its_instant_until_the_next_ones() -> None:
    assert cost_at([DEARER, FIRST], START) == FIRST
    assert cost_at([DEARER, FIRST], START + 2 * HOUR - timedelta(microseconds=1)) == FIRST
    assert cost_at([DEARER, FIRST], START + 2 * HOUR) == DEARER
    assert cost_at([DEARER, FIRST], START + 999 * HOUR) == DEARER


def test_of_the_same_date_the_one_that_was_recorded_last_holds() -> None:
    assert cost_at(ALL, START) == CORRECTED
    assert in_force(ALL) == [CORRECTED, DEARER]


def test_time_is_divided_where_a_cost_begins() -> None:
    found = list(spans(ALL, since=START - HOUR, until=START + 3 * HOUR))
    assert found == [
        Span(START - HOUR, START, None),
        Span(START, START + 2 * HOUR, CORRECTED),
        Span(START + 2 * HOUR, START + 3 * HOUR, DEARER),
    ]
    assert list(spans(ALL, since=START, until=START)) == []


def test_a_stretch_of_time_costs_by_the_microsecond_and_is_rounded_up_once() -> None:
    until = START + 2 * HOUR + timedelta(minutes=20)
    assert cost_between_nanos(ALL, since=START - HOUR, until=until) == (9 * USD, HOUR)
    tick = timedelta(microseconds=1)
    one_nano = [Cost(START, 1, 1)]
    assert cost_between_nanos(one_nano, since=START, until=START + tick) == (1, timedelta(0))
    assert cost_between_nanos(one_nano, since=START, until=START) == (0, timedelta(0))


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 10**12)), max_size=8),
    st.integers(0, 20),
    st.integers(0, 20),
)
def test_spans_cover_the_time_without_gaps_and_agree_with_each_instant(
    dated: list[tuple[int, int]], since_h: int, length_h: int
) -> None:
    costs = [Cost(START + after * HOUR, order, nanos) for order, (after, nanos) in enumerate(dated)]
    since = START + since_h * HOUR
    until = since + length_h * HOUR
    edge = since
    for span in spans(costs, since=since, until=until):
        assert span.since == edge < span.until
        assert span.cost == cost_at(costs, span.since)
        assert span.cost == cost_at(costs, span.until - timedelta(microseconds=1))
        edge = span.until
    assert edge == until
