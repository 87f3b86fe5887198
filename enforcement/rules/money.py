"""Money: integer nano-dollars, exact rates, one rounding, upwards, once per request.

A rate is an integer number of nano-dollars per million tokens, which is exact for every
published price (a dollar per million tokens is 10⁹). A charge is summed exactly in units of
nano-dollars × 10⁻⁶ and rounded up once, so a request costs less than a nano-dollar too much.
"""

import re
from decimal import Context, Decimal

from msgspec import Struct

from enforcement.rules.policy import PricePolicy, Rates

NANOS_PER_USD = 1_000_000_000
TOKENS_PER_RATE = 1_000_000
MAX_NANOS = 2**63 - 1
_PLAIN = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)")
_MOST_CHARS = 100
_EXACT = Context(prec=_MOST_CHARS)


class TokenUsage(Struct, frozen=True):
    """Tokens of one request. `input_tokens` is the total: cached and cache-written included.

    `cache_write_long_tokens`: written for longer than the provider's shortest time (Anthropic an
    hour instead of five minutes, OpenAI twelve hours instead of 30 minutes). `tier`: the service
    tier that the provider says it served, empty if it says nothing.
    """

    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0  # a part of output_tokens
    cache_write_long_tokens: int = 0  # a part of cache_write_tokens
    input_audio_tokens: int = 0  # parts of input_tokens
    input_image_tokens: int = 0
    output_audio_tokens: int = 0  # a part of output_tokens
    tier: str = ""

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def consistent(self) -> bool:
        """Whether no count is negative and no part is more than its whole."""
        return (
            self.cached_input_tokens >= 0
            and 0 <= self.cache_write_long_tokens <= self.cache_write_tokens
            and self.cached_input_tokens + self.cache_write_tokens <= self.input_tokens
            and self.input_audio_tokens >= 0
            and self.input_image_tokens >= 0
            and self.input_audio_tokens + self.input_image_tokens <= self.input_tokens
            and self.reasoning_tokens >= 0
            and self.output_audio_tokens >= 0
            and self.reasoning_tokens + self.output_audio_tokens <= self.output_tokens
        )

    @property
    def plain(self) -> bool:
        """Whether there is nothing but input, cached or not, and output: the usual call."""
        return not (
            self.cache_write_tokens
            or self.input_audio_tokens
            or self.input_image_tokens
            or self.output_audio_tokens
            or self.reasoning_tokens
            or self.tier
        )


def rates_for(price: PricePolicy, *, input_tokens: int, tier: str = "") -> Rates:
    """The rates that a request pays: of the greatest length reached, and there of its service tier.

    A length that says nothing of the service tier leaves it what the tier costs at any length.
    """
    rates, variants, reached = price.rates, price.variants, -1
    for length in price.tiers:
        if reached < length.above_input_tokens < input_tokens:
            rates, variants, reached = length.rates, length.variants, length.above_input_tokens
    return variants.get(tier) or price.variants.get(tier, rates) if tier else rates


def charge_nanos(usage: TokenUsage, price: PricePolicy) -> int:
    """What a request costs, in nano-dollars, rounded up once.

    Raises:
        ValueError: a count is negative, or a part is more than its whole.
    """
    if not usage.consistent:
        raise ValueError(f"token counts contradict each other: {usage}")
    rates = rates_for(price, input_tokens=usage.input_tokens, tier=usage.tier)
    if usage.plain:
        cached = usage.cached_input_tokens
        fresh = usage.input_tokens - cached
        scaled = (
            fresh * rates.input + cached * rates.cached_input + usage.output_tokens * rates.output
        )
    else:
        scaled = _input_scaled(usage, rates) + _output_scaled(usage, rates)
    return rates.request + -(-scaled // TOKENS_PER_RATE)


def _input_scaled(usage: TokenUsage, rates: Rates) -> int:
    """The prompt's part. Where kinds overlap (cached audio), the rate of the medium counts."""
    left, scaled = usage.input_tokens, 0
    for tokens, rate in (
        (usage.input_audio_tokens, rates.input_audio),
        (usage.input_image_tokens, rates.input_image),
    ):
        if tokens and rate is not None:
            left, scaled = left - tokens, scaled + tokens * rate
    long = usage.cache_write_long_tokens
    for tokens, rate in (
        (long, rates.cache_write if rates.cache_write_long is None else rates.cache_write_long),
        (usage.cache_write_tokens - long, rates.cache_write),
        (usage.cached_input_tokens, rates.cached_input),
    ):
        if tokens:
            tokens = min(tokens, left)  # noqa: PLW2901 -- what the media have left
            left, scaled = left - tokens, scaled + tokens * rate
    return scaled + left * rates.input


def _output_scaled(usage: TokenUsage, rates: Rates) -> int:
    """The answer's part."""
    left, scaled = usage.output_tokens, 0
    for tokens, rate in (
        (usage.output_audio_tokens, rates.output_audio),
        (usage.reasoning_tokens, rates.reasoning),
    ):
        if tokens and rate is not None:
            left, scaled = left - tokens, scaled + tokens * rate
    return scaled + left * rates.output


def ceiling_nanos(*, input_tokens: int, output_tokens: int, price: PricePolicy) -> int:
    """The most that a request of at most these sizes can cost: the dearest rate that can apply."""
    rates = price.rates
    if not (price.tiers or price.variants or rates.special):
        input_rate = max(rates.input, rates.cached_input, rates.cache_write)
        scaled = input_tokens * input_rate + output_tokens * rates.output
        return rates.request + -(-scaled // TOKENS_PER_RATE)
    reachable = _reachable(price, input_tokens=input_tokens)
    input_rate = max(rates.dearest_input for rates in reachable)
    output_rate = max(rates.dearest_output for rates in reachable)
    scaled = input_tokens * input_rate + output_tokens * output_rate
    return max(rates.request for rates in reachable) + -(-scaled // TOKENS_PER_RATE)


def _reachable(price: PricePolicy, *, input_tokens: int) -> list[Rates]:
    """All rates that a request of at most this input length can come to pay."""
    reached = [length for length in price.tiers if length.above_input_tokens < input_tokens]
    longer = [rates for one in reached for rates in (one.rates, *one.variants.values())]
    return [price.rates, *longer, *price.variants.values()]


def affordable_output_tokens(amount_nanos: int, *, input_tokens: int, price: PricePolicy) -> int:
    """How many output tokens fit into an amount beside the input, at the dearest rate; ≥ 0."""
    fixed = ceiling_nanos(input_tokens=input_tokens, output_tokens=0, price=price)
    if amount_nanos < fixed:
        return 0
    reachable = _reachable(price, input_tokens=input_tokens)
    output_rate = max(rates.dearest_output for rates in reachable)
    if output_rate == 0:
        return MAX_NANOS
    return (amount_nanos - fixed) * TOKENS_PER_RATE // output_rate


def usd_text(nanos: int) -> str:
    """Exact decimal dollars for API and CLI: at least two decimals, no exponent, no float."""
    sign, nanos = ("-", -nanos) if nanos < 0 else ("", nanos)
    dollars, rest = divmod(nanos, NANOS_PER_USD)
    digits = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{dollars}.{digits}"


def parse_usd(text: str) -> int:
    """Nano-dollars of a decimal string.

    Raises:
        ValueError: not a plain decimal, finer than a nano-dollar, or outside 64 bits.
    """
    # An exponent could make a number of a million digits out of a few letters.
    if len(text) > _MOST_CHARS or not _PLAIN.fullmatch(text):
        raise ValueError(f"not an amount in dollars: {text[:_MOST_CHARS]!r}")
    scaled = Decimal(text).scaleb(9, _EXACT)
    nanos = int(scaled)
    if nanos != scaled:
        raise ValueError(f"finer than a nano-dollar: {text!r}")
    if abs(nanos) > MAX_NANOS:
        raise ValueError(f"out of range: {text!r}")
    return nanos
