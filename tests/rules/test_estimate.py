"""Bounds, needs, what a grant pays for, and which price holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.rules.estimate import (
    Bound,
    UnboundedError,
    Used,
    affordable_output,
    amount_of,
    bound_of,
    default_output_limit,
    extension_of,
    needs_of,
    price_for,
    used_of,
    within_grants,
)
from enforcement.rules.lots import Need
from enforcement.rules.money import TokenUsage, charge_nanos
from enforcement.rules.policy import (
    BudgetPolicy,
    HoldMode,
    PricePolicy,
    PriceTier,
    Rates,
    ScopeKind,
    Unit,
)

PRICE = PricePolicy(id="p", model="m", rates=Rates(input=1_000_000, output=3_000_000))


def budget(unit: Unit, hold_mode: HoldMode = HoldMode.STRICT) -> BudgetPolicy:
    return BudgetPolicy(f"b-{unit}", "b", ScopeKind.AGENT, "a", unit, 100, hold_mode=hold_mode)


def test_an_exact_prompt_is_bounded_exactly() -> None:
    bound = bound_of(prompt_tokens=7, context_window=1000, output_limit=20, prompts=2, sequences=3)
    assert bound == Bound(input_tokens=21, output_tokens=120)


def test_an_unknown_prompt_fills_the_window() -> None:
    bound = bound_of(prompt_tokens=None, context_window=1000, output_limit=200)
    assert bound == Bound(input_tokens=800, output_tokens=200, window_tokens=1000)
    assert amount_of(Unit.TOKENS, bound, output_tokens=200, price=None) == 1000


def test_the_dearer_end_of_the_window_is_held() -> None:
    bound = bound_of(prompt_tokens=None, context_window=1000, output_limit=200)
    assert amount_of(Unit.USD, bound, output_tokens=200, price=PRICE) == 800 + 3 * 200
    dear_input = PricePolicy(id="p", model="m", rates=Rates(input=3_000_000, output=1_000_000))
    assert amount_of(Unit.USD, bound, output_tokens=200, price=dear_input) == 3 * 1000


def test_nothing_known_bounds_nothing() -> None:
    with pytest.raises(UnboundedError):
        bound_of(prompt_tokens=None, context_window=None, output_limit=5)


@pytest.mark.parametrize(
    ("asked", "prompt", "window", "limit"),
    [
        (None, None, None, 4096),
        (None, None, 1000, 1000),
        (None, 300, 1000, 700),
        (None, 2000, 1000, 1),
        (50, 300, 1000, 50),
        (5000, 300, 1000, 1000),
        (5000, None, None, 5000),
    ],
)
def test_the_limit_that_is_written(
    asked: int | None, prompt: int | None, window: int | None, limit: int
) -> None:
    written = default_output_limit(
        asked=asked, default=4096, prompt_tokens=prompt, context_window=window
    )
    assert written == limit


def test_needs_of_every_unit() -> None:
    budgets = [budget(unit) for unit in Unit]
    balances = [(item.id, "") for item in budgets]
    bound = Bound(10, 20, None, gpu_ms=601_000, tool_calls=32)
    amounts = [need.amount for need in needs_of(budgets, balances, bound, price=PRICE)]
    assert dict(zip(Unit, amounts, strict=True)) == {
        Unit.USD: 70,
        Unit.TOKENS: 30,
        Unit.INPUT_TOKENS: 10,
        Unit.OUTPUT_TOKENS: 20,
        Unit.CACHED_TOKENS: 10,
        Unit.REASONING_TOKENS: 20,
        Unit.REQUESTS: 1,
        Unit.GPU_MS: 601_000,
        Unit.TOOL_CALLS: 32,
        Unit.CONCURRENCY: 1,
    }


def test_an_unknown_prompt_may_fill_the_window() -> None:
    bound = bound_of(prompt_tokens=None, context_window=1000, output_limit=200)
    amounts = {unit: amount_of(unit, bound, output_tokens=200, price=PRICE) for unit in Unit}
    assert amounts[Unit.INPUT_TOKENS] == amounts[Unit.CACHED_TOKENS] == 1000
    assert amounts[Unit.OUTPUT_TOKENS] == amounts[Unit.REASONING_TOKENS] == 200


def test_metered_needs_cover_a_slice_and_are_extended() -> None:
    budgets = [budget(Unit.TOKENS, HoldMode.METERED), budget(Unit.USD)]
    balances = [(item.id, "") for item in budgets]
    bound = Bound(10, 500)
    needs = needs_of(budgets, balances, bound, price=PRICE, metered_output=100)
    assert needs == [Need("b-tokens", "", 110), Need("b-usd", "", 1510)]
    more = extension_of(budgets, balances, bound, price=PRICE, covered_output=100, more_output=64)
    assert more == [Need("b-tokens", "", 64)]


def test_a_dollar_need_needs_a_price() -> None:
    with pytest.raises(ValueError, match="unpriced"):
        amount_of(Unit.USD, Bound(1, 1), output_tokens=1, price=None)


@given(
    st.integers(0, 2000),
    st.integers(1, 2000),
    st.integers(0, 20_000),
    st.booleans(),
    st.sampled_from([Unit.USD, Unit.TOKENS]),
)
def test_what_is_affordable_fits_and_one_more_does_not(
    prompt: int, output: int, amount: int, exact: bool, unit: Unit
) -> None:
    bound = bound_of(
        prompt_tokens=prompt if exact else None, context_window=2000, output_limit=output
    )
    item = budget(unit)
    key = (item.id, "")
    most = affordable_output([item], [key], bound, price=PRICE, granted={key: amount})
    assert 0 <= most <= bound.output_tokens
    if most:
        assert amount_of(unit, bound, output_tokens=most, price=PRICE) <= amount
    if most < bound.output_tokens:
        assert amount_of(unit, bound, output_tokens=most + 1, price=PRICE) > amount


@given(st.integers(0, 900), st.integers(0, 200), st.integers(1, 200))
def test_the_hold_covers_whatever_the_engine_may_do(prompt: int, produced: int, limit: int) -> None:
    produced = min(produced, limit, 1000 - prompt)
    charge = charge_nanos(TokenUsage(input_tokens=prompt, output_tokens=produced), PRICE)
    for known in (prompt, None):
        bound = bound_of(prompt_tokens=known, context_window=1000, output_limit=limit)
        held = amount_of(Unit.USD, bound, output_tokens=bound.output_tokens, price=PRICE)
        assert charge <= held


def test_what_was_used() -> None:
    budgets = [budget(unit) for unit in Unit]
    balances = [(item.id, "") for item in budgets]
    usage = TokenUsage(input_tokens=5, cached_input_tokens=3, output_tokens=4, reasoning_tokens=2)
    used = used_of(budgets, balances, usage, Used(9, requests=1, gpu_ms=70, tool_calls=6))
    assert used == {
        ("b-usd", ""): 9,
        ("b-tokens", ""): 9,
        ("b-input_tokens", ""): 5,
        ("b-output_tokens", ""): 4,
        ("b-cached_tokens", ""): 3,
        ("b-reasoning_tokens", ""): 2,
        ("b-requests", ""): 1,
        ("b-gpu_ms", ""): 70,
        ("b-tool_calls", ""): 6,
        ("b-concurrency", ""): 0,
    }


def test_a_grant_shortens_the_time_and_the_tool_calls() -> None:
    budgets = [budget(Unit.GPU_MS), budget(Unit.TOOL_CALLS), budget(Unit.TOKENS)]
    balances = [(item.id, "") for item in budgets]
    bound = Bound(1, 2, None, gpu_ms=5_000, tool_calls=8)
    granted = {("b-gpu_ms", ""): 3_000, ("b-tool_calls", ""): 9, ("b-tokens", ""): 1}
    less = within_grants(budgets, balances, bound, granted=granted)
    assert less == Bound(1, 2, None, gpu_ms=3_000, tool_calls=8)


def named(model: str, match: str = "exact", **fields: object) -> PricePolicy:
    return PricePolicy(
        id=f"{model}/{match}/{fields}", model=model, match=match, rates=Rates(), **fields
    )  # type: ignore[arg-type]


def test_the_best_price_wins() -> None:
    exact, short, long = named("gpt-4o"), named("gpt", "prefix"), named("gpt-4", "prefix")
    own, other = named("gp", "prefix", own=True), named("gpt-4o", provider="azure")
    prices = [short, exact, long, other]
    assert price_for(prices, model="gpt-4o", provider="openai") is exact
    assert price_for(prices, model="gpt-4o", provider="azure") is other
    assert price_for(prices, model="gpt-4o-mini") is long
    assert price_for(prices, model="gpt-3") is short
    assert price_for([*prices, own], model="gpt-4o") is own
    assert price_for(prices, model="llama") is None


def test_the_empty_prefix_prices_only_what_nothing_else_does() -> None:
    rest = PricePolicy(id="r", model="", match="prefix", rates=Rates(input=9), own=True)
    listed = PricePolicy(id="l", model="gpt-", provider="openai", match="prefix", rates=Rates())
    assert price_for([rest, listed], model="gpt-4o") is listed
    assert price_for([rest, listed], model="gpt-4o", provider="openai") is listed
    assert price_for([rest, listed], model="gpt-4o", provider="vllm") is rest
    assert price_for([rest, listed], model="llama") is rest


def test_tiers_are_held_for_when_they_can_be_reached() -> None:
    tier = PriceTier(above_input_tokens=500, rates=Rates(input=2_000_000, output=9_000_000))
    tiered = PricePolicy(id="p", model="m", rates=PRICE.rates, tiers=[tier])
    low = bound_of(prompt_tokens=500, context_window=1000, output_limit=10)
    high = bound_of(prompt_tokens=501, context_window=1000, output_limit=10)
    assert amount_of(Unit.USD, low, output_tokens=10, price=tiered) == 500 + 30
    assert amount_of(Unit.USD, high, output_tokens=10, price=tiered) == 1002 + 90
