"""The demo must not overlook a difference: each figure is bent once."""

from typing import Any

import pytest

from controlplane.demo.agents import Seen
from controlplane.demo.cast import METERED, RUNAWAY, STEADY, UNPRICED
from controlplane.demo.engine import Counters
from controlplane.demo.story import Act, charge_of, usd

AGREEING = {
    "calls": 3,
    "input_tokens": 120,
    "output_tokens": 144,
    "charged_nanos": 1_560_000,
    "spent_nanos": 1_560_000,
    "overrun_nanos": 0,
    "refused": 0,
    "estimated": 0,
}


def steady(**ledger: Any) -> Act:
    return Act(STEADY, Seen(answered=3), Counters(120, 144), AGREEING | ledger)


def test_agreeing_figures_give_no_words() -> None:
    assert steady().disagreements() == []


def test_the_row_shows_both_counts_and_exact_dollars() -> None:
    assert steady().row() == [
        *("Steady", "3", "120 + 144", "120 + 144"),
        *("$0.001560000", "$0.050000000", "$0.000000000", "3 answered"),
    ]


@pytest.mark.parametrize(
    ("bent", "words"),
    [
        ({"input_tokens": 121}, "input tokens, meter and engine: 121 and 120"),
        ({"output_tokens": 143}, "output tokens, meter and engine: 143 and 144"),
        ({"charged_nanos": 1}, "charge, usage events and ledger: 1 and 1560000"),
        ({"calls": 2}, "calls, agent and ledger: 3 and 2"),
        ({"refused": 1}, "refusals, agent and ledger: 0 and 1"),
        ({"overrun_nanos": 5}, "overrun: 5 and 0"),
        ({"estimated": 1}, "estimated calls: 1 and 0"),
    ],
)
def test_one_bent_figure_is_found(bent: dict[str, int], words: str) -> None:
    assert steady(**bent).disagreements() == [f"Steady: {words}"]


def test_a_charge_that_is_not_the_price_is_found_even_if_the_ledger_agrees_with_itself() -> None:
    act = steady(charged_nanos=1_560_001, spent_nanos=1_560_001)

    assert act.disagreements() == [
        "Steady: charge, ledger and price of the engine's: 1560001 and 1560000"
    ]


def test_overspend_counts_overrun_too() -> None:
    act = Act(RUNAWAY, Seen(), Counters(0, 0), AGREEING | {"spent_nanos": 4_000_000})

    assert act.overspend_nanos == 0
    assert (
        Act(
            RUNAWAY,
            Seen(),
            Counters(0, 0),
            AGREEING | {"spent_nanos": 4_000_000, "overrun_nanos": 7},
        ).overspend_nanos
        == 7
    )


def test_a_runaway_that_was_never_stopped_is_a_disagreement() -> None:
    act = Act(RUNAWAY, Seen(answered=3), Counters(120, 144), AGREEING)

    assert act.disagreements() == ["Runaway (strict cap): outcome: 3 answered"]


def cut(**ledger: Any) -> Act:
    """A stream that was cut after 386 tokens that were seen."""
    seen = Seen(answered=1, notes=["cut"])
    agreeing = AGREEING | {"calls": 1, "estimated": 1, "input_tokens": 40, "output_tokens": 386}
    charged = {"charged_nanos": 3_900_000, "spent_nanos": 3_900_000}
    return Act(METERED, seen, Counters(40, 386), agreeing | charged | ledger)


def test_a_cut_stream_is_estimated_and_may_be_charged_one_unseen_token() -> None:
    one_more = {"output_tokens": 387, "charged_nanos": 3_910_000, "spent_nanos": 3_910_000}

    assert cut().disagreements() == []
    assert cut(**one_more).disagreements() == []


@pytest.mark.parametrize("tokens", [385, 388])
def test_a_cut_stream_is_charged_neither_less_nor_two_more(tokens: int) -> None:
    nanos = 40_000 + tokens * 10_000

    act = cut(output_tokens=tokens, charged_nanos=nanos, spent_nanos=nanos)

    assert act.disagreements() == [
        f"Runaway (metered cap): output tokens, meter and engine: {tokens} and 386",
        f"Runaway (metered cap): charge, ledger and price of the engine's: {nanos} and 3900000",
    ]


def test_an_unpriced_model_must_be_refused() -> None:
    seen = Seen(refused=["403 unpriced_model"])
    nothing = dict.fromkeys(AGREEING, 0) | {"refused": 1}

    assert Act(UNPRICED, seen, Counters(0, 0), nothing).disagreements() == []
    assert Act(UNPRICED, Seen(), Counters(0, 0), dict.fromkeys(AGREEING, 0)).disagreements() == [
        "Unpriced model: outcome: 0 answered"
    ]


def test_the_price_is_per_million_tokens() -> None:
    assert charge_of(Counters(input_tokens=40, output_tokens=385)) == 3_890_000


def test_dollars_are_exact() -> None:
    assert usd(12_000_000_001) == "$12.000000001"
