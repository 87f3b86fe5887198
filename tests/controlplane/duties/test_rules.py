"""When turns are due, and when they begin anew."""

from datetime import UTC, datetime, timedelta

import pytest

from controlplane.duties.domain import rules

NOW = datetime(2026, 5, 13, 10, 30, tzinfo=UTC)
S = timedelta(seconds=1)
MINUTE, HOUR = 60 * S, 3600 * S


@pytest.mark.parametrize(
    ("due_in", "every", "due"),
    [
        (-HOUR, S, True),
        (0 * S, S, True),
        (S / 2, S, True),  # the scan came a little early
        (S / 2 + timedelta(microseconds=1), S, False),
        (HOUR, HOUR, False),
        (HOUR + S, HOUR, False),
        (HOUR + 2 * S, HOUR, True),  # the clock was set back
    ],
)
def test_due(due_in: timedelta, every: timedelta, *, due: bool) -> None:
    assert rules.is_due(NOW + due_in, every=every, now=NOW) is due


@pytest.mark.parametrize(
    ("sent_ago", "every", "coming"),
    [
        (None, S, False),
        (0 * S, S, True),
        (4.9 * S, S, True),
        (5 * S, S, False),
        (29 * S, 30 * S, True),
        (30 * S, 30 * S, False),
        (59 * S, HOUR, True),
        (60 * S, HOUR, False),
        (-S, HOUR, False),  # sent before the clock was set back
    ],
)
def test_another_worker_is_woken_when_the_first_does_not_come(
    sent_ago: timedelta | None, every: timedelta, *, coming: bool
) -> None:
    sent_at = None if sent_ago is None else NOW - sent_ago
    assert rules.is_on_its_way(sent_at, every=every, now=NOW) is coming


@pytest.mark.parametrize(
    ("due_ago", "every", "next_in"),
    [
        (S / 4, S, S * 3 / 4),  # the beat is kept
        (0 * S, HOUR, HOUR),
        (S, S, S),  # what was missed is not made up for
        (24 * HOUR, HOUR, HOUR),
        (-2 * HOUR, HOUR, HOUR),  # the clock was set back
    ],
)
def test_the_turn_after(due_ago: timedelta, every: timedelta, next_in: timedelta) -> None:
    assert rules.next_due(NOW - due_ago, every=every, now=NOW) == NOW + next_in


def test_what_failed_begins_anew_later_each_time_and_never_after_the_next_turn() -> None:
    hourly = [rules.retry_at(n, every=HOUR, now=NOW) - NOW for n in range(1, 6)]
    assert hourly == [2 * S, 4 * S, 8 * S, 16 * S, 32 * S]
    assert [rules.retry_at(n, every=3 * S, now=NOW) - NOW for n in (1, 2)] == [2 * S, 3 * S]


def test_new_duties_begin_soon_and_not_all_at_once() -> None:
    names = [f"duty{number}" for number in range(100)]
    hourly = [rules.first_due(name, every=HOUR, now=NOW) - NOW for name in names]
    assert 0 * S <= min(hourly) < S
    assert 9 * S < max(hourly) < 10 * S
    assert max(rules.first_due(name, every=S, now=NOW) - NOW for name in names) < S
