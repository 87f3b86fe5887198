"""Aliases and discounts are rates of their own that follow what they were taken from."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from budgets.domain.priceimport import import_prices
from budgets.domain.pricelist import Catalogue, PriceKey, PriceList, Span
from budgets.domain.pricerules import MOST_FOLLOWERS, end_rule, follow_rules, set_rule
from budgets.domain.prices import price_policies, set_own_price
from budgets.enums import PriceMatch, PriceRuleKind
from budgets.errors import PriceError, PriceRuleNotFoundError
from budgets.models import PriceRule, PriceVersion
from controlplane.audit.models import AuditEntry
from enforcement.rules.estimate import price_for
from enforcement.rules.policy import PriceTier, Rates
from enforcement.rules.windows import EPOCH
from tests.budgets.domain.test_priceimport import load
from tests.budgets.world import ACTOR, NOW, World, make_world

pytestmark = pytest.mark.django_db

LATER = NOW + timedelta(hours=1)
LAST = NOW + timedelta(hours=2)
JUNE = datetime(2999, 6, 1, tzinfo=UTC)
GPT = PriceKey("openai", "gpt", "exact")
MINI = PriceKey("openai", "gpt-mini", "exact")
FAMILY = PriceKey("openai", "gpt-", "prefix")
OTHER = PriceKey("azure", "gpt", "exact")


def span(nanos: int, start: datetime = EPOCH, end: datetime | None = None) -> Span:
    return Span(start, end, Rates(nanos, nanos, nanos, 2 * nanos))


CATALOGUE: Catalogue = {
    GPT: [span(1_001)],
    MINI: [span(100)],
    FAMILY: [span(500)],
    OTHER: [span(900)],
}


@pytest.fixture(autouse=True)
def catalogue(world: World) -> None:
    load(CATALOGUE)


def discount(world: World, **changes: Any) -> PriceRule:
    values: dict[str, Any] = {"provider": "openai", "match": PriceMatch.PREFIX}
    values |= {"off_per_mille": 100, "now": NOW, "actor": ACTOR, "kind": PriceRuleKind.DISCOUNT}
    return set_rule(organization_id=world.id, **values | changes)


def alias(world: World, **changes: Any) -> PriceRule:
    values: dict[str, Any] = {"model": "house", "target_model": "gpt", "target_provider": "openai"}
    values |= {"now": NOW, "actor": ACTOR, "kind": PriceRuleKind.ALIAS}
    return set_rule(organization_id=world.id, **values | changes)


def bring(prices: Catalogue, now: datetime) -> None:
    wanted = PriceList(source="file", version="", prices=prices)
    import_prices(wanted, organization_id=None, actor=ACTOR, now=now)


def paid(world: World, model: str, now: datetime, provider: str = "openai") -> int | None:
    """The input rate that a call pays, as sidecars find it."""
    policies = price_policies(organization_id=world.id, now=now, models={model})
    found = price_for(policies, model=model, provider=provider)
    return found.rates.input if found else None


# ------------------------------------------------------------------------------ discounts


def test_a_discount_is_rounded_up_and_names_what_it_came_from(world: World) -> None:
    rule = discount(world, model="gpt", match=PriceMatch.EXACT)
    (version,) = PriceVersion.objects.filter(rule=rule)
    assert (version.provider, version.model, version.own) == ("openai", "gpt", True)
    assert (version.input_nanos_per_mtok, version.output_nanos_per_mtok) == (901, 1_802)
    assert version.basis == PriceVersion.objects.get(provider="openai", model="gpt", own=False)
    assert (str(rule), AuditEntry.objects.get(action="price.rule.set").after["rule"]) == (
        "openai:gpt 10 % off",
        "openai:gpt 10 % off",
    )


def test_a_discount_is_of_every_name_that_fits(world: World) -> None:
    discount(world)
    assert [paid(world, model, NOW) for model in ("gpt", "gpt-mini", "gpt-new")] == [901, 90, 450]
    assert paid(world, "gpt", NOW, provider="azure") == 900


def test_every_rate_costs_less(world: World) -> None:
    rates = Rates(1_000, 100, 10, 2_000, 50, cache_write_long=20, reasoning=0)
    tiers = (PriceTier(200, rates, {"batch": rates}),)
    bring({PriceKey("p", "m", "exact"): [Span(EPOCH, None, rates, tiers, {"flex": rates})]}, NOW)
    rule = discount(world, provider="p", off_per_mille=505)
    policy = PriceVersion.objects.get(rule=rule).to_policy()
    less = Rates(495, 50, 5, 990, 25, cache_write_long=10, reasoning=0)
    assert (policy.rates, policy.variants) == (less, {"flex": less})
    assert policy.tiers == [PriceTier(200, less, {"batch": less})]


def test_the_most_exact_discount_holds(world: World) -> None:
    discount(world, off_per_mille=100)
    discount(world, model="gpt-mini", match=PriceMatch.EXACT, off_per_mille=500, now=LATER)
    discount(world, provider="", off_per_mille=900, now=LAST)
    assert (paid(world, "gpt-mini", LAST), paid(world, "gpt", LAST)) == (50, 901)
    assert paid(world, "gpt", LAST, provider="azure") == 90


def test_a_discount_holds_in_its_time(world: World) -> None:
    discount(world, valid_from=LATER, valid_to=LAST)
    assert [paid(world, "gpt", at) for at in (NOW, LATER, LAST)] == [1_001, 901, 1_001]


def test_a_special_discount_ends_and_the_common_one_is_there_again(world: World) -> None:
    discount(world)
    special = {"model": "gpt", "match": PriceMatch.EXACT, "off_per_mille": 500}
    discount(world, **special, now=LATER, valid_to=LAST)
    assert [paid(world, "gpt", at) for at in (NOW, LATER, LAST)] == [901, 501, 901]


def test_a_new_price_is_discounted_as_well(world: World) -> None:
    discount(world)
    bring({GPT: [span(2_000)], PriceKey("openai", "new", "exact"): [span(10)]}, LATER)
    assert [paid(world, "gpt", at) for at in (NOW, LATER)] == [901, 1_800]
    assert paid(world, "new", LATER) == 9


def test_the_next_start_discounts_what_the_snapshot_brings(world: World) -> None:
    discount(world)
    load(CATALOGUE | {GPT: [span(2_000)]}, LATER)
    assert paid(world, "gpt", LATER) == 1_800


def test_an_announced_price_is_discounted_when_it_begins(world: World) -> None:
    bring({GPT: [span(2_000, JUNE)]}, NOW)
    discount(world, now=LATER)
    assert [paid(world, "gpt", at) for at in (LATER, JUNE)] == [901, 1_800]


def test_an_own_rate_wins_over_a_discount_while_it_holds(world: World) -> None:
    discount(world)
    own = {"organization_id": world.id, "actor": ACTOR, "provider": "openai", "model": "gpt"}
    set_own_price(**own, rates=Rates(7), now=LATER)
    assert [paid(world, "gpt", at) for at in (NOW, LATER, LAST)] == [901, 7, 7]
    assert paid(world, "gpt-mini", LAST) == 90


def test_an_own_rate_that_is_announced_ends_the_discount_then(world: World) -> None:
    own = {"organization_id": world.id, "actor": ACTOR, "provider": "openai", "model": "gpt"}
    set_own_price(**own, rates=Rates(7), valid_from=LAST, now=NOW)
    discount(world)
    set_own_price(**own, rates=Rates(8), valid_from=LATER, now=NOW + timedelta(minutes=1))
    assert [paid(world, "gpt", at) for at in (NOW, LATER, LAST)] == [901, 8, 7]


def test_discounts_are_of_one_organization(world: World) -> None:
    other = make_world("other")
    discount(world)
    assert (paid(world, "gpt", NOW), paid(other, "gpt", NOW)) == (901, 1_001)


def test_an_ended_discount_leaves_the_catalogue(world: World) -> None:
    rule = discount(world)
    end_rule(organization_id=world.id, rule_id=rule.id, actor=ACTOR, now=LATER)
    assert [paid(world, "gpt", at) for at in (NOW, LATER)] == [901, 1_001]
    with pytest.raises(PriceRuleNotFoundError):
        end_rule(organization_id=world.id, rule_id=rule.id, actor=ACTOR, now=LAST)
    with pytest.raises(PriceRuleNotFoundError):
        end_rule(organization_id=make_world("b").id, rule_id=rule.id, actor=ACTOR, now=NOW)


def test_a_second_discount_of_a_name_ends_the_first(world: World) -> None:
    first = discount(world)
    discount(world, off_per_mille=200, now=LATER)
    first.refresh_from_db()
    assert first.valid_to == LATER
    assert [paid(world, "gpt", at) for at in (NOW, LATER)] == [901, 801]


def test_following_again_writes_nothing(world: World) -> None:
    discount(world)
    alias(world)
    before = set(PriceVersion.objects.values_list("id", flat=True))
    follow_rules(world.organization, now=LATER)
    assert set(PriceVersion.objects.values_list("id", flat=True)) == before
    assert not PriceVersion.objects.filter(rule__isnull=False, valid_to__isnull=False).exists()


# ------------------------------------------------------------------------------ aliases


def test_an_alias_costs_what_its_model_costs(world: World) -> None:
    rule = alias(world)
    assert [paid(world, "house", NOW, provider=p) for p in ("", "vllm")] == [1_001, 1_001]
    version = PriceVersion.objects.get(rule=rule)
    assert version.basis == PriceVersion.objects.get(provider="openai", model="gpt")
    assert str(rule) == "house like openai:gpt"


def test_an_alias_follows_its_model_discounts_and_own_rates_included(world: World) -> None:
    alias(world)
    bring({GPT: [span(2_000)]}, LATER)
    discount(world, now=LATER + timedelta(minutes=1))
    own = {"organization_id": world.id, "actor": ACTOR, "provider": "openai", "model": "gpt"}
    set_own_price(**own, rates=Rates(7), now=LAST)
    moments = (NOW, LATER, LATER + timedelta(minutes=1), LAST)
    assert [paid(world, "house", at) for at in moments] == [1_001, 2_000, 1_800, 7]


def test_an_alias_may_be_like_a_family(world: World) -> None:
    alias(world, model="house-", match=PriceMatch.PREFIX, target_model="gpt-2027")
    assert paid(world, "house-large", NOW) == 500


def test_every_model_without_a_price_may_cost_like_one(world: World) -> None:
    assert paid(world, "mystery", NOW) is None
    rule = alias(world, model="", match=PriceMatch.PREFIX)
    assert paid(world, "mystery", NOW, provider="vllm") == 1_001
    assert [paid(world, model, NOW) for model in ("gpt-mini", "gpt-new")] == [100, 500]
    assert str(rule) == "* like openai:gpt"
    end_rule(organization_id=world.id, rule_id=rule.id, actor=ACTOR, now=LATER)
    assert paid(world, "mystery", LATER) is None


def test_an_alias_is_no_target(world: World) -> None:
    alias(world)
    with pytest.raises(PriceError, match="no price is known"):
        alias(world, model="second", target_model="house", target_provider="")
    assert PriceRule.objects.count() == 1


# ------------------------------------------------------------------------------ bad wishes


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"off_per_mille": 0}, "percent"),
        ({"off_per_mille": 1_000}, "percent"),
        ({"off_per_mille": -5}, "percent"),
        ({"match": PriceMatch.EXACT}, "model"),
        ({"model": "nothing-like-it"}, "model"),
        ({"model": "x" * 201}, "model"),
        ({"model": "a\x00b"}, "model"),
        ({"provider": "p" * 65}, "provider"),
        ({"valid_from": NOW - timedelta(seconds=1)}, "valid_from"),
        ({"valid_to": NOW}, "valid_to"),
        ({"kind": PriceRuleKind.ALIAS, "off_per_mille": 0}, "target_model"),
    ],
)
def test_a_rule_that_cannot_be_meant(world: World, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(PriceError) as caught:
        discount(world, **changes)
    assert caught.value.field == field
    assert not PriceRule.objects.exists()


def test_rules_do_not_flood_the_sidecars(world: World) -> None:
    many = {PriceKey("big", f"m{n}", "exact"): [span(5)] for n in range(MOST_FOLLOWERS + 1)}
    bring(many, NOW)
    with pytest.raises(PriceError, match="more than 1000 rates"):
        discount(world, provider="big")
    assert not PriceVersion.objects.filter(own=True).exists()
    discount(world, provider="big", model="m1")
