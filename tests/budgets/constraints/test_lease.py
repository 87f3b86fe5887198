"""What no lease may become (I7, I9, L5)."""

from itertools import product
from uuid import uuid4

import pytest

from budgets.enums import LEASE_STATES
from budgets.models import Balance, Lease
from tests.budgets.constraints.attack import refused_by, sql
from tests.budgets.world import NOW, World, make_balance, make_budget, make_lease, make_world

EDGES = {
    ("granted", "recalled"),
    ("granted", "suspended"),
    ("granted", "settled"),
    ("recalled", "suspended"),
    ("recalled", "settled"),
    ("suspended", "settled"),
    ("suspended", "written_off"),
}
TERMINAL = {"settled", "written_off"}


@pytest.fixture
def balance(world: World) -> Balance:
    return make_balance(make_budget(world))


@pytest.fixture
def lease(balance: Balance) -> Lease:
    return make_lease(balance, amount=100, used_amount=30, returned_amount=20, overrun_amount=5)


@pytest.mark.parametrize(("was", "becomes"), sorted(product(LEASE_STATES, LEASE_STATES)))
def test_only_the_edges_of_the_table(balance: Balance, was: str, becomes: str) -> None:
    closed = {"used_amount": 100, "closed_at": NOW} if was in TERMINAL else {}
    lease = make_lease(balance, amount=100, state=was, **closed)
    move = "UPDATE budgets_lease SET state = %s, used_amount = 100, closed_at = %s WHERE id = %s"
    if was in TERMINAL:
        with refused_by("lease_terminal_is_final"):
            sql(move, becomes, NOW, lease.id)
    elif was == becomes or (was, becomes) in EDGES:
        assert sql(move, becomes, NOW, lease.id) == 1
    else:
        with refused_by("lease_edge_unknown"):
            sql(move, becomes, NOW, lease.id)


def test_no_other_state(lease: Lease) -> None:
    with refused_by("lease_edge_unknown"):
        sql("UPDATE budgets_lease SET state = 'lost' WHERE id = %s", lease.id)


def test_no_other_state_at_birth(balance: Balance) -> None:
    with refused_by("lease_state_known"):
        make_lease(balance, amount=1, state="lost")


@pytest.mark.parametrize("column", ["used", "returned", "overrun"])
def test_watermarks_never_fall(lease: Lease, column: str) -> None:
    with refused_by("lease_watermarks_never_fall"):
        sql(
            f"UPDATE budgets_lease SET {column}_amount = {column}_amount - 1 WHERE id = %s",
            lease.id,
        )
    sql(f"UPDATE budgets_lease SET {column}_amount = {column}_amount + 1 WHERE id = %s", lease.id)


def test_open_is_a_gauge(lease: Lease) -> None:
    for amount in (50, 0):
        sql("UPDATE budgets_lease SET open_amount = %s WHERE id = %s", amount, lease.id)
    with refused_by("lease_amounts_not_negative"):
        sql("UPDATE budgets_lease SET open_amount = -1 WHERE id = %s", lease.id)


@pytest.mark.parametrize("column", ["used", "returned"])
def test_watermarks_stay_within_the_amount(lease: Lease, column: str) -> None:
    add = f"UPDATE budgets_lease SET {column}_amount = {column}_amount + %s WHERE id = %s"
    with refused_by("lease_watermarks_within_amount"):
        sql(add, 51, lease.id)
    assert sql(add, 50, lease.id) == 1


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("id", uuid4()),
        ("organization_id", uuid4()),
        ("balance_id", uuid4()),
        ("spool", uuid4()),
        ("group_key", uuid4()),
        ("amount", 1_000),
        ("granted_at", "2020-01-01T00:00:00Z"),
    ],
)
def test_a_lease_keeps_what_it_is(lease: Lease, column: str, value: object) -> None:
    with refused_by("lease_identity_fixed"):
        sql(f"UPDATE budgets_lease SET {column} = %s WHERE id = %s", value, lease.id)


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_a_closed_lease_has_accounted_for_everything(balance: Balance, state: str) -> None:
    lease = make_lease(balance, amount=100, state="suspended")
    close = "UPDATE budgets_lease SET state = %s, used_amount = %s, closed_at = %s WHERE id = %s"
    with refused_by("lease_closed_is_accounted_for"):
        sql(close, state, 99, NOW, lease.id)
    with refused_by("lease_closed_is_accounted_for"):
        sql(close, state, 100, None, lease.id)
    assert sql(close, state, 100, NOW, lease.id) == 1


def test_a_closed_lease_is_never_touched_again(balance: Balance) -> None:
    lease = make_lease(balance, amount=7, state="settled", used_amount=7, closed_at=NOW)
    with refused_by("lease_terminal_is_final"):
        sql("UPDATE budgets_lease SET overrun_amount = 1 WHERE id = %s", lease.id)


def test_a_lease_is_never_deleted(lease: Lease) -> None:
    with refused_by("lease_never_deleted"):
        sql("DELETE FROM budgets_lease WHERE id = %s", lease.id)


@pytest.mark.parametrize("amount", [0, -1])
def test_a_lease_has_an_amount(balance: Balance, amount: int) -> None:
    with refused_by("lease_amount_positive"):
        make_lease(balance, amount=amount)


def test_an_ask_is_leased_once(balance: Balance) -> None:
    spool, key = uuid4(), uuid4()
    make_lease(balance, amount=1, spool=spool, group_key=key)
    with refused_by("lease_once_for_each_ask"):
        make_lease(balance, amount=1, spool=spool, group_key=key)
    make_lease(balance, amount=1, spool=uuid4(), group_key=key)


def test_a_lease_belongs_to_the_organization_of_its_balance(balance: Balance) -> None:
    other = make_world("other")
    with refused_by("lease_balance_of_same_organization"):
        make_lease(balance, amount=1, organization_id=other.id)
        sql("SET CONSTRAINTS ALL IMMEDIATE")
