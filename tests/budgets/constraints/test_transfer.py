"""The journal is only ever appended to, and every row of it makes sense."""

from typing import Any
from uuid import uuid4

import pytest

from budgets.enums import TRANSFER_KINDS
from budgets.models import Balance, LedgerIncarnation, Transfer
from tests.budgets.constraints.attack import refused_by, sql
from tests.budgets.world import NOW, World, make_balance, make_budget, make_lease, make_world

WITH_LEASE = {
    "grant",
    "settle",
    "release",
    "expire",
    "late_settle",
    "late_release",
    "write_off",
}


@pytest.fixture
def balance(world: World) -> Balance:
    return make_balance(make_budget(world))


def transfer(balance: Balance, **changes: Any) -> Transfer:
    values: dict[str, Any] = {
        "organization_id": balance.organization_id,
        "balance": balance,
        "kind": "usage",
        "amount": 1,
        "at": NOW,
    }
    return Transfer.objects.create(**values | changes)


def test_never_edited(balance: Balance) -> None:
    row = transfer(balance)
    with refused_by("transfer_append_only"):
        sql("UPDATE budgets_transfer SET amount = 2 WHERE id = %s", row.id)
    with refused_by("transfer_append_only"):
        sql("DELETE FROM budgets_transfer WHERE id = %s", row.id)
    assert list(Transfer.objects.values_list("amount", flat=True)) == [1]


@pytest.mark.parametrize("amount", [0, -1])
def test_moves_something(balance: Balance, amount: int) -> None:
    with refused_by("transfer_amount_positive"):
        transfer(balance, amount=amount)


def test_of_a_known_kind(balance: Balance) -> None:
    with refused_by("transfer_kind_known"):
        transfer(balance, kind="gift", lease=make_lease(balance, amount=1))


@pytest.mark.parametrize("kind", sorted(TRANSFER_KINDS))
def test_what_moves_a_lease_names_it(balance: Balance, kind: str) -> None:
    by_hand = {"actor": "Olive", "reason": "why not"}
    if kind in WITH_LEASE:
        with refused_by("transfer_of_lease_names_it"):
            transfer(balance, kind=kind, **by_hand)
    else:
        transfer(balance, kind=kind, **by_hand)


@pytest.mark.parametrize("kind", ["correction", "recharge", "limit"])
@pytest.mark.parametrize("missing", ["actor", "reason"])
def test_what_a_person_did_says_who_and_why(balance: Balance, kind: str, missing: str) -> None:
    words = {"actor": "Olive", "reason": "lowered"} | {missing: ""}
    with refused_by("transfer_by_hand_has_reason"):
        transfer(balance, kind=kind, **words)


def test_an_event_charges_a_balance_once(balance: Balance) -> None:
    event = uuid4()
    transfer(balance, usage_event_id=event)
    transfer(balance, usage_event_id=event, kind="overrun")
    with refused_by("transfer_once_for_each_event"):
        transfer(balance, usage_event_id=event)


def test_belongs_to_the_organization_of_its_balance(balance: Balance) -> None:
    with refused_by("transfer_balance_of_same_organization"):
        transfer(balance, organization_id=make_world("other").id)
        sql("SET CONSTRAINTS ALL IMMEDIATE")


def test_names_a_lease_of_its_own_balance(world: World, balance: Balance) -> None:
    elsewhere = make_balance(make_budget(world, name="another"))
    foreign = make_lease(elsewhere, amount=1)
    with refused_by("transfer_lease_of_same_balance"):
        transfer(balance, kind="settle", lease=foreign)
        sql("SET CONSTRAINTS ALL IMMEDIATE")


def test_one_incarnation_is_current(db: None) -> None:
    LedgerIncarnation.objects.create(started_at=NOW)
    with refused_by("incarnation_one_current"):
        LedgerIncarnation.objects.create(started_at=NOW)
