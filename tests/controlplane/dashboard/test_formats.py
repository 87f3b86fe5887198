from datetime import UTC, datetime, timedelta

import pytest

from controlplane.dashboard import formats

NOW = datetime(2026, 5, 13, 10, 30, tzinfo=UTC)
USD = 1_000_000_000


@pytest.mark.parametrize(
    ("nanos", "shown", "exact"),
    [
        (0, "$0.00", "$0.00"),
        (1, "$0.000000001", "$0.000000001"),
        (1_234, "$0.00000123", "$0.000001234"),
        (1_500_000, "$0.0015", "$0.0015"),
        (12_345_678, "$0.0123", "$0.012345678"),
        (500_000_000, "$0.50", "$0.50"),
        (999_999_999, "$0.9999", "$0.999999999"),
        (USD, "$1.00", "$1.00"),
        (1_234_567 * USD + 999_999_999, "$1,234,567.99", "$1,234,567.999999999"),
        (-2 * USD, "−$2.00", "−$2.00"),
        (-1_500_000, "−$0.0015", "−$0.0015"),
    ],
)
def test_dollars_are_cut_never_rounded_up(nanos: int, shown: str, exact: str) -> None:
    assert (formats.usd(nanos), formats.exact_usd(nanos)) == (shown, exact)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (999, "999"),
        (1_000, "1.0k"),
        (12_345, "12.3k"),
        (999_999, "999k"),
        (18_840_000, "18.8M"),
        (2_000_000_000, "2.0B"),
        (7 * 10**12, "7.0T"),
    ],
)
def test_large_counts_fit_a_cell(value: int, shown: str) -> None:
    assert formats.compact(value) == shown


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (1_500_000_000, "usd", "$1.50"),
        (1, "tokens", "1 token"),
        (2_500, "tokens", "2,500 tokens"),
        (1, "requests", "1 request"),
        (0, "requests", "0 requests"),
    ],
)
def test_an_amount_names_its_unit(value: int, unit: str, shown: str) -> None:
    assert formats.amount(value, unit) == shown


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [
        (0, 100, "0 %"),
        (1, 1_000, "< 1 %"),
        (999, 1_000, "99 %"),
        (1_000, 1_000, "100 %"),
        (2_390, 1_000, "239 %"),
        (1, 0, "—"),
    ],
)
def test_a_share_is_never_flattered(part: int, whole: int, shown: str) -> None:
    assert formats.percent(part, whole) == shown


@pytest.mark.parametrize(
    ("part", "whole", "thousandths"),
    [(0, 0, 0), (5, 0, 1000), (-5, 10, 0), (1, 3, 333), (30, 10, 1000)],
)
def test_a_bar_stays_within_its_track(part: int, whole: int, thousandths: int) -> None:
    assert formats.permille(part, whole) == thousandths


@pytest.mark.parametrize(
    ("back", "words"),
    [
        (timedelta(seconds=2), "just now"),
        (timedelta(seconds=59), "59 s ago"),
        (timedelta(minutes=5), "5 min ago"),
        (timedelta(hours=47), "47 h ago"),
        (timedelta(days=3), "3 d ago"),
        (timedelta(minutes=-90), "in 1 h"),
    ],
)
def test_times_are_told_from_now(back: timedelta, words: str) -> None:
    assert formats.since(NOW - back, now=NOW) == words


@pytest.mark.parametrize(
    ("ms", "words"),
    [(None, "—"), (0, "0 ms"), (999, "999 ms"), (2_450, "2.4 s"), (180_000, "3 min")],
)
def test_durations_of_calls(ms: int | None, words: str) -> None:
    assert formats.milliseconds(ms) == words
