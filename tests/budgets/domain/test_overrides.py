"""Own limits of split values: for balances that are there, and for those that come."""

from typing import Any

import pytest

from budgets.domain.budgets import archive_budget, change_budget
from budgets.domain.overrides import clear_override, set_override
from budgets.domain.usage import book_usage
from budgets.errors import BudgetArchivedError, BudgetValidationError, OverrideNotFoundError
from budgets.models import Balance, Budget, BudgetOverride, Transfer
from controlplane.audit.models import AuditEntry
from enforcement.rules.policy import Mode, Per
from tests.budgets.world import ACTOR, NOW, World, call, make_balance, make_budget


@pytest.fixture
def by_user(world: World) -> Budget:
    make_budget(world, name="above")
    return make_budget(world, name="each user", per=Per.USER, limit_amount=1_000)


def override(budget: Budget, value: str, limit: int, **more: Any) -> BudgetOverride:
    return set_override(
        organization_id=budget.organization_id,
        budget_id=budget.id,
        value=value,
        limit_amount=limit,
        actor=ACTOR,
        now=NOW,
        **more,
    )


def limits(budget: Budget) -> dict[str, tuple[int, int]]:
    rows = Balance.objects.filter(budget=budget)
    return {row.value: (row.limit_amount, row.cap_amount) for row in rows}


def test_a_balance_that_is_there_takes_its_own_limit(by_user: Budget) -> None:
    make_balance(by_user, value="ann", spent_amount=700)
    make_balance(by_user, value="bob")
    override(by_user, "ann", 500, reason="too keen")
    assert limits(by_user) == {"ann": (500, 700), "bob": (1_000, 1_000)}
    moved = Transfer.objects.get(kind="limit")
    assert (moved.amount, moved.reason, moved.actor) == (500, "too keen", ACTOR.label)


def test_newcomers_have_the_default_or_their_own(world: World) -> None:
    budget = make_budget(world, per=Per.USER, mode=Mode.SOFT, limit_amount=1_000)
    override(budget, "ann", 9_000)
    events = [call(world, user=user) for user in ("ann", "bob")]
    book_usage(organization_id=world.id, sidecar_id=None, events=events, now=NOW)
    assert limits(budget) == {"ann": (9_000, 9_000), "bob": (1_000, 1_000)}


def test_a_changed_default_leaves_own_limits(by_user: Budget) -> None:
    make_balance(by_user, value="ann")
    make_balance(by_user, value="bob")
    override(by_user, "ann", 9_000)
    change_budget(
        organization_id=by_user.organization_id,
        budget_id=by_user.id,
        changes={"limit_amount": 2_000},
        actor=ACTOR,
        now=NOW,
    )
    assert limits(by_user) == {"ann": (9_000, 9_000), "bob": (2_000, 2_000)}


def test_a_cleared_override_falls_back(by_user: Budget) -> None:
    make_balance(by_user, value="ann", held_amount=0)
    override(by_user, "ann", 9_000)
    override(by_user, "ann", 8_000)
    common: dict[str, Any] = {
        "organization_id": by_user.organization_id,
        "budget_id": by_user.id,
        "value": "ann",
        "actor": ACTOR,
        "now": NOW,
    }
    clear_override(**common)
    assert limits(by_user) == {"ann": (1_000, 1_000)}
    with pytest.raises(OverrideNotFoundError):
        clear_override(**common)
    trail = AuditEntry.objects.filter(action="budget.override").order_by("id")
    assert [(entry.before, entry.after) for entry in trail] == [
        (None, {"value": "ann", "limit_amount": 9_000}),
        ({"value": "ann", "limit_amount": 9_000}, {"value": "ann", "limit_amount": 8_000}),
        ({"value": "ann", "limit_amount": 8_000}, None),
    ]


def test_an_agent_is_named_by_id_or_slug(world: World) -> None:
    budget = make_budget(world, per=Per.AGENT)
    assert override(budget, "reader", 5).value == str(world.agent.id)
    assert override(budget, str(world.agent.id), 6).limit_amount == 6
    with pytest.raises(BudgetValidationError, match="did you mean 'reader'"):
        override(budget, "raeder", 5)


@pytest.mark.parametrize(("value", "limit"), [("", 5), ("x" * 201, 5), ("a\0", 5), ("a", 0)])
def test_bad_overrides(by_user: Budget, value: str, limit: int) -> None:
    with pytest.raises(BudgetValidationError):
        override(by_user, value, limit)


def test_only_live_splits_have_values(world: World, by_user: Budget) -> None:
    with pytest.raises(BudgetValidationError, match="only a split"):
        override(Budget.objects.get(name="above"), "ann", 5)
    archive_budget(organization_id=world.id, budget_id=by_user.id, actor=ACTOR, now=NOW)
    with pytest.raises(BudgetArchivedError):
        override(by_user, "ann", 5)
