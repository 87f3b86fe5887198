"""Money: exact rates, one rounding, upwards, once per request."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from enforcement.rules.money import (
    MAX_NANOS,
    NANOS_PER_USD,
    TOKENS_PER_RATE,
    TokenUsage,
    affordable_output_tokens,
    ceiling_nanos,
    charge_nanos,
    parse_usd,
    rates_for,
    usd_text,
)
from enforcement.rules.policy import PricePolicy, PriceTier, Rates

RATES = Rates(
    input=3_000_000_001, cached_input=300_000_000, cache_write=3_750_000_000, output=15 * 10**9
)
PRICE = PricePolicy(id="p", model="m", rates=RATES)
TIERED = PricePolicy(
    id="p",
    model="m",
    rates=Rates(input=10, output=20),
    tiers=[
        PriceTier(200_000, Rates(input=15, output=30)),
        PriceTier(100, Rates(input=12, output=24)),
    ],
)
tokens = st.integers(0, 10_000_000)
rates = st.builds(Rates, *[st.integers(0, 10**12)] * 5)


def exact(usage: TokenUsage, rate: Rates) -> Fraction:
    plain = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
    scaled = (
        plain * rate.input
        + usage.cached_input_tokens * rate.cached_input
        + usage.cache_write_tokens * rate.cache_write
        + usage.output_tokens * rate.output
    )
    return Fraction(scaled, 1_000_000) + rate.request


@given(tokens, tokens, tokens, tokens, rates)
def test_a_charge_is_exact_but_for_less_than_a_nano_dollar_upwards(
    plain, cached, written, output, rate
) -> None:
    usage = TokenUsage(plain + cached + written, cached, written, output)
    charge = charge_nanos(usage, PricePolicy(id="p", model="m", rates=rate))
    assert 0 <= charge - exact(usage, rate) < 1


def test_a_charge_is_rounded_once_over_all_its_parts() -> None:
    third = PricePolicy(id="p", model="m", rates=Rates(input=300_000, output=300_000))
    assert charge_nanos(TokenUsage(input_tokens=1, output_tokens=1), third) == 1


@pytest.mark.parametrize(
    "usage",
    [
        TokenUsage(input_tokens=1, cached_input_tokens=2),
        TokenUsage(input_tokens=-1),
        TokenUsage(output_tokens=-1),
        TokenUsage(input_tokens=5, cached_input_tokens=3, cache_write_tokens=3),
    ],
)
def test_counts_that_contradict_each_other_are_refused(usage: TokenUsage) -> None:
    with pytest.raises(ValueError, match="contradict"):
        charge_nanos(usage, PRICE)


@pytest.mark.parametrize(("size", "charge"), [(100, 1), (101, 1), (200_000, 3), (200_001, 4)])
def test_a_tier_applies_above_its_length_to_the_whole_request(size: int, charge: int) -> None:
    assert charge_nanos(TokenUsage(input_tokens=size), TIERED) == charge


@given(tokens, st.integers(0, 1000), st.data(), rates, rates, st.integers(0, 10_000_000))
def test_no_charge_is_above_the_ceiling(prompt, output, data, base, tier, above) -> None:
    price = PricePolicy(id="p", model="m", rates=base, tiers=[PriceTier(above, tier)])
    cached = data.draw(st.integers(0, prompt))
    written = data.draw(st.integers(0, prompt - cached))
    usage = TokenUsage(prompt, cached, written, output)
    most = ceiling_nanos(input_tokens=prompt, output_tokens=output, price=price)
    assert charge_nanos(usage, price) <= most


@given(st.integers(0, 10**9), tokens, rates)
def test_what_is_affordable_fits_and_one_more_does_not(amount, prompt, rate) -> None:
    price = PricePolicy(id="p", model="m", rates=rate)
    output = affordable_output_tokens(amount, input_tokens=prompt, price=price)
    fixed = ceiling_nanos(input_tokens=prompt, output_tokens=0, price=price)
    if amount < fixed:
        assert output == 0
    elif rate.output == 0:
        assert output == MAX_NANOS
    else:
        assert ceiling_nanos(input_tokens=prompt, output_tokens=output, price=price) <= amount
        beyond = amount * 1_000_000 // rate.output + 2
        assert ceiling_nanos(input_tokens=prompt, output_tokens=beyond, price=price) > amount


@given(st.integers(-MAX_NANOS, MAX_NANOS))
def test_dollars_as_text_lose_nothing(nanos: int) -> None:
    assert parse_usd(usd_text(nanos)) == nanos


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "0.00"),
        (1, "0.000000001"),
        (NANOS_PER_USD, "1.00"),
        (-1_500_000_000, "-1.50"),
        (10**7, "0.01"),
    ],
)
def test_dollars_show_at_least_two_decimals(nanos: int, text: str) -> None:
    assert usd_text(nanos) == text


@pytest.mark.parametrize(
    "text", ["", "x", "1e400", "NaN", "Infinity", "0.0000000001", "1e11", "1,5", "--1"]
)
def test_text_that_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not an amount|finer|out of range"):
        parse_usd(text)


KINDS = Rates(
    input=10,
    cached_input=1,
    cache_write=20,
    output=30,
    cache_write_long=40,
    input_audio=100,
    output_audio=200,
)


def scaled(usage: TokenUsage, rates: Rates = KINDS, **variants: Rates) -> int:
    """The charge for a million times this usage: every rate counts once for each token."""
    counts = {
        name: value * TOKENS_PER_RATE
        for name, value in structs.asdict(usage).items()
        if name != "tier"
    }
    price = PricePolicy("p", "m", rates, variants=variants)
    return charge_nanos(TokenUsage(**counts, tier=usage.tier), price)


@pytest.mark.parametrize(
    ("usage", "nanos"),
    [
        (TokenUsage(input_tokens=3), 30),
        (TokenUsage(input_tokens=3, cached_input_tokens=2), 12),
        (TokenUsage(input_tokens=3, cache_write_tokens=3, cache_write_long_tokens=1), 80),
        (TokenUsage(input_tokens=3, input_audio_tokens=1), 120),
        (TokenUsage(input_tokens=3, input_image_tokens=1), 30),
        (TokenUsage(input_tokens=3, cached_input_tokens=3, input_audio_tokens=1), 102),
        (TokenUsage(output_tokens=3, output_audio_tokens=1), 260),
        (TokenUsage(output_tokens=3, reasoning_tokens=2), 90),
    ],
)
def test_each_kind_pays_its_own_rate_or_that_of_its_whole(usage: TokenUsage, nanos: int) -> None:
    assert scaled(usage) == nanos


def test_a_tier_that_was_served_pays_its_variant() -> None:
    usage = TokenUsage(input_tokens=2, output_tokens=1, tier="flex")
    flex = Rates(input=5, output=15)
    assert (scaled(usage), scaled(usage, flex=flex)) == (50, 25)


@pytest.mark.parametrize(
    ("input_tokens", "tier", "paid"),
    [
        (100, "", 10),
        (100, "batch", 5),
        (101, "", 20),
        (101, "batch", 8),
        (101, "flex", 7),
        (301, "batch", 5),
        (301, "priority", 30),
    ],
)
def test_a_long_prompt_pays_its_lengths_variant_else_the_tiers_own(
    input_tokens: int, tier: str, paid: int
) -> None:
    price = PricePolicy(
        "p",
        "m",
        Rates(input=10),
        variants={"batch": Rates(input=5), "flex": Rates(input=7)},
        tiers=[
            PriceTier(100, Rates(input=20), {"batch": Rates(input=8)}),
            PriceTier(300, Rates(input=30)),
        ],
    )
    assert rates_for(price, input_tokens=input_tokens, tier=tier).input == paid


def test_a_hold_covers_the_dearest_tier_of_every_length_in_reach() -> None:
    price = PricePolicy(
        "p", "m", RATES, tiers=[PriceTier(10, RATES, {"priority": Rates(input=10**15)})]
    )
    assert ceiling_nanos(input_tokens=11, output_tokens=0, price=price) == 11 * 10**9
    assert ceiling_nanos(input_tokens=10, output_tokens=0, price=price) < 10**6


@given(
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(0, 50),
    st.integers(0, 50),
    st.sampled_from(["", "priority", "flex"]),
)
def test_no_kind_and_no_tier_costs_more_than_was_held(
    prompt: int, answer: int, audio: int, cached: int, tier: str
) -> None:
    usage = TokenUsage(
        input_tokens=prompt + audio + cached,
        cached_input_tokens=cached,
        cache_write_tokens=prompt,
        cache_write_long_tokens=prompt // 2,
        input_audio_tokens=audio,
        output_tokens=answer,
        output_audio_tokens=answer // 3,
        tier=tier,
    )
    variants = {"priority": Rates(input=90, output=70, cache_write_long=95)}
    price = PricePolicy("p", "m", KINDS, variants=variants)
    held = ceiling_nanos(
        input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, price=price
    )
    assert charge_nanos(usage, price) <= held


def test_parts_are_never_more_than_their_whole() -> None:
    price = PricePolicy("p", "m", KINDS)
    for usage in (
        TokenUsage(input_tokens=1, input_audio_tokens=2),
        TokenUsage(output_tokens=1, output_audio_tokens=2),
        TokenUsage(input_tokens=5, cache_write_tokens=1, cache_write_long_tokens=2),
        TokenUsage(input_tokens=-1),
    ):
        with pytest.raises(ValueError, match="contradict"):
            charge_nanos(usage, price)
