"""What a call costs at another price is said once more, never rewritten."""

from typing import Any
from uuid import uuid4

import pytest

from budgets.models import Balance, PriceVersion, Rating, Transfer
from controlplane.identity.ids import new_id
from tests.budgets.constraints.attack import refused_by, sql
from tests.budgets.world import NOW, World, make_balance, make_budget


@pytest.fixture
def balance(world: World) -> Balance:
    return make_balance(make_budget(world))


def rating(world: World, **changes: Any) -> Rating:
    version = PriceVersion.objects.create(model=str(uuid4()), valid_from=NOW, source="test")
    values: dict[str, Any] = {
        "organization_id": world.id,
        "usage_event_id": new_id(),
        "started_at": NOW,
        "number": 1,
        "price_version": version,
        "old_charge_nanos": 2,
        "charge_nanos": 1,
        "at": NOW,
        "actor": "Olive",
        "reason": "wrong list",
    }
    return Rating.objects.create(**values | changes)


def moved(balance: Balance, row: Rating, **changes: Any) -> Transfer:
    values: dict[str, Any] = {
        "organization_id": balance.organization_id,
        "balance": balance,
        "usage_event_id": row.usage_event_id,
        "rating": row,
        "kind": "recharge",
        "amount": 1,
        "at": NOW,
        "actor": "Olive",
        "reason": "wrong list",
    }
    return Transfer.objects.create(**values | changes)


def test_never_edited(world: World) -> None:
    row = rating(world)
    with refused_by("rating_append_only"):
        sql("UPDATE budgets_rating SET charge_nanos = 0 WHERE id = %s", row.id)
    with refused_by("rating_append_only"):
        sql("DELETE FROM budgets_rating WHERE id = %s", row.id)


def test_one_of_each_number(world: World) -> None:
    row = rating(world)
    with refused_by("rating_one_number"):
        rating(world, usage_event_id=row.usage_event_id)


@pytest.mark.parametrize("wrong", [{"number": 0}, {"charge_nanos": -1}, {"old_charge_nanos": -1}])
def test_amounts_make_sense(world: World, wrong: dict[str, int]) -> None:
    with refused_by("rating_amounts_not_negative"):
        rating(world, **wrong)


@pytest.mark.parametrize("missing", ["actor", "reason"])
def test_somebody_did_it_for_a_reason(world: World, balance: Balance, missing: str) -> None:
    with refused_by("rating_says_who_and_why"):
        rating(world, **{missing: ""})
    with refused_by("transfer_by_hand_has_reason"):
        moved(balance, rating(world), **{missing: ""}, kind="overrun")


def test_it_moves_a_balance_once(world: World, balance: Balance) -> None:
    row = rating(world)
    moved(balance, row)
    moved(balance, row, kind="overrun")
    with refused_by("transfer_once_for_each_rating"):
        moved(balance, row)


@pytest.mark.parametrize("wrong", [{"usage_event_id": None}, {"kind": "usage"}])
def test_its_transfers_name_the_call(world: World, balance: Balance, wrong: dict[str, Any]) -> None:
    with refused_by("transfer_of_rating_names_its_event"):
        moved(balance, rating(world), **wrong)
