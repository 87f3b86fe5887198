"""What no balance may become, whoever writes it (I1, L9, I10)."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from budgets.models import Balance
from enforcement.rules.windows import EPOCH
from tests.budgets.constraints.attack import refused_by, sql
from tests.budgets.world import NOW, World, make_balance, make_budget, make_world

LIMIT = 1_000_000_000


@pytest.fixture
def balance(world: World) -> Balance:
    return make_balance(make_budget(world), spent_amount=400_000_000, held_amount=500_000_000)


@pytest.mark.parametrize("column", ["spent", "held", "suspense"])
def test_committed_never_passes_the_cap(balance: Balance, column: str) -> None:
    fits = f"UPDATE budgets_balance SET {column}_amount = {column}_amount + %s WHERE id = %s"
    with refused_by("balance_committed_within_cap"):
        sql(fits, 100_000_001, balance.id)
    assert sql(fits, 100_000_000, balance.id) == 1


def test_overrun_stands_outside_the_cap(balance: Balance) -> None:
    sql("UPDATE budgets_balance SET overrun_amount = %s WHERE id = %s", 9 * LIMIT, balance.id)
    balance.refresh_from_db()
    assert balance.free_amount == LIMIT - 900_000_000 - 9 * LIMIT


@pytest.mark.parametrize("column", ["spent", "held", "suspense"])
def test_no_amount_is_negative(balance: Balance, column: str) -> None:
    with refused_by("balance_amounts_not_negative"):
        sql(f"UPDATE budgets_balance SET {column}_amount = -1 WHERE id = %s", balance.id)


def test_a_soft_balance_may_pass_its_cap(world: World) -> None:
    soft = make_balance(make_budget(world, mode="soft"))
    assert sql("UPDATE budgets_balance SET spent_amount = %s WHERE id = %s", LIMIT + 1, soft.id)


def test_a_cap_rises_only_to_its_limit(balance: Balance) -> None:
    raised = "UPDATE budgets_balance SET cap_amount = %s, limit_amount = %s WHERE id = %s"
    with refused_by("balance_cap_falls_towards_limit"):
        sql(raised, LIMIT + 1, LIMIT, balance.id)
    with refused_by("balance_cap_falls_towards_limit"):
        sql(raised, LIMIT + 2, LIMIT + 1, balance.id)
    assert sql(raised, LIMIT + 1, LIMIT + 1, balance.id) == 1


def test_a_lowered_limit_keeps_the_cap_at_what_is_committed(balance: Balance) -> None:
    lower = "UPDATE budgets_balance SET limit_amount = 1, cap_amount = %s WHERE id = %s"
    with refused_by("balance_committed_within_cap"):
        sql(lower, 899_999_999, balance.id)
    assert sql(lower, 900_000_000, balance.id) == 1
    with refused_by("balance_committed_within_cap"):
        sql("UPDATE budgets_balance SET held_amount = held_amount + 1 WHERE id = %s", balance.id)


def test_a_cap_never_falls_below_its_limit(balance: Balance) -> None:
    with refused_by("balance_cap_covers_limit"):
        sql("UPDATE budgets_balance SET cap_amount = %s WHERE id = %s", LIMIT - 1, balance.id)


def test_a_limit_is_above_zero(balance: Balance) -> None:
    with refused_by("balance_limit_positive"):
        sql("UPDATE budgets_balance SET limit_amount = 0 WHERE id = %s", balance.id)


def test_overrun_is_never_taken_back(balance: Balance) -> None:
    sql("UPDATE budgets_balance SET overrun_amount = 5 WHERE id = %s", balance.id)
    with refused_by("balance_overrun_never_falls"):
        sql("UPDATE budgets_balance SET overrun_amount = 4 WHERE id = %s", balance.id)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("id", uuid4()),
        ("organization_id", uuid4()),
        ("budget_id", uuid4()),
        ("value", "other"),
        ("window_start", NOW),
        ("window_end", NOW),
        ("ring_bucket_ms", 60_000),
    ],
)
def test_a_balance_keeps_its_place(balance: Balance, column: str, value: object) -> None:
    with refused_by("balance_place_fixed"):
        sql(f"UPDATE budgets_balance SET {column} = %s WHERE id = %s", value, balance.id)


def test_one_balance_for_each_value_and_window(balance: Balance) -> None:
    with refused_by("balance_one_for_each_window"):
        make_balance(balance.budget)
    make_balance(balance.budget, value="another")


def test_a_window_has_a_length(balance: Balance) -> None:
    with refused_by("balance_window_not_empty"):
        make_balance(balance.budget, window_start=NOW, window_end=NOW)
    make_balance(balance.budget, window_start=NOW, window_end=NOW + timedelta(minutes=1))


def test_a_balance_belongs_to_the_organization_of_its_budget(world: World) -> None:
    budget, other = make_budget(world), make_world("other")
    with refused_by("balance_budget_of_same_organization"):
        make_balance(budget, organization_id=other.id)
        sql("SET CONSTRAINTS ALL IMMEDIATE")


def test_turning_hard_takes_what_is_committed_as_cap(world: World) -> None:
    soft = make_balance(make_budget(world, mode="soft"), spent_amount=3 * LIMIT)
    harden = "UPDATE budgets_balance SET hard = true, cap_amount = %s WHERE id = %s"
    with refused_by("balance_committed_within_cap"):
        sql(harden, LIMIT, soft.id)
    assert sql(harden, 3 * LIMIT, soft.id) == 1
    assert Balance.objects.get(id=soft.id).window_start == EPOCH


def test_permits_are_never_spent(world: World) -> None:
    permits = make_balance(make_budget(world, unit="concurrency", limit_amount=5), lends=True)
    with refused_by("balance_permits_never_spent"):
        sql("UPDATE budgets_balance SET spent_amount = 1 WHERE id = %s", permits.id)


@pytest.fixture
def ring(world: World) -> Balance:
    rolling = make_budget(world, window_kind="rolling", rolling_s=120, rolling_parts=2)
    counts: dict[str, Any] = {"ring_spent": [1, 2, 3], "ring_overrun": [0, 0, 4]}
    return make_balance(
        rolling, spent_amount=6, overrun_amount=4, ring_bucket_ms=60_000, ring_newest=9, **counts
    )


@pytest.mark.parametrize(
    "change",
    [
        "spent_amount = 7",
        "overrun_amount = 3",
        "ring_spent = '{1,2,4}'",
        "ring_spent = '{-1,4,3}'",
        "ring_spent = '{6}'",
        "ring_overrun = '{4,0}'",
    ],
)
def test_a_ring_adds_up_to_what_is_spent(ring: Balance, change: str) -> None:
    with refused_by("balance_ring_adds_up"):
        sql(f"UPDATE budgets_balance SET {change} WHERE id = %s", ring.id)


@pytest.mark.parametrize("column", ["ring_newest", "ring_spent", "ring_overrun"])
def test_a_ring_is_whole(ring: Balance, column: str) -> None:
    with refused_by("balance_ring_complete"):
        sql(f"UPDATE budgets_balance SET {column} = NULL WHERE id = %s", ring.id)


def test_use_and_overrun_leave_a_ring_together_with_its_counters(ring: Balance) -> None:
    turned = """UPDATE budgets_balance SET spent_amount = 5, overrun_amount = 0, ring_newest = 12,
        ring_spent = '{5,0,0}', ring_overrun = '{0,0,0}' WHERE id = %s"""
    assert sql(turned, ring.id) == 1


def test_what_was_carried_is_part_of_the_limit(balance: Balance) -> None:
    with refused_by("balance_carried_within_limit"):
        sql("UPDATE budgets_balance SET carried_amount = limit_amount WHERE id = %s", balance.id)


def test_what_is_closed_stays_closed_and_holds_no_more(balance: Balance) -> None:
    sql("UPDATE budgets_balance SET closed_at = now() WHERE id = %s", balance.id)
    with refused_by("balance_closed_stays_closed"):
        sql("UPDATE budgets_balance SET closed_at = NULL WHERE id = %s", balance.id)
    with refused_by("balance_closed_stays_closed"):
        sql("UPDATE budgets_balance SET held_amount = held_amount + 1 WHERE id = %s", balance.id)
    assert sql("UPDATE budgets_balance SET held_amount = 0 WHERE id = %s", balance.id) == 1


def test_what_was_given_away_is_committed(balance: Balance) -> None:
    given = "UPDATE budgets_balance SET given_amount = %s WHERE id = %s"
    assert sql(given, 100_000_000, balance.id) == 1
    with refused_by("balance_committed_within_cap"):
        sql(given, 100_000_001, balance.id)
