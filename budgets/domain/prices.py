"""Keep price versions: import the catalogue, set own rates, tell which hold now.

Rates are never edited. A new version ends the one before it, from now on and never in the past, so
that a charge can always be computed again from the version that it names.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from uuid import UUID

import msgspec
from django.db import connection, transaction
from django.db.models import Q

from budgets.domain.catalogue import (
    SOURCE,
    Catalogue,
    PriceKey,
    Span,
    read_catalogue,
    source_version,
)
from budgets.enums import PriceMatch
from budgets.errors import PriceError
from budgets.models import PriceVersion, RollupWatermark
from controlplane.audit.domain import Actor, record
from controlplane.identity.domain import bump_policy
from controlplane.identity.models import Organization
from enforcement.rules.money import MAX_NANOS
from enforcement.rules.policy import PricePolicy, PriceTier, Rates

_IMPORT_LOCK = 0x7072696365
_BATCH = 1000
_TURNED = "prices"


NO_VARIANTS: Mapping[str, Rates] = MappingProxyType({})


@dataclass(kw_only=True)
class ImportDiff:
    """What an import changed, or would change."""

    source_version: str
    added: list[PriceKey] = field(default_factory=list)
    changed: list[PriceKey] = field(default_factory=list)
    unchanged: int = 0
    kept: int = 0  # in the table, no longer in the source


@transaction.atomic
def import_catalogue(
    *, now: datetime, catalogue: Catalogue | None = None, dry_run: bool = False
) -> ImportDiff:
    """Bring the catalogue to what the snapshot says from now on. Running it again changes nothing.

    A model that is new comes with its history; of a known one only the future changes.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_IMPORT_LOCK])
    wanted = read_catalogue() if catalogue is None else catalogue
    known: dict[PriceKey, list[PriceVersion]] = defaultdict(list)
    for row in PriceVersion.objects.filter(organization=None, source=SOURCE).order_by("valid_from"):
        known[PriceKey(row.provider, row.model, row.match)].append(row)
    diff = ImportDiff(source_version=source_version(), kept=len(known.keys() - wanted.keys()))
    fresh: list[PriceVersion] = []
    for key, spans in wanted.items():
        future = _clipped(spans, now) if key in known else spans
        if key in known and future == _clipped(_spans_of(known[key]), now):
            diff.unchanged += 1
            continue
        (diff.changed if key in known else diff.added).append(key)
        if not dry_run:
            fresh += _replace(known.get(key, []), future, now=now, key=key)
    PriceVersion.objects.bulk_create(fresh, batch_size=_BATCH)
    if fresh:
        for organization in Organization.objects.order_by("id"):
            bump_policy(organization.id)
    return diff


def _spans_of(rows: Iterable[PriceVersion]) -> list[Span]:
    policies = [(row, row.to_policy()) for row in rows]
    return [
        Span(row.valid_from, row.valid_to, policy.rates, tuple(policy.tiers))
        for row, policy in policies
    ]


def _clipped(spans: Iterable[Span], now: datetime) -> list[Span]:
    """What is left of spans from now on."""
    return [
        span._replace(start=max(span.start, now))
        for span in spans
        if span.end is None or span.end > now
    ]


def _replace(
    rows: Iterable[PriceVersion], spans: Iterable[Span], *, now: datetime, key: PriceKey
) -> list[PriceVersion]:
    """End what holds now, withdraw what was to come, and return the versions that follow."""
    for row in rows:
        if row.valid_from >= now:
            row.delete()
        elif row.valid_to is None or row.valid_to > now:
            row.valid_to = now
            row.save(update_fields=["valid_to"])
    return [
        _version(key, span.rates, span.tiers, valid_from=span.start, valid_to=span.end)
        for span in spans
    ]


def _version(
    key: PriceKey,
    rates: Rates,
    tiers: Iterable[PriceTier],
    *,
    valid_from: datetime,
    valid_to: datetime | None,
    variants: Mapping[str, Rates] = NO_VARIANTS,
) -> PriceVersion:
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
        variants={tier: msgspec.to_builtins(of_tier) for tier, of_tier in variants.items()},
        tiers=[msgspec.to_builtins(tier) for tier in tiers],
        valid_from=valid_from,
        valid_to=valid_to,
        source=SOURCE,
        source_version=source_version(),
    )


# ------------------------------------------------------------------------------ own rates


@transaction.atomic
def set_own_price(
    *,
    organization_id: UUID,
    model: str,
    rates: Rates,
    actor: Actor,
    now: datetime,
    provider: str = "",
    match: PriceMatch = PriceMatch.EXACT,
    tiers: Collection[PriceTier] = (),
    variants: Mapping[str, Rates] = NO_VARIANTS,
    valid_from: datetime | None = None,
    reason: str = "",
) -> PriceVersion:
    """Set the organization's own rate of a model, as for self-hosted ones. It wins over all others.

    `variants`: whole rates by the service tier that the provider says it served.

    It holds until the next own version that was already announced, or until further notice.

    Raises:
        PriceError: the rate cannot be meant; `field` tells where.
    """
    start = now if valid_from is None else valid_from
    every = (rates, *(tier.rates for tier in tiers), *variants.values())
    _check_price(model=model, every=every, tiers=tiers, start=start, now=now)
    organization = Organization.objects.select_for_update(no_key=True).get(id=organization_id)
    key = PriceKey(provider.strip(), model.strip(), match.value)
    overlapping = PriceVersion.objects.filter(
        Q(valid_to=None) | Q(valid_to__gt=start),
        organization=organization,
        provider=key.provider,
        model=key.model,
        match=key.match,
    ).order_by("valid_from")
    end = None
    for row in overlapping:
        if row.valid_from == start:
            raise PriceError("valid_from", f"a rate of {model!r} begins at that instant already")
        if row.valid_from < start:
            row.valid_to = start
            row.save(update_fields=["valid_to"])
        elif end is None:
            end = row.valid_from
    version = _version(key, rates, tiers, valid_from=start, valid_to=end, variants=variants)
    version.organization, version.own = organization, True
    version.source, version.source_version = "own", ""
    version.save(force_insert=True)
    bump_policy(organization_id)
    record(
        organization_id=organization_id,
        actor=actor,
        action="price.set",
        object_kind="price_version",
        object_id=str(version.id),
        reason=reason,
        after={"model": key.model, "provider": key.provider, **msgspec.to_builtins(rates)},
        now=now,
    )
    return version


def _check_price(
    *,
    model: str,
    every: Iterable[Rates],
    tiers: Collection[PriceTier],
    start: datetime,
    now: datetime,
) -> None:
    if not model.strip():
        raise PriceError("model", "a rate needs the name of a model")
    if start < now:
        raise PriceError("valid_from", "a rate cannot begin in the past: charges are not re-priced")
    for rate in every:
        for kind, amount in msgspec.structs.asdict(rate).items():
            if amount is not None and not 0 <= amount <= MAX_NANOS:
                raise PriceError(kind, f"{kind} must be zero or more and fit 63 bits, not {amount}")
    thresholds = [tier.above_input_tokens for tier in tiers]
    if thresholds != sorted(set(thresholds)) or (thresholds and thresholds[0] <= 0):
        raise PriceError("tiers", "tiers must rise, each above another number of input tokens")


# ------------------------------------------------------------------------------ reading


def prices_at(
    *, organization_id: UUID, now: datetime, models: Collection[str] | None = None
) -> list[PriceVersion]:
    """The versions that hold now: own ones first, then the dearest; `models` narrows the catalogue.

    Own rates are always all there. The order decides between providers where a node names none.
    """
    own = Q(organization_id=organization_id)
    catalogue = Q(organization=None)
    rows = PriceVersion.objects.filter(Q(valid_to=None) | Q(valid_to__gt=now), valid_from__lte=now)
    if models is not None:
        catalogue &= Q(match=PriceMatch.EXACT, model__in=models) | Q(
            match=PriceMatch.PREFIX, model__in=_prefixes(models)
        )
    return list(
        rows.filter(own | catalogue).order_by(
            "-own", "-output_nanos_per_mtok", "-input_nanos_per_mtok", "provider", "model", "match"
        )
    )


def _prefixes(models: Iterable[str]) -> set[str]:
    return {model[:length] for model in models for length in range(1, len(model) + 1)}


def price_policies(
    *, organization_id: UUID, now: datetime, models: Collection[str] | None = None
) -> list[PricePolicy]:
    """What sidecars are told of prices: the versions that hold now."""
    rows = prices_at(organization_id=organization_id, now=now, models=models)
    return [row.to_policy() for row in rows]


@transaction.atomic
def announce_turned(*, now: datetime) -> int:
    """Bump the policy of organizations with a price that began or ended since the last call."""
    RollupWatermark.objects.bulk_create(
        [RollupWatermark(name=_TURNED, received_at=now, folded_at=now)], ignore_conflicts=True
    )
    watermark = RollupWatermark.objects.select_for_update().get(name=_TURNED)
    since = watermark.received_at
    turned = Q(valid_from__gt=since, valid_from__lte=now) | Q(valid_to__gt=since, valid_to__lte=now)
    owners = set(PriceVersion.objects.filter(turned).values_list("organization_id", flat=True))
    told = Organization.objects.order_by("id")
    if None not in owners:
        told = told.filter(id__in=owners)
    told_ids = list(told.values_list("id", flat=True))
    for organization_id in told_ids:
        bump_policy(organization_id)
    watermark.received_at, watermark.folded_at = max(since, now), now
    watermark.save()
    return len(told_ids)
