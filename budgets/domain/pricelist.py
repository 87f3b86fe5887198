"""What a list of prices says, whoever wrote it: models, rates in time, and how far they jump.

1. A rate is integer nano-dollars per million tokens: exact for every published price. What a source
   writes finer is rounded up, once the noise of its own binary floats (beyond the twelfth decimal)
   is gone.
2. A model without a rate of its input is left out: unpriced is refused, free by accident
   overspends.
3. A rate that becomes a hundred times what it was, or a hundredth, is a slip of a unit or a point
   until somebody confirms that model by name. So is one without a predecessor, or after 0, that is
   far above the dearest published one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal
from typing import NamedTuple

import msgspec

from enforcement.rules.money import NANOS_PER_USD, usd_text
from enforcement.rules.policy import PriceTier, Rates

JUMP = 100
DEAREST_NANOS_PER_MTOK = 10_000 * NANOS_PER_USD  # the dearest published model costs 600 dollars
DEAREST_REQUEST_NANOS = 100 * NANOS_PER_USD
_NOISE = Decimal("1e-12")
_MOST_DIGITS = 12  # before the point


class PriceKey(NamedTuple):
    """Which requests a price is for."""

    provider: str
    model: str
    match: str

    @property
    def name(self) -> str:
        """How people name it: `openai:gpt-4o`, `openai:gpt-4o-*`."""
        provider = f"{self.provider}:" if self.provider else ""
        return f"{provider}{self.model}{'*' if self.match == 'prefix' else ''}"


class Span(NamedTuple):
    """Rates for a half-open time. `end` None: until further notice."""

    start: datetime
    end: datetime | None
    rates: Rates
    tiers: tuple[PriceTier, ...] = ()
    variants: dict[str, Rates] = {}


Catalogue = dict[PriceKey, list[Span]]


@dataclass(frozen=True, kw_only=True)
class PriceList:
    """A price file as read. `left_out`: models that it names and gives no usable price of."""

    source: str
    version: str
    prices: Catalogue
    left_out: list[str] = field(default_factory=list)


def exact_nanos(dollars: Decimal) -> int:
    """Nano-dollars of a decimal; what is finer is rounded up.

    Raises:
        ValueError: not a number, or beyond anything that is a price.
    """
    if not dollars.is_finite() or dollars.adjusted() >= _MOST_DIGITS:
        raise ValueError(f"not a price: {dollars}")
    clean = dollars.quantize(_NOISE, ROUND_HALF_EVEN)
    return int((clean * NANOS_PER_USD).to_integral_value(ROUND_CEILING))


def flat(span: Span) -> dict[str, int]:
    """Every rate of a span by a name that people understand, in nano-dollars."""
    return dict(_named(span))


def _named(span: Span) -> Iterator[tuple[str, int]]:
    yield from _kinds("", span.rates)
    for name, rates in span.variants.items():
        yield from _kinds(f"{name} ", rates)
    for tier in span.tiers:
        above = f"above {tier.above_input_tokens} "
        yield from _kinds(above, tier.rates)
        for name, rates in tier.variants.items():
            yield from _kinds(f"{above}{name} ", rates)


def _kinds(prefix: str, rates: Rates) -> Iterator[tuple[str, int]]:
    for kind, nanos in msgspec.structs.asdict(rates).items():
        if nanos is not None:
            yield prefix + kind, nanos


def jumps(old: Span | None, new: Span) -> list[str]:
    """What cannot be meant until it is confirmed, as sentences; empty where all is plausible."""
    before = {} if old is None else flat(old)
    return [
        said
        for kind, nanos in flat(new).items()
        if (said := _jump(kind, before.get(kind, before.get(kind.split()[-1])), nanos))
    ]


def _jump(kind: str, old: int | None, new: int) -> str:
    if not old:
        most = DEAREST_REQUEST_NANOS if kind.endswith("request") else DEAREST_NANOS_PER_MTOK
        return f"{kind} is ${usd_text(new)}" if new > most else ""
    if old >= new * JUMP:
        return f"{kind} falls from ${usd_text(old)} to ${usd_text(new)}"
    if new >= old * JUMP:
        return f"{kind} rises from ${usd_text(old)} to ${usd_text(new)}"
    return ""
