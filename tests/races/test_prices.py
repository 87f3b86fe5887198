"""Rules, own rates and imports at once leave one price at a time, and what the last state says."""

from datetime import timedelta
from functools import partial

from budgets.domain.priceimport import import_catalogue
from budgets.domain.pricelist import Catalogue, PriceKey, Span
from budgets.domain.pricerules import follow_rules, set_rule
from budgets.domain.prices import price_policies, set_own_price
from budgets.enums import PriceMatch, PriceRuleKind
from budgets.models import PriceRule, PriceVersion
from enforcement.rules.estimate import price_for
from enforcement.rules.policy import Rates
from enforcement.rules.windows import EPOCH
from tests.budgets.world import ACTOR, NOW, World
from tests.races.crowd import at_once

MODELS = 6
SECOND = timedelta(seconds=1)
AFTER = NOW + timedelta(minutes=5)


def catalogue(nanos: int) -> Catalogue:
    return {
        PriceKey("p", f"m{n}", "exact"): [Span(EPOCH, None, Rates(nanos, nanos, nanos, nanos))]
        for n in range(MODELS)
    }


def paid(world: World, model: str) -> int:
    policies = price_policies(organization_id=world.id, now=AFTER, models={model})
    found = price_for(policies, model=model, provider="p")
    assert found is not None
    return found.rates.input


def test_rules_and_prices_at_once(world: World) -> None:
    import_catalogue(now=NOW - SECOND, catalogue=catalogue(1_000))
    who = {"organization_id": world.id, "actor": ACTOR}
    off = partial(set_rule, **who, kind=PriceRuleKind.DISCOUNT, provider="p")
    alias = partial(set_rule, **who, kind=PriceRuleKind.ALIAS, target_model="m0")
    at_once(
        [
            partial(off, match=PriceMatch.PREFIX, off_per_mille=100, now=NOW + 5 * SECOND),
            partial(off, model="m1", off_per_mille=500, now=NOW),
            partial(off, model="m2", off_per_mille=200, now=NOW + 4 * SECOND),
            partial(alias, model="house", now=NOW + 2 * SECOND),
            partial(alias, match=PriceMatch.PREFIX, now=NOW + SECOND),
            partial(import_catalogue, now=NOW + 3 * SECOND, catalogue=catalogue(2_000)),
            partial(
                set_own_price, **who, provider="p", model="m3", rates=Rates(7), now=NOW + SECOND
            ),
        ]
    )
    names = ("m0", "m1", "m2", "m3", "m4", "house", "unheard-of")
    assert [paid(world, name) for name in names] == [1_800, 1_000, 1_600, 7, 1_800, 1_800, 1_800]
    assert PriceRule.objects.count() == 5
    before = set(PriceVersion.objects.values_list("id", flat=True))
    follow_rules(world.organization, now=AFTER)
    assert set(PriceVersion.objects.values_list("id", flat=True)) == before
