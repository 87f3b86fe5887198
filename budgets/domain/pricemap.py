"""Read LiteLLM's map of models (`model_prices_and_context_window.json`): dollars for one token.

1. A name is `[provider/]model`; the provider is what the entry says it is.
2. `…_above_200k_tokens` are length tiers, `…_batches`, `…_flex`, `…_priority` … service tiers, and
   both may stand in one name.
3. That map writes 0 where it does not know. So an entry whose input costs nothing is left out, like
   those that are not of tokens (images, seconds, pages); beside a price of input a kind of 0 pays
   what its whole pays.
"""

import re
from collections import defaultdict
from decimal import Decimal
from typing import Any

from budgets.domain.pricelist import Catalogue, PriceKey, Span, exact_nanos
from budgets.enums import PriceMatch
from enforcement.rules.policy import PriceTier, Rates
from enforcement.rules.windows import EPOCH

_TOKENS_PER_RATE = 1_000_000
_MODES = ("chat", "completion", "responses", "embedding")
_KINDS = {
    "input_cost_per_token": "input",
    "cache_read_input_token_cost": "cached_input",
    "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_long",
    "cache_creation_input_token_cost_above_12hr": "cache_write_long",
    "output_cost_per_token": "output",
    "output_cost_per_reasoning_token": "reasoning",
    "input_cost_per_audio_token": "input_audio",
    "input_cost_per_image_token": "input_image",
    "output_cost_per_audio_token": "output_audio",
    "input_cost_per_request": "request",
}
_TIERS = {"batches": "batch", "flex": "flex", "priority": "priority", "balanced": "balanced"}
_PLACE = re.compile(
    r"(?P<kind>.+?)(?:_above_(?P<length>[0-9]{1,6})k_tokens)?"
    rf"(?:_(?P<tier>{'|'.join(_TIERS)}))?"
)
_Place = tuple[int, str]  # input tokens above (0: any), service tier ("": none)


def read_map(document: object) -> tuple[Catalogue, list[str]]:
    """Prices, and the names of entries that have no usable price of tokens.

    Raises:
        ValueError: it is not that map.
    """
    if not isinstance(document, dict) or not all(isinstance(e, dict) for e in document.values()):
        raise ValueError("an object of models is expected")
    found: Catalogue = {}
    left_out = []
    for name, entry in document.items():
        if entry.get("mode") not in _MODES:
            continue
        rates = _rates_by_place(name, entry)
        plain = rates.get((0, ""))
        if plain is None or not plain["input"]:
            left_out.append(name)
            continue
        provider = str(entry.get("litellm_provider", ""))
        model = name.removeprefix(f"{provider}/")
        found.setdefault(PriceKey(provider, model, PriceMatch.EXACT.value), [_span(rates)])
    return found, left_out


def _rates_by_place(name: str, entry: dict[str, Any]) -> dict[_Place, dict[str, int]]:
    """Rates by where they apply; places without a rate of input are not there at all."""
    found: dict[_Place, dict[str, int]] = defaultdict(dict)
    for field, value in entry.items():
        place = _PLACE.fullmatch(field)
        kind = _KINDS.get(place["kind"]) if place else None
        if place is None or kind is None or value is None:
            continue
        above = int(place["length"] or 0) * 1_000
        nanos = _nanos(name, field, value, each=kind == "request")
        if not nanos and kind != "input":
            continue
        rates = found[above, _TIERS.get(place["tier"] or "", "")]
        rates[kind] = max(nanos, rates.get(kind, 0))
    return {at: rates for at, rates in found.items() if "input" in rates}


def _nanos(name: str, field: str, value: object, *, each: bool) -> int:
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or value < 0:
        raise ValueError(f"{name}: {field} is not a price")
    dollars = Decimal(value)
    if dollars.is_finite() and dollars.adjusted() >= 0 and dollars and not each:
        raise ValueError(f"{name}: {field} is ${dollars} for one token")
    return exact_nanos(dollars if each else dollars * _TOKENS_PER_RATE)


def _span(places: dict[_Place, dict[str, int]]) -> Span:
    lengths = sorted({above for above, _ in places if above})
    tiers = tuple(
        PriceTier(above, _filled(places.get((above, ""), places[0, ""])), _variants(places, above))
        for above in lengths
    )
    return Span(EPOCH, None, _filled(places[0, ""]), tiers, _variants(places, 0))


def _variants(places: dict[_Place, dict[str, int]], above: int) -> dict[str, Rates]:
    return {
        tier: _filled(rates)
        for (length, tier), rates in sorted(places.items())
        if tier and length == above
    }


def _filled(said: dict[str, int]) -> Rates:
    """Rates in which a kind without one costs what input costs."""
    plain = said["input"]
    return Rates(**{"cached_input": plain, "cache_write": plain, "output": plain, **said})
