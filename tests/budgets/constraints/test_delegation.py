"""What no delegation may be."""

from typing import Any
from uuid import uuid4

import pytest

from budgets.models import Balance, Delegation
from tests.budgets.constraints.attack import refused_by, sql
from tests.budgets.world import NOW, World, make_balance, make_budget, make_world


@pytest.fixture
def parent(world: World) -> Balance:
    return make_balance(make_budget(world), value="s1")


@pytest.fixture
def child(parent: Balance) -> Balance:
    return make_balance(parent.budget, value="c1")


def give(parent: Balance, child: Balance, **changes: Any) -> Delegation:
    values: dict[str, Any] = {
        "handle": uuid4(),
        "organization_id": parent.organization_id,
        "budget_id": parent.budget_id,
        "parent": parent,
        "child": child,
        "parent_agent": uuid4(),
        "child_agent": uuid4(),
        "depth": 1,
        "amount": 10,
        "created_at": NOW,
        "expires_at": NOW,
    }
    return Delegation.objects.create(**values | changes)


@pytest.mark.parametrize(
    ("changes", "constraint"),
    [
        ({"amount": 0}, "delegation_amount_positive"),
        ({"depth": 0}, "delegation_depth_bounded"),
        ({"depth": 9}, "delegation_depth_bounded"),
        ({"home_amount": 11}, "delegation_parts_within_amount"),
        ({"home_amount": -1}, "delegation_parts_within_amount"),
        ({"spent_amount": 11}, "delegation_parts_within_amount"),
        ({"state": "closed"}, "delegation_closed_accounts_for_all"),
        ({"state": "closed", "closed_at": NOW}, "delegation_closed_accounts_for_all"),
        ({"closed_at": NOW}, "delegation_closed_accounts_for_all"),
        ({"state": "lost"}, "delegation_closed_accounts_for_all"),
    ],
)
def test_it_is_refused(
    parent: Balance, child: Balance, changes: dict[str, Any], constraint: str
) -> None:
    with refused_by(constraint):
        give(parent, child, **changes)


def test_a_child_has_one_parent_and_is_not_its_own(parent: Balance, child: Balance) -> None:
    give(parent, child)
    with refused_by("delegation_one_parent"):
        give(parent, child)
    with refused_by("delegation_not_to_itself"):
        give(parent, parent)


def test_it_stays_in_its_organization(parent: Balance, child: Balance) -> None:
    other = make_balance(make_budget(make_world("stranger")))
    here = {"organization_id": parent.organization_id, "budget_id": parent.budget_id}
    with refused_by("delegation_budget_of_same_organization"):
        give(parent, child, budget_id=other.budget_id)
    with refused_by("delegation_parent_of_same_organization"):
        give(other, child, **here)
    with refused_by("delegation_child_of_same_organization"):
        give(parent, other, **here)


def test_a_limit_of_nothing_belongs_to_what_is_closed(child: Balance) -> None:
    with refused_by("balance_limit_positive"):
        sql("UPDATE budgets_balance SET limit_amount = 0 WHERE id = %s", child.id)
    closed = "UPDATE budgets_balance SET limit_amount = 0, closed_at = now() WHERE id = %s"
    assert sql(closed, child.id) == 1
