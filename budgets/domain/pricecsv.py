"""Prices as CSV: read what a person wrote into a sheet, write what holds in the same form.

A row is one set of rates, in dollars per million tokens (`request`: dollars for each). The base row
of a model and time has neither service tier nor length; rows that have stand beside it.
"""

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from io import StringIO

from budgets.domain.pricelist import Catalogue, PriceKey, Span, exact_nanos
from budgets.enums import PriceMatch
from enforcement.rules.money import usd_text
from enforcement.rules.policy import OPTIONAL_KINDS, PriceTier, Rates
from enforcement.rules.windows import EPOCH

_KINDS = ("input", "cached_input", "cache_write", "output", "request", *OPTIONAL_KINDS)
_IGNORED = ("source", "own")  # what an export says beside the prices
COLUMNS = (
    "provider",
    "model",
    "match",
    *_KINDS,
    "service_tier",
    "above_input_tokens",
    "valid_from",
    "valid_to",
)


def rows_of(key: PriceKey, span: Span) -> Iterator[tuple[str, ...]]:
    """The rows of one version, as `COLUMNS` names their cells."""
    for above, tier, rates in _places(span):
        said = [getattr(rates, kind) for kind in _KINDS]
        yield (
            *key,
            *("" if nanos is None else usd_text(nanos) for nanos in said),
            tier,
            above,
            "" if span.start == EPOCH else span.start.isoformat(),
            span.end.isoformat() if span.end else "",
        )


def _places(span: Span) -> Iterator[tuple[str, str, Rates]]:
    yield "", "", span.rates
    for tier, rates in span.variants.items():
        yield "", tier, rates
    for length in span.tiers:
        above = str(length.above_input_tokens)
        yield above, "", length.rates
        for tier, rates in length.variants.items():
            yield above, tier, rates


def read_csv(text: str) -> Catalogue:
    """Prices by model and time.

    Raises:
        ValueError, InvalidOperation, OverflowError, csv.Error: it is not that, or says two things.
    """
    lines = csv.DictReader(StringIO(text), strict=True)
    names = [name.strip().lower().replace(" ", "_") for name in lines.fieldnames or ()]
    unknown = set(names) - {*COLUMNS, *_IGNORED}
    if unknown or "model" not in names or len(set(names)) < len(names):
        raise ValueError(f"columns are {', '.join(COLUMNS)}, not {', '.join(names)[:200]}")
    lines.fieldnames = names
    groups: dict[tuple[PriceKey, str, str], dict[tuple[str, str], Rates]] = defaultdict(dict)
    for row in lines:
        if None in row or None in row.values():
            raise ValueError(f"line {lines.line_num} has another number of cells than the head")
        group, place, rates = _line(row, at=lines.line_num)
        if place in groups[group]:
            raise ValueError(f"line {lines.line_num} says again what an earlier one said")
        groups[group][place] = rates
    found: Catalogue = defaultdict(list)
    for (key, start, end), rates_by_place in groups.items():
        found[key].append(_span(key, start, end, rates_by_place))
    return {key: _in_time(key, spans) for key, spans in found.items()}


def _line(
    row: dict[str, str], *, at: int
) -> tuple[tuple[PriceKey, str, str], tuple[str, str], Rates]:
    cells = {name: text.strip() for name, text in row.items()}
    match = cells.get("match") or PriceMatch.EXACT.value
    if match not in PriceMatch.values:
        raise ValueError(f"line {at}: match is one of {', '.join(PriceMatch.values)}")
    key = PriceKey(cells.get("provider", ""), cells["model"], match)
    dates = (cells.get("valid_from", ""), cells.get("valid_to", ""))
    place = (cells.get("above_input_tokens", ""), cells.get("service_tier", ""))
    try:
        return (key, *dates), place, _rates(cells)
    except (ValueError, InvalidOperation) as error:
        raise ValueError(f"line {at}: {error}") from error


def _rates(cells: dict[str, str]) -> Rates:
    said = {kind: exact_nanos(Decimal(cells[kind])) for kind in _KINDS if cells.get(kind)}
    for kind in ("input", "output"):
        if kind not in said:
            raise ValueError(f"a rate of {kind} is missing; write 0 where it costs nothing")
    return Rates(**{"cached_input": said["input"], "cache_write": said["input"], **said})


def _span(
    key: PriceKey, start: str, end: str, rates_by_place: dict[tuple[str, str], Rates]
) -> Span:
    base = rates_by_place.get(("", ""))
    if base is None:
        raise ValueError(f"{key.name} has no row without service tier and length")
    lengths = sorted({int(length) for length, _ in rates_by_place if length})
    tiers = []
    for length in lengths:
        at_length = {
            name: rates for (above, name), rates in rates_by_place.items() if above == str(length)
        }
        if "" not in at_length:
            raise ValueError(f"{key.name} has no plain row above {length} tokens")
        tiers.append(PriceTier(length, at_length.pop(""), at_length))
    variants = {
        name: rates for (above, name), rates in rates_by_place.items() if name and not above
    }
    return Span(_instant(start) or EPOCH, _instant(end), base, tuple(tiers), variants)


def _instant(text: str) -> datetime | None:
    if not text:
        return None
    at = datetime.fromisoformat(text)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _in_time(key: PriceKey, spans: Iterable[Span]) -> list[Span]:
    """Spans in order; one without end ends where the next begins."""
    ordered = sorted(spans, key=lambda span: span.start)
    found = []
    for span, after in zip(ordered, [*ordered[1:], None], strict=True):
        end = span.end if span.end is not None or after is None else after.start
        if (end is not None and end <= span.start) or (after and end and end > after.start):
            raise ValueError(f"{key.name} has two prices at once from {span.start:%Y-%m-%d}")
        found.append(span._replace(end=end))
    return found
