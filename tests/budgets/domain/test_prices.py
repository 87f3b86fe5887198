"""The catalogue follows its source from now on, and never re-prices the past."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from budgets.domain.catalogue import PriceKey, Span
from budgets.domain.prices import (
    ImportDiff,
    announce_turned,
    import_catalogue,
    price_policies,
    set_own_price,
)
from budgets.enums import PriceMatch
from budgets.errors import PriceError
from budgets.models import PriceVersion
from controlplane.audit.models import AuditEntry
from controlplane.identity.models import Organization
from enforcement.rules.money import TokenUsage, charge_nanos
from enforcement.rules.policy import PricePolicy, PriceTier, Rates
from enforcement.rules.windows import EPOCH
from tests.budgets.world import ACTOR, NOW, World

pytestmark = pytest.mark.django_db

CHEAP = Rates(input=1_000, cached_input=100, cache_write=1_250, output=5_000)
DEAR = Rates(input=2_000, cached_input=200, cache_write=2_500, output=9_000)
MODEL = PriceKey("openai", "gpt", "exact")
FAMILY = PriceKey("openai", "gpt-", "prefix")
JUNE = datetime(2026, 6, 1, tzinfo=UTC)
TIERS = (PriceTier(above_input_tokens=200, rates=DEAR),)
CATALOGUE = {
    MODEL: [Span(EPOCH, JUNE, CHEAP, ()), Span(JUNE, None, DEAR, ())],
    FAMILY: [Span(EPOCH, None, CHEAP, TIERS)],
}
LATER = NOW + timedelta(hours=1)


def load(catalogue: dict[PriceKey, list[Span]], now: datetime = NOW, **options: Any) -> ImportDiff:
    return import_catalogue(now=now, catalogue=catalogue, **options)


def rows(key: PriceKey = MODEL) -> list[tuple[datetime, datetime | None, int]]:
    found = PriceVersion.objects.filter(provider=key.provider, model=key.model, match=key.match)
    return [
        (p.valid_from, p.valid_to, p.input_nanos_per_mtok) for p in found.order_by("valid_from")
    ]


def revision(world: World) -> int:
    return Organization.objects.get(id=world.id).policy_revision


# ------------------------------------------------------------------------------ import


def test_a_first_import_brings_the_history(world: World) -> None:
    before = revision(world)
    diff = load(CATALOGUE)
    assert (diff.added, diff.changed, diff.unchanged) == ([MODEL, FAMILY], [], 0)
    assert rows() == [(EPOCH, JUNE, 1_000), (JUNE, None, 2_000)]
    assert PriceVersion.objects.get(model="gpt-").to_policy().tiers == list(TIERS)
    assert revision(world) == before + 1


def test_a_second_import_changes_nothing(world: World) -> None:
    load(CATALOGUE)
    before, ids = revision(world), set(PriceVersion.objects.values_list("id", flat=True))
    diff = load(CATALOGUE, LATER)
    assert (diff.added, diff.changed, diff.unchanged) == ([], [], 2)
    assert set(PriceVersion.objects.values_list("id", flat=True)) == ids
    assert revision(world) == before


def test_a_changed_rate_holds_from_now_on() -> None:
    load(CATALOGUE)
    old = PriceVersion.objects.get(model="gpt-")
    diff = load(CATALOGUE | {FAMILY: [Span(EPOCH, None, DEAR, ())]}, LATER)
    assert (diff.changed, diff.unchanged) == ([FAMILY], 1)
    assert rows(FAMILY) == [(EPOCH, LATER, 1_000), (LATER, None, 2_000)]
    assert PriceVersion.objects.get(id=old.id).input_nanos_per_mtok == 1_000


def test_an_announced_change_can_be_moved() -> None:
    """Far in the future: the database's own clock says whether a rate has begun."""
    first, second = datetime(2999, 6, 1, tzinfo=UTC), datetime(2999, 7, 1, tzinfo=UTC)
    load({MODEL: [Span(EPOCH, first, CHEAP, ()), Span(first, None, DEAR, ())]})
    load({MODEL: [Span(EPOCH, second, CHEAP, ()), Span(second, None, DEAR, ())]}, LATER)
    assert rows() == [(EPOCH, LATER, 1_000), (LATER, second, 1_000), (second, None, 2_000)]


def test_a_dry_run_tells_and_does_nothing() -> None:
    diff = load(CATALOGUE, dry_run=True)
    assert len(diff.added) == 2
    assert PriceVersion.objects.count() == 0


def test_a_model_that_left_the_source_keeps_its_price() -> None:
    load(CATALOGUE)
    diff = load({MODEL: CATALOGUE[MODEL]}, LATER)
    assert (diff.kept, diff.unchanged) == (1, 1)
    assert rows(FAMILY) == [(EPOCH, None, 1_000)]


def test_the_whole_installed_snapshot_loads_twice() -> None:
    first = import_catalogue(now=NOW)
    second = import_catalogue(now=LATER)
    assert (len(second.added), len(second.changed)) == (0, 0)
    assert second.unchanged == len(first.added) > 3_000


# ------------------------------------------------------------------------------ own rates


def own(world: World, rates: Rates = CHEAP, **changes: Any) -> PriceVersion:
    values: dict[str, Any] = {"model": "gemma", "now": NOW, "actor": ACTOR, "rates": rates}
    return set_own_price(organization_id=world.id, **values | changes)


def test_an_own_rate_ends_the_one_before(world: World) -> None:
    first = own(world)
    second = own(world, DEAR, now=LATER)
    first.refresh_from_db()
    assert (first.valid_to, second.valid_from, second.valid_to) == (LATER, LATER, None)
    assert AuditEntry.objects.filter(action="price.set").count() == 2


def test_an_announced_rate_stays_announced(world: World) -> None:
    announced = own(world, DEAR, valid_from=JUNE)
    between = own(world, now=LATER)
    announced.refresh_from_db()
    assert (between.valid_to, announced.valid_from, announced.valid_to) == (JUNE, JUNE, None)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model": " "}, "model"),
        ({"valid_from": NOW - timedelta(seconds=1)}, "valid_from"),
        ({"rates": Rates(input=-1)}, "input"),
        ({"rates": Rates(output=2**63)}, "output"),
        ({"rates": Rates(request=-1)}, "request"),
        ({"tiers": [PriceTier(0, CHEAP)]}, "tiers"),
        ({"tiers": [PriceTier(9, CHEAP), PriceTier(5, CHEAP)]}, "tiers"),
        ({"tiers": [PriceTier(9, CHEAP), PriceTier(9, CHEAP)]}, "tiers"),
        ({"tiers": [PriceTier(9, Rates(cached_input=-3))]}, "cached_input"),
    ],
)
def test_what_cannot_be_meant(world: World, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(PriceError) as caught:
        own(world, **changes)
    assert caught.value.field == field
    assert PriceVersion.objects.count() == 0


def test_two_rates_of_one_instant_are_refused(world: World) -> None:
    own(world)
    with pytest.raises(PriceError, match="begins at that instant"):
        own(world, DEAR)


# ------------------------------------------------------------------------------ reading


def policies(organization_id: UUID, now: datetime, *models: str) -> list[PricePolicy]:
    return price_policies(organization_id=organization_id, now=now, models=models or None)


def test_what_holds_now(world: World) -> None:
    load(CATALOGUE)
    assert {p.rates.input for p in policies(world.id, NOW, "gpt")} == {1_000}
    assert {p.rates.input for p in policies(world.id, JUNE, "gpt")} == {2_000}


def test_models_narrow_the_catalogue_not_the_own_rates(world: World) -> None:
    load(CATALOGUE)
    own(world)
    assert [p.model for p in policies(world.id, NOW, "gpt-mini")] == ["gemma", "gpt-"]
    assert [p.model for p in policies(world.id, NOW, "gpt")] == ["gemma", "gpt"]
    assert [p.model for p in policies(world.id, NOW, "other")] == ["gemma"]
    assert len(policies(world.id, NOW)) == 3


def test_own_rates_are_of_one_organization(world: World) -> None:
    own(world)
    other = Organization.objects.create(slug="other", name="Other", created_at=NOW)
    assert policies(other.id, NOW) == []


def test_a_policy_charges_what_the_version_says(world: World) -> None:
    price = own(world, Rates(input=50_000_000, output=250_000_000), tiers=TIERS)
    policy = policies(world.id, NOW)[0]
    assert policy.id == str(price.id)
    assert policy.own
    assert charge_nanos(TokenUsage(input_tokens=100, output_tokens=20), policy) == 10_000


# ------------------------------------------------------------------------------ turning


def test_a_rate_that_begins_is_announced_once(world: World) -> None:
    load(CATALOGUE)
    announce_turned(now=NOW)
    before = revision(world)
    assert announce_turned(now=LATER) == 0
    assert announce_turned(now=JUNE) == 1
    assert announce_turned(now=JUNE + timedelta(minutes=1)) == 0
    assert revision(world) == before + 1


def test_an_own_rate_is_announced_to_its_organization(world: World) -> None:
    other = Organization.objects.create(slug="other", name="Other", created_at=NOW)
    own(world, valid_from=LATER)
    announce_turned(now=NOW)
    assert announce_turned(now=LATER) == 1
    assert Organization.objects.get(id=other.id).policy_revision == 1


def test_match_is_part_of_what_a_rate_is_for(world: World) -> None:
    own(world)
    prefix = own(world, DEAR, match=PriceMatch.PREFIX)
    assert prefix.valid_to is None
