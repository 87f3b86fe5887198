"""When two counts of an hour agree, drift, offset each other, or say nothing."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.rules.reconcile import HOUR, HourCount, Threshold, Verdict, judge

START = datetime(2026, 5, 13, 10, tzinfo=UTC)
BY = Threshold()


def count(
    metered: int, produced: int, *, after_h: int = 0, is_known: bool = True, prompt: int = 0
) -> HourCount:
    """Generated tokens; the prompts of both sides are the same but for `prompt` more produced."""
    return HourCount(START + after_h * HOUR, 1000, metered, 1000 + prompt, produced, is_known)


@pytest.mark.parametrize(
    ("hour", "verdict"),
    [
        (count(500, 500), Verdict.AGREES),
        (count(500, 550), Verdict.AGREES),
        (count(500, 551), Verdict.DRIFTS),
        (count(551, 500), Verdict.DRIFTS),
        (count(99_500, 100_000), Verdict.AGREES),
        (count(99_499, 100_000), Verdict.DRIFTS),
        (count(500, 500, prompt=51), Verdict.DRIFTS),
        (count(500, 0, is_known=False), Verdict.UNKNOWN),
    ],
)
def test_one_hour(hour: HourCount, verdict: Verdict) -> None:
    assert judge([hour], BY) == [verdict]


def test_a_call_over_the_full_hour_shifts_tokens_and_is_no_drift() -> None:
    assert judge([count(900, 600), count(0, 300, after_h=1)], BY) == [Verdict.SHIFTED] * 2


def test_hours_apart_do_not_offset_each_other() -> None:
    assert judge([count(900, 600), count(0, 300, after_h=2)], BY) == [Verdict.DRIFTS] * 2


def test_an_unknown_hour_offsets_nothing() -> None:
    hours = [count(900, 600), count(0, 300, after_h=1, is_known=False)]
    assert judge(hours, BY) == [Verdict.DRIFTS, Verdict.UNKNOWN]


def test_drift_is_told_of_prompts_and_answers() -> None:
    assert count(500, 520, prompt=7).drift_tokens == (7, 20)


@pytest.mark.parametrize("wrong", [{"per_mille": -1}, {"per_mille": 1001}, {"floor_tokens": -1}])
def test_a_threshold_is_a_share_of_the_whole(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="per_mille"):
        Threshold(**wrong)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.booleans())))
def test_unknown_is_what_was_not_read_and_nothing_else(
    rows: list[tuple[int, int, bool]],
) -> None:
    hours = [
        count(metered, produced, after_h=index, is_known=known)
        for index, (metered, produced, known) in enumerate(rows)
    ]
    verdicts = judge(hours, BY)
    assert [verdict is not Verdict.UNKNOWN for verdict in verdicts] == [row[2] for row in rows]
