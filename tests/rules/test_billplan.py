"""Whose bills are asked for, and when."""

from datetime import UTC, datetime, timedelta

import pytest

from enforcement.rules.billplan import (
    BillPlan,
    asked_since,
    bill_plans,
    next_day,
    pause_after,
)

NOW = datetime(2026, 5, 13, 10, 30, tzinfo=UTC)
DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)


def test_accounts_are_read_from_words() -> None:
    assert bill_plans("") == ()
    assert bill_plans("openai  anthropic/re-search=https://gate.example/a") == (
        BillPlan("openai"),
        BillPlan("anthropic", "re-search", "https://gate.example/a"),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mistral", "COMPTROLLER_BILLS: 'mistral': bills can be asked of openai, anthropic"),
        ("openai/", "an account has small letters"),
        ("openai/a_b", "an account has small letters"),
        ("openai/Ab", "an account has small letters"),
        ("openai=gateway", "begins with https:// or http://"),
        ("openai=", "begins with https:// or http://"),
        ("openai openai=https://x", "stands there twice"),
    ],
)
def test_a_word_that_names_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        bill_plans(text)


def test_each_account_has_a_key_of_its_own() -> None:
    assert BillPlan("openai").key_variable == "COMPTROLLER_OPENAI_ADMIN_KEY"
    assert BillPlan("openai", "a-b").key_variable == "COMPTROLLER_OPENAI_ADMIN_KEY_A_B"


def test_a_day_begins_when_its_bill_may_be_complete() -> None:
    times = {next_day(BillPlan("openai", str(n)), now=NOW) for n in range(50)}
    assert len(times) == 50
    tomorrow = datetime(2026, 5, 14, tzinfo=UTC)
    assert tomorrow + HOUR <= min(times)
    assert max(times) < tomorrow + 3 * HOUR
    again = next_day(BillPlan("openai", "1"), now=NOW + 5 * HOUR)
    assert again == next_day(BillPlan("openai", "1"), now=NOW)


@pytest.mark.parametrize(
    ("attempts", "pause"),
    [
        (1, 15 * MINUTE),
        (2, 30 * MINUTE),
        (6, 8 * HOUR),
        (7, 12 * HOUR),
        (10**6, 12 * HOUR),
    ],
)
def test_pauses_grow_up_to_half_a_day(attempts: int, pause: timedelta) -> None:
    assert pause_after(attempts) == pause


@pytest.mark.parametrize(
    ("ago", "days"),
    [(None, 3), (DAY, 3), (3 * DAY, 4), (10 * DAY, 11), (400 * DAY, 31), (-DAY, 3)],
)
def test_what_was_missed_is_made_up_for(ago: timedelta | None, days: int) -> None:
    succeeded_at = None if ago is None else NOW - ago
    midnight = datetime(2026, 5, 13, tzinfo=UTC)
    assert asked_since(succeeded_at, now=NOW) == midnight - days * DAY
