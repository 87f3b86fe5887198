"""An own limit is one, above zero, of a value, in its own organization."""

from typing import Any

import pytest

from budgets.models import Budget, BudgetOverride
from tests.budgets.constraints.attack import refused_by
from tests.budgets.world import NOW, World, make_budget, make_world


@pytest.fixture
def budget(world: World) -> Budget:
    return make_budget(world, per="model")


def override(budget: Budget, **changes: Any) -> BudgetOverride:
    values: dict[str, Any] = {
        "organization_id": budget.organization_id,
        "budget": budget,
        "value": "gemma",
        "limit_amount": 5,
        "created_at": NOW,
    }
    return BudgetOverride.objects.create(**values | changes)


@pytest.mark.parametrize(
    ("changes", "constraint"),
    [
        ({"limit_amount": 0}, "override_limit_positive"),
        ({"value": ""}, "override_of_a_value"),
    ],
)
def test_an_insert_is_refused(budget: Budget, changes: dict[str, Any], constraint: str) -> None:
    with refused_by(constraint):
        override(budget, **changes)


def test_a_value_has_one(budget: Budget) -> None:
    override(budget)
    with refused_by("override_one_for_each_value"):
        override(budget, limit_amount=6)


def test_it_stays_in_its_organization(budget: Budget) -> None:
    other = make_world("other")
    with refused_by("override_budget_of_same_organization"):
        override(budget, organization_id=other.id)
