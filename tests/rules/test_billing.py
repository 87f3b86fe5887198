"""When a bill agrees with what was metered and charged, and which cause explains that it does not."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from enforcement.rules.billing import BillCount, Counted, bill_cause, family, judge_bill, surest
from enforcement.rules.reconcile import Threshold, Verdict

START = datetime(2026, 5, 13, tzinfo=UTC)
DAY = timedelta(days=1)
BY = Threshold()
CENT = 10_000_000


def bill(**changes: Any) -> BillCount:
    """Ten calls of 1,000 + 200 tokens for a dollar; billed the same, and read two days later."""
    count = BillCount(
        starts_at=START,
        ends_at=START + DAY,
        calls=10,
        metered=Counted(1_000, 200),
        charge_nanos=100 * CENT,
        billed=Counted(1_000, 200),
        billed_nanos=100 * CENT,
        read_at=START + 3 * DAY,
    )
    return replace(count, **changes)


@pytest.mark.parametrize(
    ("changes", "verdict", "cause"),
    [
        ({}, "agrees", None),
        ({"billed_nanos": None}, "agrees", None),
        ({"billed": None}, "agrees", None),
        ({"billed_nanos": 101 * CENT}, "agrees", None),
        ({"billed_nanos": 101 * CENT + 1}, "drifts", "price_differs"),
        ({"billed_nanos": 98 * CENT}, "drifts", "price_differs"),
        ({"billed_nanos": 200 * CENT, "unpriced_calls": 4}, "drifts", "price_missing"),
        ({"billed": Counted(1_000, 251)}, "drifts", "past_sidecars"),
        ({"billed": Counted(900, 200)}, "drifts", "not_billed"),
        ({"billed": Counted(900, 200), "presumed_tokens": 99}, "drifts", "not_billed"),
        ({"billed": Counted(900, 200), "presumed_tokens": 100}, "drifts", "presumed"),
        ({"billed": Counted(900, 200), "read_at": START + DAY}, "unknown", "bill_open"),
        ({"billed": None, "billed_nanos": 2 * CENT, "calls": 0, "charge_nanos": 0,
          "metered": Counted()}, "drifts", "past_sidecars"),
        ({"billed": None, "billed_nanos": 2 * CENT, "calls": 0, "charge_nanos": 0,
          "metered": Counted(), "is_of_models": False}, "drifts", "other_charges"),
    ],
)  # fmt: skip
def test_a_bill_and_why_it_differs(
    changes: dict[str, Any], verdict: str, cause: str | None
) -> None:
    count = bill(**changes)
    found = bill_cause(count, BY)
    assert (judge_bill([count], BY), found and found.kind) == ([Verdict(verdict)], cause)


def test_a_call_over_the_full_hour_is_billed_in_the_next_one() -> None:
    hour = timedelta(hours=1)
    first = bill(ends_at=START + hour, billed=Counted(1_000, 100), billed_nanos=None)
    second = replace(
        first, starts_at=START + hour, ends_at=START + 2 * hour, billed=Counted(1_000, 300)
    )
    assert judge_bill([first, second], BY) == [Verdict.SHIFTED] * 2


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("claude-sonnet-4-20250514", "claude-sonnet-4"),
        ("claude-3-5-haiku-latest", "claude-3-5-haiku"),
        ("gpt-4o", "gpt-4o"),
        ("qwen3-8b-2507", "qwen3-8b-2507"),
        ("", ""),
    ],
)
def test_a_snapshot_is_of_its_family(model: str, name: str) -> None:
    assert family(model) == name


def test_what_was_found_out_counts_more_than_what_is_not_known() -> None:
    assert surest(Verdict.UNKNOWN, Verdict.AGREES) is Verdict.AGREES
    assert surest(Verdict.AGREES, Verdict.DRIFTS, Verdict.ALONE) is Verdict.DRIFTS
    assert surest(Verdict.ALONE, Verdict.UNKNOWN) is Verdict.UNKNOWN
