"""Keep price versions: set own rates, tell which hold now. `priceimport` takes whole lists.

Rates are never edited. A new version ends the one before it, from now on and never in the past, so
that a charge can always be computed again from the version that it names.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

import msgspec
from django.db import transaction
from django.db.models import Q

from budgets.domain.pricelist import PriceKey, Span
from budgets.domain.pricerules import follow_rules, make_way
from budgets.domain.priceversions import check_price, version_of
from budgets.enums import PriceMatch, PriceRuleKind
from budgets.errors import PriceError
from budgets.models import PriceVersion, RollupWatermark
from controlplane.audit.domain import Actor, record
from controlplane.identity.domain import bump_policy
from controlplane.identity.models import Organization
from enforcement.rules.policy import PricePolicy, PriceTier, Rates

_TURNED = "prices"

NO_VARIANTS: Mapping[str, Rates] = MappingProxyType({})
NO_EVIDENCE: Mapping[str, Any] = MappingProxyType({})


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
    source: str = "own",
    evidence: Mapping[str, Any] = NO_EVIDENCE,
) -> PriceVersion:
    """Set the organization's own rate of a model, as for self-hosted ones. It wins over all others.

    `variants`: whole rates by the service tier that the provider says it served. `evidence`: what
    rates were computed from that were measured, as plain values.

    It holds until the next own version that was already announced, or until further notice.

    Raises:
        PriceError: the rate cannot be meant; `field` tells where.
    """
    start = now if valid_from is None else valid_from
    if start < now:
        raise PriceError("valid_from", "a rate cannot begin in the past: charges are not re-priced")
    span = Span(start, None, rates, tuple(tiers), dict(variants))
    check_price(PriceKey(provider, model, match.value), span)
    organization = Organization.objects.select_for_update(no_key=True).get(id=organization_id)
    key = PriceKey(provider.strip(), model.strip(), match.value)
    start = make_way(organization_id, [key], at=start)
    span = span._replace(start=start)
    overlapping = PriceVersion.objects.filter(
        Q(valid_to=None) | Q(valid_to__gt=start),
        organization=organization,
        rule=None,
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
    version = version_of(key, span._replace(end=end), source=source, source_version="")
    version.organization, version.own = organization, True
    version.evidence = dict(evidence)
    version.save(force_insert=True)
    follow_rules(organization, now=now)
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


# ------------------------------------------------------------------------------ reading


def prices_at(
    *, organization_id: UUID, now: datetime, models: Collection[str] | None = None
) -> list[PriceVersion]:
    """The versions that hold now: own ones first, then the dearest; `models` narrows the catalogue.

    Own rates are always all there, but for those of discounts. The order decides between providers
    where a node names none.
    """
    own = Q(organization_id=organization_id)
    catalogue = Q(organization=None)
    many = own & Q(rule__kind=PriceRuleKind.DISCOUNT)
    rows = PriceVersion.objects.filter(Q(valid_to=None) | Q(valid_to__gt=now), valid_from__lte=now)
    if models is not None:
        catalogue = (catalogue | many) & (
            Q(match=PriceMatch.EXACT, model__in=models)
            | Q(match=PriceMatch.PREFIX, model__in=_prefixes(models))
        )
        own &= Q(rule=None) | ~Q(rule__kind=PriceRuleKind.DISCOUNT)
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
