"""A rule of prices says one thing, of its organization, and is never edited."""

from datetime import UTC, datetime
from typing import Any

import pytest

from budgets.models import PriceRule, PriceVersion
from tests.budgets.constraints.attack import refused_by, sql
from tests.budgets.world import World, make_world

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)
MARCH = datetime(2026, 3, 1, tzinfo=UTC)


def rule(world: World, **changes: Any) -> PriceRule:
    values: dict[str, Any] = {"kind": "alias", "model": "house", "target_model": "gpt"}
    return PriceRule.objects.create(
        organization=world.organization, valid_from=JANUARY, **values | changes
    )


def version(world: World, **changes: Any) -> PriceVersion:
    values: dict[str, Any] = {"organization": world.organization, "own": True, "model": "house"}
    return PriceVersion.objects.create(valid_from=JANUARY, source="test", **values | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "gift"},
        {"target_model": ""},
        {"off_per_mille": 5},
        {"kind": "discount", "off_per_mille": 5},
        {"kind": "discount", "target_model": ""},
        {"kind": "discount", "target_model": "", "off_per_mille": -1},
        {"kind": "discount", "target_model": "", "off_per_mille": 1000},
    ],
)
def test_a_rule_is_an_alias_or_a_discount(world: World, changes: dict[str, Any]) -> None:
    with refused_by("price_rule_says_one_thing"):
        rule(world, **changes)


def test_only_a_prefix_may_be_empty(world: World) -> None:
    rule(world, model="", match="prefix")
    with refused_by("price_rule_of_a_name"):
        rule(world, model="")


def test_a_match_is_exact_or_prefix(world: World) -> None:
    with refused_by("price_rule_match_known"):
        rule(world, match="regex")


def test_a_rule_ends_after_it_begins_or_never_held(world: World) -> None:
    rule(world, valid_to=JANUARY)
    with refused_by("price_rule_validity_in_order"):
        rule(world, valid_to=datetime(2025, 1, 1, tzinfo=UTC))


def test_one_rule_at_a_time(world: World) -> None:
    rule(world, valid_to=MARCH)
    rule(world, kind="discount", target_model="", off_per_mille=1)
    rule(make_world("other"))
    with refused_by("price_rule_one_at_a_time"):
        rule(world)


@pytest.mark.parametrize("change", ["off_per_mille = 9", "model = 'x'", "reason = 'y'"])
def test_a_rule_is_only_ended(world: World, change: str) -> None:
    row = rule(world)
    with refused_by("price_rule_fixed"):
        sql(f"UPDATE budgets_pricerule SET {change} WHERE id = %s", row.id)
    with refused_by("price_rule_never_deleted"):
        sql("DELETE FROM budgets_pricerule WHERE id = %s", row.id)
    assert sql("UPDATE budgets_pricerule SET valid_to = %s WHERE id = %s", MARCH, row.id) == 1


def test_a_price_follows_a_rule_of_its_own_organization(world: World) -> None:
    foreign = rule(make_world("other"))
    basis = version(world, model="gpt")
    with refused_by("price_rule_of_same_organization"):
        version(world, rule=foreign, basis=basis)
        sql("SET CONSTRAINTS ALL IMMEDIATE")


def test_a_price_that_follows_names_both(world: World) -> None:
    ours, basis = rule(world), version(world, model="gpt")
    for half in ({"rule": ours}, {"basis": basis}):
        with refused_by("price_of_rule_names_its_basis"):
            version(world, **half)
    assert version(world, rule=ours, basis=basis).own
