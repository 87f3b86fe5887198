"""Prices never overlap, are never edited, and are kept for ever once they have begun."""

from datetime import UTC, datetime
from typing import Any

import pytest

from budgets.models import PriceVersion
from tests.budgets.constraints.attack import refused_by, sql
from tests.budgets.world import World, make_world

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)
MARCH = datetime(2026, 3, 1, tzinfo=UTC)
MAY = datetime(2026, 5, 1, tzinfo=UTC)
FAR = datetime(2999, 1, 1, tzinfo=UTC)

pytestmark = pytest.mark.django_db


def price(**changes: Any) -> PriceVersion:
    values: dict[str, Any] = {
        "provider": "openai",
        "model": "gpt",
        "input_nanos_per_mtok": 2_000_000_000,
        "valid_from": JANUARY,
        "source": "test",
    }
    return PriceVersion.objects.create(**values | changes)


@pytest.mark.parametrize(
    ("valid_from", "valid_to"), [(JANUARY, None), (MARCH, MAY), (MARCH, None), (JANUARY, MARCH)]
)
def test_two_versions_never_overlap(valid_from: datetime, valid_to: datetime | None) -> None:
    price()
    with refused_by("price_one_at_a_time"):
        price(valid_from=valid_from, valid_to=valid_to)


def test_versions_may_abut() -> None:
    price(valid_to=MARCH)
    price(valid_from=MARCH, valid_to=MAY)
    price(valid_from=MAY)


@pytest.mark.parametrize(
    "changes",
    [
        {"kinds": {"input_audio": -1}},
        {"kinds": {"input_audio": "9"}},
        {"kinds": [1]},
        {"variants": {"priority": {"input": -1}}},
        {"variants": {"priority": {"input": "1"}}},
    ],
)
def test_rates_inside_json_are_never_negative(changes: dict[str, Any]) -> None:
    price(kinds={"input_audio": 9}, variants={"flex": {"input": 1, "reasoning": None}})
    with refused_by("price_kinds_not_negative"):
        price(model="other", **changes)


@pytest.mark.parametrize("column", ["provider", "model", "match"])
def test_other_models_have_their_own_time(column: str) -> None:
    price()
    price(**{column: "prefix" if column == "match" else "other"})


def test_an_own_price_stands_beside_the_catalogue(world: World) -> None:
    price()
    price(organization=world.organization, own=True)
    price(organization=make_world("other").organization, own=True)
    with refused_by("price_one_at_a_time"):
        price(organization=world.organization, own=True)


@pytest.mark.parametrize(
    "column",
    [
        "input_nanos_per_mtok",
        "cached_input_nanos_per_mtok",
        "cache_write_nanos_per_mtok",
        "output_nanos_per_mtok",
        "request_nanos",
    ],
)
def test_rates_are_not_negative(column: str) -> None:
    with refused_by("price_rates_not_negative"):
        price(**{column: -1})


def test_own_is_said_of_an_organization(world: World) -> None:
    with refused_by("price_own_has_organization"):
        price(own=True)
    with refused_by("price_own_has_organization"):
        price(organization=world.organization)


def test_a_validity_has_a_length() -> None:
    with refused_by("price_validity_not_empty"):
        price(valid_from=MARCH, valid_to=JANUARY)


def test_a_match_is_exact_or_prefix() -> None:
    with refused_by("price_match_known"):
        price(match="regex")


@pytest.mark.parametrize(
    "change",
    ["input_nanos_per_mtok = 1", "model = 'x'", "tiers = '[1]'", "valid_from = '2025-01-01Z'"],
)
def test_rates_never_change(change: str) -> None:
    row = price()
    with refused_by("price_rates_fixed"):
        sql(f"UPDATE budgets_priceversion SET {change} WHERE id = %s", row.id)
    assert sql("UPDATE budgets_priceversion SET valid_to = %s WHERE id = %s", MAY, row.id) == 1


def test_only_an_announced_price_can_be_withdrawn() -> None:
    begun, announced = price(valid_to=FAR), price(valid_from=FAR)
    with refused_by("price_never_deleted"):
        sql("DELETE FROM budgets_priceversion WHERE id = %s", begun.id)
    assert sql("DELETE FROM budgets_priceversion WHERE id = %s", announced.id) == 1
