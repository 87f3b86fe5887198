"""Own rates win, follow each other, and are told when they begin."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from budgets.domain.prices import announce_turned, price_policies, set_own_price
from budgets.enums import PriceMatch
from budgets.errors import PriceError
from budgets.models import PriceVersion
from controlplane.audit.models import AuditEntry
from controlplane.identity.models import Organization
from enforcement.rules.money import TokenUsage, charge_nanos
from enforcement.rules.policy import PricePolicy, PriceTier, Rates
from tests.budgets.domain.test_priceimport import CATALOGUE, CHEAP, DEAR, JUNE, TIERS, load
from tests.budgets.world import ACTOR, NOW, World

pytestmark = pytest.mark.django_db

LATER = NOW + timedelta(hours=1)


def revision(world: World) -> int:
    return Organization.objects.get(id=world.id).policy_revision


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
