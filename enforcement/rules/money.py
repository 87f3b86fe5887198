"""Money: integer nano-dollars, exact rates, one rounding, upwards, once per request.

A rate is an integer number of nano-dollars per million tokens, which is exact for every
published price (a dollar per million tokens is 10⁹). A charge is summed exactly in units of
nano-dollars × 10⁻⁶ and rounded up once, so a request costs less than a nano-dollar too much.
"""

from decimal import Decimal

from msgspec import Struct

from enforcement.rules.policy import PricePolicy, Rates

NANOS_PER_USD = 1_000_000_000
TOKENS_PER_RATE = 1_000_000
MAX_NANOS = 2**63 - 1


class TokenUsage(Struct, frozen=True):
    """Tokens of one request. `input_tokens` is the total: cached and cache-written included."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0  # a part of output_tokens

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


def rates_for(price: PricePolicy, *, input_tokens: int) -> Rates:
    """The rates that a request of this input length pays: base, or the highest tier reached."""
    rates, reached = price.rates, -1
    for tier in price.tiers:
        if reached < tier.above_input_tokens < input_tokens:
            rates, reached = tier.rates, tier.above_input_tokens
    return rates


def charge_nanos(usage: TokenUsage, price: PricePolicy) -> int:
    """What a request costs, in nano-dollars, rounded up once.

    Raises:
        ValueError: a count is negative, or cached and cache-written tokens exceed the input.
    """
    plain = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
    if min(plain, usage.cached_input_tokens, usage.cache_write_tokens, usage.output_tokens) < 0:
        raise ValueError(f"token counts contradict each other: {usage}")
    rates = rates_for(price, input_tokens=usage.input_tokens)
    scaled = (
        plain * rates.input
        + usage.cached_input_tokens * rates.cached_input
        + usage.cache_write_tokens * rates.cache_write
        + usage.output_tokens * rates.output
    )
    return rates.request + -(-scaled // TOKENS_PER_RATE)


def ceiling_nanos(*, input_tokens: int, output_tokens: int, price: PricePolicy) -> int:
    """The most that a request of at most these sizes can cost: the dearest rate that can apply."""
    if not price.tiers:
        rates = price.rates
        input_rate = max(rates.input, rates.cached_input, rates.cache_write)
        scaled = input_tokens * input_rate + output_tokens * rates.output
        return rates.request + -(-scaled // TOKENS_PER_RATE)
    reachable = [
        price.rates,
        *(t.rates for t in price.tiers if t.above_input_tokens < input_tokens),
    ]
    input_rate = max(max(r.input, r.cached_input, r.cache_write) for r in reachable)
    output_rate = max(r.output for r in reachable)
    scaled = input_tokens * input_rate + output_tokens * output_rate
    return max(r.request for r in reachable) + -(-scaled // TOKENS_PER_RATE)


def affordable_output_tokens(amount_nanos: int, *, input_tokens: int, price: PricePolicy) -> int:
    """How many output tokens fit into an amount beside the input, at the dearest rate; ≥ 0."""
    fixed = ceiling_nanos(input_tokens=input_tokens, output_tokens=0, price=price)
    if amount_nanos < fixed:
        return 0
    reachable = [
        price.rates,
        *(t.rates for t in price.tiers if t.above_input_tokens < input_tokens),
    ]
    output_rate = max(r.output for r in reachable)
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
    try:
        scaled = Decimal(text) * NANOS_PER_USD
        nanos = int(scaled)
    except (ArithmeticError, ValueError) as error:
        raise ValueError(f"not an amount in dollars: {text!r}") from error
    if nanos != scaled:
        raise ValueError(f"finer than a nano-dollar: {text!r}")
    if abs(nanos) > MAX_NANOS:
        raise ValueError(f"out of range: {text!r}")
    return nanos
