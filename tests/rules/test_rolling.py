"""A ring counts every interval of its length, and never forgets too soon."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.rules.rolling import (
    MIN_BUCKET_S,
    Aged,
    Ring,
    new_ring,
    shape_problem,
    usual_parts,
)

MINUTE_MS = 60_000
uses = st.lists(
    st.tuples(st.integers(0, 20 * MINUTE_MS), st.integers(1, 100)), min_size=1, max_size=60
)


class Use(NamedTuple):
    at_ms: int
    amount: int


def ring_of(*spent: int, newest: int = 100) -> Ring:
    return Ring(MINUTE_MS, newest, list(spent), [0] * len(spent))


@given(uses, st.integers(1, 6))
def test_no_interval_of_the_length_holds_more_than_the_ring_counted(
    drawn: list[tuple[int, int]], parts: int
) -> None:
    length_ms = parts * MINUTE_MS
    ring = new_ring(length_s=parts * 60, parts=parts, now_ms=0)
    done: list[Use] = []
    for use in sorted(Use(*one) for one in drawn):
        ring.turn(use.at_ms)
        ring.add(ring.newest, spent=use.amount)
        done.append(use)
        within = sum(u.amount for u in done if u.at_ms > use.at_ms - length_ms)
        assert sum(ring.spent) >= within


@given(uses, st.integers(1, 6))
def test_what_went_in_is_there_or_aged(drawn: list[tuple[int, int]], parts: int) -> None:
    ring = new_ring(length_s=parts * 60, parts=parts, now_ms=0)
    came = gone = 0
    for at_ms, amount in drawn:  # the clock steps back and forth
        gone += ring.turn(at_ms).spent
        gone += ring.add(ring.bucket_at(at_ms), spent=amount).spent
        came += amount
        assert len(ring.spent) == parts + 1
        assert came == sum(ring.spent) + gone


def test_use_is_gone_one_part_after_the_window() -> None:
    ring = new_ring(length_s=120, parts=2, now_ms=0)
    ring.add(0, spent=7)
    assert ring.turn(3 * MINUTE_MS - 1) == Aged()
    assert ring.turn(3 * MINUTE_MS) == Aged(7, 0)


def test_a_clock_that_steps_back_makes_use_count_for_longer() -> None:
    ring = ring_of(1, 2, 4)
    assert ring.turn(99 * MINUTE_MS) == Aged()
    assert (ring.newest, ring.spent) == (99, [0, 1, 6])


def test_a_clock_that_steps_back_far_keeps_all() -> None:
    ring = ring_of(1, 2, 4)
    assert ring.turn(0) == Aged()
    assert (ring.newest, ring.spent) == (0, [0, 0, 7])


def test_use_that_is_told_late_ages_at_once() -> None:
    ring = ring_of(1, 2, 4)
    assert ring.add(97, spent=5, overrun=3) == Aged(5, 3)
    assert ring.add(98, spent=5) == Aged()
    assert ring.spent == [6, 2, 4]


def test_a_correction_takes_the_youngest_first() -> None:
    ring = ring_of(5, 2, 4)
    ring.take_back(7)
    assert ring.spent == [4, 0, 0]


def test_relief_comes_when_the_oldest_use_leaves() -> None:
    assert ring_of(0, 0, 0).relief_ms() is None
    assert ring_of(0, 2, 4).relief_ms() == 102 * MINUTE_MS


def test_a_lease_belongs_to_the_part_in_which_it_ends() -> None:
    ring = ring_of(0, 0, 0)
    assert ring.bucket_of_lease(ring.end_ms(100 * MINUTE_MS)) == 100
    assert ring.bucket_of_lease(100 * MINUTE_MS + 1) == 100


@pytest.mark.parametrize(
    ("length_s", "parts", "problem"),
    [
        (29, 1, "a rolling window has 30 to"),
        (40_000_000, 24, "a rolling window has 30 to"),
        (3600, 0, "1 to 48 parts, not 0"),
        (3600, 49, "1 to 48 parts, not 49"),
        (3600, 7, "the nearest number is 6"),
        (60, 4, "the nearest number is 2"),
    ],
)
def test_a_shape_that_cannot_be_is_told_with_the_nearest(
    length_s: int, parts: int, problem: str
) -> None:
    found = shape_problem(length_s, parts)
    assert found is not None
    assert problem in found[1]


@given(st.integers(MIN_BUCKET_S, 366 * 86_400))
def test_every_length_has_parts_that_suit_it(length_s: int) -> None:
    assert shape_problem(length_s, usual_parts(length_s)) is None
