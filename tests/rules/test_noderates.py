"""Rates of self-hosted models: what was made pays for the nodes in full, idle time included."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.rules.money import TokenUsage, charge_nanos
from enforcement.rules.noderates import (
    NOTHING,
    Made,
    NodeRateError,
    Weights,
    rates_of_nodes,
)
from enforcement.rules.policy import PricePolicy, Rates

USD = 1_000_000_000


def made(prompt: int, cached: int, answer: int) -> Made:
    return Made(prompt_tokens=prompt, cached_tokens=cached, answer_tokens=answer)


def test_a_dollar_for_a_million_fresh_tokens() -> None:
    assert rates_of_nodes(USD, made(1_000_000, 0, 0), Weights()) == Rates(
        input=USD, cached_input=USD // 10, cache_write=USD, output=4 * USD
    )


def test_answers_and_cached_tokens_weigh_what_is_chosen() -> None:
    weights = Weights(answer_per_mille=3_000, cached_per_mille=500)
    found = rates_of_nodes(6 * USD, made(2_000_000, 1_000_000, 500_000), weights)
    assert found == Rates(input=2 * USD, cached_input=USD, cache_write=2 * USD, output=6 * USD)


def test_twice_the_idle_time_is_twice_the_rate() -> None:
    busy = rates_of_nodes(USD, made(1_000_000, 0, 250_000), Weights())
    idle = rates_of_nodes(2 * USD, made(1_000_000, 0, 250_000), Weights())
    assert (busy.input, idle.input) == (USD // 2, USD)


tokens = st.integers(0, 10**13)


@given(
    cost=st.integers(1, 10**15),
    fresh=st.integers(10_000, 10**13),
    cached=tokens,
    answer=tokens,
    answer_per_mille=st.integers(1, 10_000),
    cached_per_mille=st.integers(0, 1_000),
)
def test_what_was_made_pays_for_the_nodes(
    cost: int, fresh: int, cached: int, answer: int, answer_per_mille: int, cached_per_mille: int
) -> None:
    weights = Weights(answer_per_mille=answer_per_mille, cached_per_mille=cached_per_mille)
    rates = rates_of_nodes(cost, made(fresh + cached, cached, answer), weights)
    usage = TokenUsage(fresh + cached, cached, output_tokens=answer)
    paid = charge_nanos(usage, PricePolicy("", "m", rates))
    assert cost <= paid <= cost + (fresh + cached + answer) // 1_000_000 + 1


@pytest.mark.parametrize(
    ("cost", "what", "weights", "said"),
    [
        (0, made(10**6, 0, 0), Weights(), "cost nothing"),
        (-1, made(10**6, 0, 0), Weights(), "cost nothing"),
        (1, NOTHING, Weights(), "too few"),
        (1, made(9_000, 0, 999), Weights(), "too few"),
        (1, made(10**6, 10**6 + 1, 0), Weights(), "contradict"),
        (1, made(10**6, -1, 0), Weights(), "contradict"),
        (1, made(10**6, 0, -1), Weights(), "contradict"),
        (1, made(10**6, 0, 0), Weights(answer_per_mille=0), "weighs more than 0"),
        (1, made(10**6, 0, 0), Weights(answer_per_mille=1_000_001), "weighs more than 0"),
        (1, made(10**6, 0, 0), Weights(cached_per_mille=-1), "0 to 1"),
        (1, made(10**6, 0, 0), Weights(cached_per_mille=1_001), "0 to 1"),
        (1, made(10**6, 10**6, 0), Weights(cached_per_mille=0), "no weight"),
        (2**62, made(10_000, 0, 0), Weights(), "beyond"),
    ],
)
def test_nothing_is_concluded_from(cost: int, what: Made, weights: Weights, said: str) -> None:
    with pytest.raises(NodeRateError, match=said):
        rates_of_nodes(cost, what, weights)


def test_what_several_nodes_made_adds_up() -> None:
    assert made(1, 2, 3) + made(4, 5, 6) == made(5, 7, 9)
