"""Read prices as `genai-prices` writes them. The only file that knows that package.

1. A token kind without a price of its own costs what its parent costs: cached and cache-written
   input, and an answer, like input. Where a kind has several prices that our usage cannot tell
   apart (citations), the dearest holds.
2. Prices that depend on the time of day become the dearest of the day.
3. What a service tier or a batch costs instead is a variant; other contexts are not read.
4. Match rules that are not "equals" or "starts with" are left out, except that a dated suffix
   (`name-20260131`) becomes a prefix: an unpriced model is refused, a wrong price overspends.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, time, timedelta
from importlib.metadata import version
from typing import NamedTuple

from genai_prices import types
from genai_prices.data import providers

from budgets.domain.pricelist import Catalogue, PriceKey, PriceList, Span, exact_nanos
from enforcement.rules.policy import PriceTier, Rates
from enforcement.rules.windows import EPOCH

SOURCE = "genai-prices"
_REQUESTS_PER_KCOUNT = 1000
_OUTPUT_KINDS = ("output_mtok", "output_citation_mtok")
_OWN_KINDS = {  # ours: theirs
    "cache_write_long": "cache_write_1h_mtok",
    "input_audio": "input_audio_mtok",
    "input_image": "input_image_mtok",
    "output_audio": "output_audio_mtok",
    "reasoning": "output_reasoning_mtok",
}
_TIER_CONTEXTS = ("service_tier", "processing")
_DATED = re.compile(r"\^(?P<stem>(?:[a-z0-9/_-]|\\\.)+-)(?:\\d\{8\}|\\d\{4\}-\\d\{2\}-\\d\{2\})\$")


class _Price(NamedTuple):
    rates: Rates
    tiers: tuple[PriceTier, ...]
    variants: dict[str, Rates]


def installed() -> PriceList:
    """The snapshot of the installed package."""
    return PriceList(source=SOURCE, version=version(SOURCE), prices=read_catalogue())


def providers_of(document: object) -> list[types.Provider]:
    """Providers of the package's published JSON, parsed with decimals for its numbers.

    Raises:
        ValueError: it is not that format.
    """
    try:
        return types._providers_from_raw(document)  # noqa: SLF001 -- as its own updater does
    except (AttributeError, TypeError, KeyError) as error:
        raise ValueError(str(error)) from error


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
    joined: list[tuple[datetime, _Price | None]] = []
    for start, price in priced:
        if not joined or joined[-1][1] != price:
            joined.append((start, price))
    ends = [start for start, _ in joined[1:]]
    for (start, price), end in zip(joined, [*ends, None], strict=True):
        if price is not None:
            yield Span(start, end, *price)


def _constraints(model: types.ModelInfo) -> list[object]:
    plain = [] if isinstance(model.prices, types.ModelPrice) else model.prices
    return [one.constraint for one in (*plain, *(model.price_variants or ()))]


def _start_dates(model: types.ModelInfo) -> set[datetime]:
    return {
        datetime.combine(constraint.start_date, time.min, UTC)
        for constraint in _constraints(model)
        if isinstance(constraint, types.StartDateConstraint)
    }


def _priced_on(model: types.ModelInfo, start: datetime) -> _Price | None:
    """The dearest prices of the day that begins at `start`, kind by kind, and by service tier."""
    base = _day(model, start, {})
    if not base:
        return None
    by_tier = {
        name: day
        for name, context in _contexts(model).items()
        if (day := _day(model, start, context))
    }
    every = [price for day in (base, *by_tier.values()) for price in day]
    thresholds = sorted({t for price in every for t in _thresholds(price)})
    tiers = tuple(
        PriceTier(
            above_input_tokens=threshold,
            rates=_dearest(base, threshold),
            variants=_differing(base, by_tier, threshold),
        )
        for threshold in thresholds
    )
    return _Price(_dearest(base, -1), tiers, _differing(base, by_tier, -1))


def _contexts(model: types.ModelInfo) -> dict[str, dict[str, str]]:
    """The contexts that are service tiers, by the name that an answer calls them."""
    return {
        name: variant.when
        for variant in model.price_variants or ()
        for key, name in variant.when.items()
        if len(variant.when) == 1 and key in _TIER_CONTEXTS
    }


def _day(
    model: types.ModelInfo, start: datetime, context: dict[str, str]
) -> list[types.ModelPrice]:
    """The prices of a day; none where one of them has no price of input."""
    hours = {time.min} | {
        instant.replace(tzinfo=None)
        for constraint in _constraints(model)
        if isinstance(constraint, types.TimeOfDateConstraint)
        for instant in (constraint.start_time, constraint.end_time)
    }
    prices = [
        model.get_prices(start + timedelta(hours=hour.hour, minutes=hour.minute), context)
        for hour in sorted(hours)
    ]
    return prices if all(_nanos(price, "input_mtok", -1) is not None for price in prices) else []


def _differing(
    base: list[types.ModelPrice], by_tier: dict[str, list[types.ModelPrice]], threshold: int
) -> dict[str, Rates]:
    """The rates of the tiers that pay others than the base, anywhere."""
    return {name: _dearest(day, threshold) for name, day in sorted(by_tier.items()) if day != base}


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
    answers = [_nanos(price, kind, threshold) for kind in _OUTPUT_KINDS]
    priced = [nanos for nanos in answers if nanos is not None]
    per_thousand = getattr(price, "requests_kcount", None)
    return Rates(
        input=plain,
        cached_input=plain if cached is None else cached,
        cache_write=plain if written is None else written,
        output=max(priced) if priced else plain,
        **{kind: _nanos(price, theirs, threshold) for kind, theirs in _OWN_KINDS.items()},
        request=0 if per_thousand is None else exact_nanos(per_thousand / _REQUESTS_PER_KCOUNT),
    )


def _nanos(price: types.ModelPrice, kind: str, threshold: int) -> int | None:
    value = getattr(price, kind, None)
    if isinstance(value, types.TieredPrices):
        reached = [tier.price for tier in value.tiers if tier.start <= threshold]
        value = reached[-1] if reached else value.base
    return None if value is None else exact_nanos(value)


def _dearest(day: list[types.ModelPrice], threshold: int) -> Rates:
    rates = [_rates_above(price, threshold) for price in day]
    kinds = ("input", "cached_input", "cache_write", "output", "request")
    own = {kind for rate in rates for kind in rate.own_kinds}
    return Rates(
        **{kind: max(getattr(rate, kind) for rate in rates) for kind in kinds},
        **{kind: max(rate.of(kind) for rate in rates) for kind in own},
    )
