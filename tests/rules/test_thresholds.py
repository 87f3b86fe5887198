"""Exactly when thresholds fire and are armed again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.rules.thresholds import (
    Basis,
    Reading,
    Step,
    ThresholdError,
    forecast,
    has_reached,
    judge,
    line_of,
    parse_lines,
    read_thresholds,
)


def reading(
    used: int, *, limit: int = 1000, now_ms: int = 500, end_ms: int | None = 1000
) -> Reading:
    return Reading(used=used, limit=limit, start_ms=0, now_ms=now_ms, end_ms=end_ms)


@pytest.mark.parametrize(
    ("used", "now_ms", "expected"),
    [(100, 500, 200), (100, 1000, 100), (100, 2000, 100), (100, 250, 400), (1, 0, 20), (0, 1, 0)],
)
def test_forecast(used: int, now_ms: int, expected: int) -> None:
    assert forecast(reading(used, now_ms=now_ms)) == expected


def test_what_never_ends_has_no_forecast() -> None:
    endless = reading(10**9, end_ms=None)
    assert forecast(endless) is None
    assert judge(endless, basis=Basis.FORECAST, percent=1, fired_limit=None) is Step.NOTHING


@pytest.mark.parametrize(
    ("used", "limit", "fired_limit", "expected"),
    [
        (799, 1000, None, Step.NOTHING),
        (800, 1000, None, Step.FIRE),
        (900, 1000, 1000, Step.NOTHING),
        (900, 1125, 1000, Step.NOTHING),  # still at 80 %
        (900, 1126, 1000, Step.REARM),
        (799, 1000, 1000, Step.REARM),  # a correction
    ],
)
def test_actual(used: int, limit: int, fired_limit: int | None, expected: Step) -> None:
    now = reading(used, limit=limit)
    assert judge(now, basis=Basis.ACTUAL, percent=80, fired_limit=fired_limit) is expected


@pytest.mark.parametrize(
    ("used", "limit", "fired_limit", "expected"),
    [
        (399, 1000, None, Step.NOTHING),
        (400, 1000, None, Step.FIRE),
        (300, 1000, 1000, Step.NOTHING),  # it swings
        (300, 1001, 1000, Step.REARM),
    ],
)
def test_forecast_at_half_time(
    used: int, limit: int, fired_limit: int | None, expected: Step
) -> None:
    now = reading(used, limit=limit)
    assert judge(now, basis=Basis.FORECAST, percent=80, fired_limit=fired_limit) is expected


@given(st.integers(0, 2**62), st.integers(0, 3000))
def test_a_forecast_is_never_below_what_is_used(used: int, now_ms: int) -> None:
    expected = forecast(reading(used, now_ms=now_ms))
    assert expected is not None
    assert used <= expected <= 20 * used


@given(st.integers(0, 2**62), st.integers(1, 2**62), st.integers(1, 1000))
def test_a_threshold_neither_fires_nor_arms_twice(used: int, limit: int, percent: int) -> None:
    now = reading(used, limit=limit)
    fired = judge(now, basis=Basis.ACTUAL, percent=percent, fired_limit=None) is Step.FIRE
    again = judge(now, basis=Basis.ACTUAL, percent=percent, fired_limit=limit)
    assert fired is has_reached(used, percent=percent, limit=limit)
    assert again is (Step.NOTHING if fired else Step.REARM)


LINES = """80%: notify
90% forecast: notify, throttle 10/min, reroute small-model, approval
100%: pause
110%: refuse
120%: cut
150%: kill"""


def test_lines_are_read_and_written() -> None:
    found = read_thresholds(parse_lines(LINES))
    assert "\n".join(map(line_of, found)) == LINES
    assert [threshold.percent for threshold in found] == [80, 90, 100, 110, 120, 150]
    assert read_thresholds(parse_lines("\n100 : kill\n 7%:notify\n"))[0].percent == 7


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("notify at 80", "write a line like"),
        ("80%:", "write a line like"),
        ("80%: shout", "no action 'shout': notify, throttle"),
        ("80%: notify loudly", "no action 'notify loudly'"),
        ("80%: throttle", "say how much, like"),
        ("80%: throttle 0/min", "throttle to 1 to"),
        ("80%: reroute", "reroute needs a model"),
        ("0%: notify", "a threshold is at 1 to 1000 %, not 0 %"),
        ("1001%: notify", "a threshold is at 1 to 1000 %"),
        ("80%: notify, notify", "give every threshold actions, each once"),
        ("80%: notify\n80%: pause", "two thresholds stand at the same place"),
        ("\n".join(f"{n}%: notify" for n in range(1, 22)), "at most 20 thresholds"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(text: str, problem: str) -> None:
    with pytest.raises(ThresholdError, match=problem):
        read_thresholds(parse_lines(text))


@pytest.mark.parametrize(
    "action",
    [
        {"kind": "notify", "model": "x"},
        {"kind": "pause", "requests_per_minute": 4},
        {"kind": "notify", "amount": 5},
        {"kind": "approval", "amount": -5},
        {"kind": "notify", "volume": 11},
        {"kind": "explode"},
    ],
)
def test_an_action_takes_only_its_own_values(action: dict[str, object]) -> None:
    with pytest.raises(ThresholdError):
        read_thresholds([{"percent": 80, "actions": [action]}])
