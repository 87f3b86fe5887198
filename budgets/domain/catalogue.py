"""Read the `genai-prices` snapshot into plain rates. The only file that knows that package.

1. A price is decimal dollars per million tokens; a rate is integer nano-dollars per million: exact
   for every published price. What a source writes finer is rounded up, once the noise of its own
   binary floats (beyond the twelfth decimal) is gone.
2. A token kind without a price of its own costs what its parent costs: cached and cache-written
   input like input. Where a kind has several prices that our usage cannot tell apart (reasoning,
   citations), the dearest holds.
3. Prices that depend on the time of day become the dearest of the day.
4. Match rules that are not "equals" or "starts with" are left out, except that a dated suffix
   (`name-20260131`) becomes a prefix: an unpriced model is refused, a wrong price overspends.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, time, timedelta
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal
from importlib.metadata import version
from typing import NamedTuple

from genai_prices import types
from genai_prices.data import providers

from enforcement.rules.money import NANOS_PER_USD
from enforcement.rules.policy import PriceTier, Rates
from enforcement.rules.windows import EPOCH

SOURCE = "genai-prices"
_REQUESTS_PER_KCOUNT = 1000
_INPUT_KINDS = ("input_mtok",)
_OUTPUT_KINDS = ("output_mtok", "output_citation_mtok")
_OWN_KINDS = {  # ours: theirs
    "cache_write_long": "cache_write_1h_mtok",
    "input_audio": "input_audio_mtok",
    "input_image": "input_image_mtok",
    "output_audio": "output_audio_mtok",
    "reasoning": "output_reasoning_mtok",
}
_DATED = re.compile(r"\^(?P<stem>(?:[a-z0-9/_-]|\\\.)+-)(?:\\d\{8\}|\\d\{4\}-\\d\{2\}-\\d\{2\})\$")
_NOISE = Decimal("1e-12")


class PriceKey(NamedTuple):
    """Which requests a price is for."""

    provider: str
    model: str
    match: str


class Span(NamedTuple):
    """Rates for a half-open time. `end` None: until further notice."""

    start: datetime
    end: datetime | None
    rates: Rates
    tiers: tuple[PriceTier, ...]


Catalogue = dict[PriceKey, list[Span]]


def source_version() -> str:
    return version(SOURCE)


def read_catalogue(source: Iterable[types.Provider] | None = None) -> Catalogue:
    """Every token price of the snapshot, as spans that abut. First match wins, as in the source."""
    found: Catalogue = {}
    for provider in providers if source is None else source:
        for model in provider.models:
            spans = list(_spans(model))
            if not spans:
                continue
            for name, match in _names(model):
                found.setdefault(PriceKey(provider.id, name, match), spans)
    return found


# ------------------------------------------------------------------------------ names


def _names(model: types.ModelInfo) -> list[tuple[str, str]]:
    return list(dict.fromkeys([(model.id, "exact"), *_clauses(model.match)]))


def _clauses(match: types.MatchLogic) -> Iterator[tuple[str, str]]:
    if isinstance(match, types.ClauseOr):
        for clause in match.or_:
            yield from _clauses(clause)
    elif isinstance(match, types.ClauseEquals):
        yield match.equals, "exact"
    elif isinstance(match, types.ClauseStartsWith):
        yield match.starts_with, "prefix"
    elif isinstance(match, types.ClauseRegex):
        dated = _DATED.fullmatch(match.regex)
        if dated:
            yield dated["stem"].replace("\\.", ".") + "20", "prefix"


# ------------------------------------------------------------------------------ spans


def _spans(model: types.ModelInfo) -> Iterator[Span]:
    """The model's prices in time, adjacent equal ones joined."""
    starts = [EPOCH, *sorted(_start_dates(model))]
    priced = [(start, _priced_on(model, start)) for start in starts]
    joined: list[tuple[datetime, tuple[Rates, tuple[PriceTier, ...]] | None]] = []
    for start, price in priced:
        if not joined or joined[-1][1] != price:
            joined.append((start, price))
    ends = [start for start, _ in joined[1:]]
    for (start, price), end in zip(joined, [*ends, None], strict=True):
        if price is not None:
            yield Span(start, end, *price)


def _conditions(model: types.ModelInfo) -> list[types.ConditionalPrice]:
    return [] if isinstance(model.prices, types.ModelPrice) else model.prices


def _start_dates(model: types.ModelInfo) -> set[datetime]:
    return {
        datetime.combine(condition.constraint.start_date, time.min, UTC)
        for condition in _conditions(model)
        if isinstance(condition.constraint, types.StartDateConstraint)
    }


def _priced_on(
    model: types.ModelInfo, start: datetime
) -> tuple[Rates, tuple[PriceTier, ...]] | None:
    """The dearest price of the day that begins at `start`, kind by kind."""
    hours = {time.min} | {
        instant.replace(tzinfo=None)
        for condition in _conditions(model)
        if isinstance(condition.constraint, types.TimeOfDateConstraint)
        for instant in (condition.constraint.start_time, condition.constraint.end_time)
    }
    prices = [
        model.get_prices(start + timedelta(hours=hour.hour, minutes=hour.minute))
        for hour in sorted(hours)
    ]
    priced = [price for price in prices if _has_tokens(price)]
    if not priced:
        return None
    thresholds = sorted({t for price in priced for t in _thresholds(price)})
    base = _dearest([_rates_above(price, -1) for price in priced])
    tiers = tuple(
        PriceTier(
            above_input_tokens=threshold,
            rates=_dearest([_rates_above(price, threshold) for price in priced]),
        )
        for threshold in thresholds
    )
    return base, tiers


def _has_tokens(price: types.ModelPrice) -> bool:
    return any(getattr(price, kind, None) is not None for kind in (*_INPUT_KINDS, "output_mtok"))


def _thresholds(price: types.ModelPrice) -> set[int]:
    return {
        tier.start
        for value in vars(price).values()
        if isinstance(value, types.TieredPrices)
        for tier in value.tiers
    }


def _rates_above(price: types.ModelPrice, threshold: int) -> Rates:
    """The rates of a request whose input is just above a threshold (-1: of the shortest)."""
    plain = _nanos(price, "input_mtok", threshold) or 0
    cached = _nanos(price, "cache_read_mtok", threshold)
    written = _nanos(price, "cache_write_mtok", threshold)
    per_thousand = getattr(price, "requests_kcount", None)
    return Rates(
        input=plain,
        cached_input=plain if cached is None else cached,
        cache_write=plain if written is None else written,
        output=max(_nanos(price, kind, threshold) or 0 for kind in _OUTPUT_KINDS),
        **{kind: _nanos(price, theirs, threshold) for kind, theirs in _OWN_KINDS.items()},
        request=0 if per_thousand is None else exact_nanos(per_thousand / _REQUESTS_PER_KCOUNT),
    )


def _nanos(price: types.ModelPrice, kind: str, threshold: int) -> int | None:
    value = getattr(price, kind, None)
    if isinstance(value, types.TieredPrices):
        reached = [tier.price for tier in value.tiers if tier.start <= threshold]
        value = reached[-1] if reached else value.base
    return None if value is None else exact_nanos(value)


def exact_nanos(dollars: Decimal) -> int:
    """Nano-dollars of a decimal; what is finer is rounded up."""
    clean = dollars.quantize(_NOISE, ROUND_HALF_EVEN)
    return int((clean * NANOS_PER_USD).to_integral_value(ROUND_CEILING))


def _dearest(rates: list[Rates]) -> Rates:
    kinds = ("input", "cached_input", "cache_write", "output", "request")
    own = {kind for rate in rates for kind in rate.own_kinds}
    return Rates(
        **{kind: max(getattr(rate, kind) for rate in rates) for kind in kinds},
        **{kind: max(rate.of(kind) for rate in rates) for kind in own},
    )
