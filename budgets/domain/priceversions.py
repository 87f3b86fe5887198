"""What every price version is held to, and how versions follow each other."""

from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec
from django.db import connection

from budgets.domain.pricelist import PriceKey, Span
from budgets.errors import PriceError
from budgets.models import PriceVersion
from enforcement.rules.money import MAX_NANOS

MOST_TIER_CHARS = 32  # as usage events have
_IMPORT_LOCK = 0x7072696365
_WAITED = timedelta(seconds=30)
_MICROSECOND = timedelta(microseconds=1)


def take_turn() -> None:
    """Change the catalogue, or what follows from it, one after the other."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_IMPORT_LOCK])


def check_price(key: PriceKey, span: Span) -> None:
    """Refuse what no price can be.

    Raises:
        PriceError: `field` tells where.
    """
    for name, text, most in (("model", key.model, 200), ("provider", key.provider, 64)):
        if len(text) > most or not (text.isprintable()):
            raise PriceError(name, f"{name} has up to {most} printable characters")
    if not key.model.strip():
        raise PriceError("model", "a rate needs the name of a model")
    names = {*span.variants, *(name for tier in span.tiers for name in tier.variants)}
    if not all(name and len(name) <= MOST_TIER_CHARS and name.isprintable() for name in names):
        raise PriceError("variants", f"a service tier has up to {MOST_TIER_CHARS} characters")
    longer = [rates for tier in span.tiers for rates in (tier.rates, *tier.variants.values())]
    for rates in (span.rates, *longer, *span.variants.values()):
        for kind, amount in msgspec.structs.asdict(rates).items():
            if amount is not None and not 0 <= amount <= MAX_NANOS:
                raise PriceError(kind, f"{kind} must be zero or more and fit 63 bits, not {amount}")
    thresholds = [tier.above_input_tokens for tier in span.tiers]
    if thresholds != sorted(set(thresholds)) or (thresholds and thresholds[0] <= 0):
        raise PriceError("tiers", "tiers must rise, each above another number of input tokens")


def version_of(key: PriceKey, span: Span, *, source: str, source_version: str) -> PriceVersion:
    """A version, not saved yet, that belongs to the catalogue."""
    rates = span.rates
    return PriceVersion(
        provider=key.provider,
        model=key.model,
        match=key.match,
        input_nanos_per_mtok=rates.input,
        cached_input_nanos_per_mtok=rates.cached_input,
        cache_write_nanos_per_mtok=rates.cache_write,
        output_nanos_per_mtok=rates.output,
        request_nanos=rates.request,
        kinds=rates.own_kinds,
        variants=msgspec.to_builtins(span.variants),
        tiers=msgspec.to_builtins(span.tiers),
        valid_from=span.start,
        valid_to=span.end,
        source=source,
        source_version=source_version,
    )


def key_of(row: PriceVersion) -> PriceKey:
    return PriceKey(row.provider, row.model, row.match)


def matched(row: PriceVersion) -> str:
    """The names that a version prices, and the rule that it follows from, as people read them."""
    return f"{key_of(row).name} ({row.rule})" if row.rule else key_of(row).name


def span_of(row: PriceVersion) -> Span:
    policy = row.to_policy()
    return Span(row.valid_from, row.valid_to, policy.rates, tuple(policy.tiers), policy.variants)


def free_from(rows: Iterable[PriceVersion], now: datetime) -> datetime:
    """`now`, or just after what began while this session waited for another one.

    What has begun may have priced calls: it is ended, never withdrawn.
    """
    begun = [row.valid_from for row in rows if now <= row.valid_from <= now + _WAITED]
    return max(begun) + _MICROSECOND if begun else now


def end_versions(rows: Iterable[PriceVersion], *, at: datetime) -> None:
    """End what holds at an instant, withdraw what was to come."""
    for row in rows:
        if row.valid_from >= at:
            row.delete()
        elif row.valid_to is None or row.valid_to > at:
            row.valid_to = at
            row.save(update_fields=["valid_to"])
