"""Budget windows: they contain their instant, abut, and follow local midnights through DST."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.rules.policy import WindowSpec
from enforcement.rules.windows import EPOCH, WindowError, has_ended, window_after, window_at

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "America/Sao_Paulo",
    "Africa/Cairo",
]
PERIODS = ["minute", "hour", "day", "week", "month", "quarter", "year"]


def spec(period: str, zone: str = "UTC", anchor_day: int = 1, anchor_month: int = 1) -> WindowSpec:
    return WindowSpec(
        kind="calendar",
        period=period,
        time_zone=zone,
        anchor_day=anchor_day,
        anchor_month=anchor_month,
    )


@given(
    st.integers(0, 40 * 366 * 86_400).map(
        lambda s: datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=s)
    ),
    st.sampled_from(PERIODS),
    st.sampled_from(ZONES),
    st.integers(1, 28),
    st.integers(1, 12),
)
def test_a_window_contains_its_instant_and_abuts_the_next(now, period, zone, day, month) -> None:
    calendar = spec(period, zone, day, month)
    start, end = window_at(calendar, now)
    assert end is not None
    assert start <= now < end
    assert window_at(calendar, start) == (start, end)
    assert window_at(calendar, end)[0] == end
    assert window_after(calendar, (start, end)) == window_at(calendar, end)
    assert window_at(calendar, end - timedelta(microseconds=1)) == (start, end)


@pytest.mark.parametrize(
    ("period", "zone", "anchor_day", "now", "start", "end"),
    [
        ("day", "Europe/Berlin", 1, "2026-03-29T12:00", "2026-03-28T23:00", "2026-03-29T22:00"),
        ("day", "Europe/Berlin", 1, "2026-10-25T12:00", "2026-10-24T22:00", "2026-10-25T23:00"),
        ("day", "Africa/Cairo", 1, "2026-04-24T12:00", "2026-04-23T22:00", "2026-04-24T21:00"),
        ("week", "UTC", 1, "2026-11-22T23:59", "2026-11-16T00:00", "2026-11-23T00:00"),
        ("month", "UTC", 15, "2026-03-14T00:00", "2026-02-15T00:00", "2026-03-15T00:00"),
        (
            "month",
            "America/New_York",
            1,
            "2026-12-01T04:00",
            "2026-11-01T04:00",
            "2026-12-01T05:00",
        ),
        ("quarter", "UTC", 1, "2026-11-23T00:00", "2026-10-01T00:00", "2027-01-01T00:00"),
        ("year", "UTC", 6, "2026-01-05T00:00", "2025-01-06T00:00", "2026-01-06T00:00"),
        ("hour", "Asia/Kolkata", 1, "2026-01-05T10:45", "2026-01-05T10:00", "2026-01-05T11:00"),
    ],
)
def test_known_windows(period, zone, anchor_day, now, start, end) -> None:
    def utc(text: str) -> datetime:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)

    assert window_at(spec(period, zone, anchor_day), utc(now)) == (utc(start), utc(end))


@pytest.mark.parametrize(
    ("period", "zone", "day", "month", "now", "start", "end"),
    [
        ("year", "UTC", 6, 4, "2026-04-05", "2025-04-06", "2026-04-06"),
        ("year", "UTC", 1, 7, "2026-07-01", "2026-07-01", "2027-07-01"),
        ("quarter", "UTC", 1, 2, "2026-01-31", "2025-11-01", "2026-02-01"),
        ("quarter", "UTC", 15, 3, "2026-03-14", "2025-12-15", "2026-03-15"),
        ("month", "UTC", 1, 7, "2026-05-20", "2026-05-01", "2026-06-01"),
    ],
)
def test_fiscal_windows(period, zone, day, month, now, start, end) -> None:
    def utc(text: str) -> datetime:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)

    assert window_at(spec(period, zone, day, month), utc(now)) == (utc(start), utc(end))


def test_a_window_until_a_date_is_one_and_ends() -> None:
    until = WindowSpec(kind="until", ends_at_s=1_000)
    end = EPOCH + timedelta(seconds=1_000)
    assert window_at(until, EPOCH) == (EPOCH, end) == window_at(until, end)
    assert (has_ended(until, end - timedelta(seconds=1)), has_ended(until, end)) == (False, True)
    assert window_after(until, (EPOCH, end)) is None


def test_a_rolling_window_has_no_edges() -> None:
    rolling = WindowSpec(kind="rolling", length_s=3_600, parts=12)
    assert window_at(rolling, datetime(2026, 1, 1, tzinfo=UTC)) == (EPOCH, None)
    assert window_after(rolling, (EPOCH, None)) is None


def test_a_lifetime_has_one_window_without_end() -> None:
    assert window_at(WindowSpec(), datetime(2026, 1, 1, tzinfo=UTC)) == (EPOCH, None)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (WindowSpec(kind="calendar"), "a calendar window needs a period"),
        (WindowSpec(period="day"), "a lifetime window has no period"),
        (spec("day", "Mars/Olympus"), "unknown time zone: 'Mars/Olympus'"),
        (spec("day", "../../etc/passwd"), "unknown time zone"),
        (spec("year", anchor_month=13), "anchor_month must be 1 to 12, not 13"),
        (WindowSpec(kind="until"), "a window until a date needs its end"),
        (WindowSpec(kind="rolling"), "a rolling window has 30 to"),
        (WindowSpec(kind="rolling", length_s=3600, parts=7), "the nearest number is 6"),
        (spec("month", "UTC", 29), "anchor_day must be 1 to 28, not 29"),
    ],
)
def test_a_meaningless_window_is_refused_in_words(bad: WindowSpec, reason: str) -> None:
    with pytest.raises(WindowError, match=reason):
        window_at(bad, datetime(2026, 1, 1, tzinfo=UTC))
