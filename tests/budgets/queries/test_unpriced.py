"""Models without a price: what was refused, what was free, what the alias of every name priced."""

from datetime import timedelta

import pytest

from budgets.domain.pricerules import set_rule
from budgets.domain.usage import book_usage
from budgets.enums import PriceMatch, PriceRuleKind
from budgets.models import PriceVersion, Refusal
from budgets.queries.unpriced import Unpriced, unpriced_calls, unpriced_models
from tests.budgets.world import ACTOR, NOW, World, call, make_world, ms

pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)


def booked(world: World, model: str, price: str = "", age: timedelta = MINUTE, **more: int) -> None:
    event = call(world, model=model, price_version=price, started_at_ms=ms(NOW - age), **more)
    book_usage(organization_id=world.id, sidecar_id=None, events=[event], now=NOW)


def refused(world: World, model: str, count: int, age: timedelta = MINUTE) -> None:
    Refusal.objects.create(
        organization=world.organization,
        model=model,
        code="unpriced_model",
        count=count,
        at=NOW - age,
    )


def test_what_costs_money_that_nobody_counts_comes_first(world: World) -> None:
    refused(world, "mixtral", 9)
    refused(world, "mystery", 1, age=2 * MINUTE)
    booked(world, "mystery")
    booked(world, "mystery", age=3 * MINUTE)
    assert unpriced_models(world.organization, now=NOW) == [
        Unpriced("mystery", refused=1, free=2, free_tokens=240, at=NOW - MINUTE),
        Unpriced("mixtral", refused=9, at=NOW - MINUTE),
    ]
    assert unpriced_calls(now=NOW) == {"refused": 10, "free": 2}


def test_what_is_older_or_foreign_or_priced_or_made_nothing_is_not_told(world: World) -> None:
    other = make_world("other")
    old = timedelta(days=1, seconds=1)
    gpt = PriceVersion.objects.create(model="gpt", valid_from=NOW - old, source="test")
    booked(world, "old", age=old)
    refused(world, "old", 1, age=old)
    booked(other, "foreign")
    booked(world, "gpt", str(gpt.id))
    booked(world, "empty", input_tokens=0, cached_input_tokens=0, output_tokens=0)
    assert unpriced_models(world.organization, now=NOW) == []
    assert unpriced_calls(now=NOW) == {"refused": 0, "free": 1}


def test_calls_that_every_names_alias_priced_are_told(world: World) -> None:
    PriceVersion.objects.create(
        model="gpt", input_nanos_per_mtok=5, valid_from=NOW - MINUTE, source="test"
    )
    set_rule(
        organization_id=world.id,
        kind=PriceRuleKind.ALIAS,
        match=PriceMatch.PREFIX,
        target_model="gpt",
        actor=ACTOR,
        now=NOW,
    )
    booked(world, "mystery", str(PriceVersion.objects.get(own=True).id))
    assert unpriced_models(world.organization, now=NOW) == [
        Unpriced("mystery", held=1, at=NOW - MINUTE)
    ]
