"""What a planned change may never be."""

from datetime import timedelta
from typing import Any

import pytest

from budgets.models import Budget, BudgetChange
from tests.budgets.constraints.attack import refused_by, sql
from tests.budgets.world import NOW, World, make_budget, make_world


@pytest.fixture
def budget(world: World) -> Budget:
    return make_budget(world)


@pytest.mark.parametrize(
    ("changes", "constraint"),
    [
        ({"amount": 0}, "change_amount_positive"),
        ({"ends_at": None}, "change_increase_ends"),
        ({"ends_at": NOW}, "change_increase_ends"),
        ({"kind": "limit"}, "change_increase_ends"),
        ({"kind": "decrease"}, "change_increase_ends"),
        ({"state": "done"}, "change_closed_has_instant"),
        ({"state": "lost"}, "change_closed_has_instant"),
        ({"closed_at": NOW}, "change_closed_has_instant"),
        ({"kind": "limit", "ends_at": None, "state": "active"}, "change_only_increases_last"),
        ({"reason": ""}, "change_says_who_and_why"),
        ({"actor": ""}, "change_says_who_and_why"),
    ],
)
def test_an_insert_is_refused(budget: Budget, changes: dict[str, Any], constraint: str) -> None:
    with refused_by(constraint):
        insert(budget, **changes)


def test_it_stays_in_its_organization(budget: Budget) -> None:
    with refused_by("change_budget_of_same_organization"):
        insert(budget, organization_id=make_world("other").id)


def test_increases_are_never_negative(budget: Budget) -> None:
    with refused_by("budget_increase_not_negative"):
        sql("UPDATE budgets_budget SET increase_amount = -1 WHERE id = %s", budget.id)


def insert(budget: Budget, **changes: Any) -> BudgetChange:
    values: dict[str, Any] = {
        "organization_id": budget.organization_id,
        "budget": budget,
        "kind": "increase",
        "amount": 5,
        "starts_at": NOW,
        "ends_at": NOW + timedelta(hours=1),
        "actor": "a",
        "reason": "r",
        "created_at": NOW,
    }
    return BudgetChange.objects.create(**values | changes)
