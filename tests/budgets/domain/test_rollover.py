"""What a window leaves goes on, once, never in two places, and never past what is allowed."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from budgets.domain.budgets import change_budget
from budgets.domain.rollover import roll_over_due
from budgets.domain.verify import verify
from budgets.errors import BudgetValidationError
from budgets.models import Balance, Budget, Transfer
from tests.budgets.world import ACTOR, NOW, World, make_balance, make_budget, make_lease

DAY = timedelta(days=1)
TODAY = NOW.replace(hour=0, minute=0)
DAILY: dict[str, Any] = {"window_kind": "calendar", "period": "day", "limit_amount": 1_000}
pytestmark = pytest.mark.django_db


def daily(world: World, **changes: Any) -> Budget:
    return make_budget(world, **{**DAILY, "rollover": "all", **changes})


def of_day(budget: Budget, start: datetime) -> Balance:
    return Balance.objects.get(budget=budget, window_start=start)


def test_an_idle_day_is_carried_to_the_next(world: World) -> None:
    budget = daily(world)
    assert roll_over_due(now=NOW) == 0
    assert roll_over_due(now=NOW + DAY) == 1
    old, new = of_day(budget, TODAY), of_day(budget, TODAY + DAY)
    assert (old.given_amount, old.free_amount, old.closed_at) == (1_000, 0, NOW + DAY)
    assert (new.limit_amount, new.carried_amount, new.cap_amount) == (2_000, 1_000, 2_000)
    kinds = set(Transfer.objects.values_list("balance_id", "kind", "amount"))
    assert kinds == {(old.id, "carry_out", 1_000), (new.id, "carry_in", 1_000)}
    assert (roll_over_due(now=NOW + DAY), verify().holds) == (0, True)


def test_days_when_nothing_ran_are_carried_one_by_one(world: World) -> None:
    budget = daily(world)
    late = NOW + 3 * DAY
    for _ in range(4):
        roll_over_due(now=late)
    assert of_day(budget, TODAY + 3 * DAY).limit_amount == 4_000


def test_a_cap_bounds_what_one_window_gets_from_others(world: World) -> None:
    budget = daily(world, rollover="capped", rollover_amount=300)
    for days in (1, 2, 3):
        roll_over_due(now=NOW + days * DAY)
        assert of_day(budget, TODAY + days * DAY).limit_amount == 1_300


def test_only_what_is_free_moves_and_the_rest_follows(world: World) -> None:
    budget = daily(world)
    lease = make_lease(of_day(budget, TODAY), amount=600)
    roll_over_due(now=NOW + DAY)
    old, new = of_day(budget, TODAY), of_day(budget, TODAY + DAY)
    assert (old.given_amount, old.closed_at, new.carried_amount) == (400, None, 400)
    Balance.objects.filter(id=old.id).update(held_amount=0)
    lease.returned_amount, lease.state, lease.closed_at = 600, "settled", NOW
    lease.save()
    Transfer.objects.create(
        organization_id=world.id, balance=old, lease=lease, kind="release", amount=600, at=NOW
    )
    roll_over_due(now=NOW + DAY)
    assert of_day(budget, TODAY + DAY).carried_amount == 1_000
    assert of_day(budget, TODAY).closed_at == NOW + DAY
    assert verify().holds


def test_what_was_used_is_not_carried(world: World) -> None:
    budget = daily(world)
    Balance.objects.filter(budget=budget).update(spent_amount=700, overrun_amount=100)
    roll_over_due(now=NOW + DAY)
    assert of_day(budget, TODAY + DAY).limit_amount == 1_200


def test_a_split_carries_for_each_value_it_knows(world: World) -> None:
    budget = daily(world, per="agent", limit_amount=100)
    value = str(world.agent.id)
    make_balance(budget, value=value, window_start=TODAY, window_end=TODAY + DAY, spent_amount=30)
    assert roll_over_due(now=NOW + DAY) == 1
    (new,) = Balance.objects.filter(budget=budget, window_start=TODAY + DAY)
    assert (new.value, new.limit_amount) == (value, 170)


def test_a_changed_limit_keeps_what_was_carried(world: World) -> None:
    budget = daily(world)
    roll_over_due(now=NOW + DAY)
    change_budget(
        organization_id=world.id,
        budget_id=budget.id,
        changes={"limit_amount": 500},
        actor=ACTOR,
        now=NOW + DAY,
    )
    assert of_day(budget, TODAY + DAY).limit_amount == 1_500


def test_what_was_left_before_it_was_wished_for_stays_there(world: World) -> None:
    budget = make_budget(world, **DAILY)
    for days in range(1, 30):
        start = TODAY - days * DAY
        make_balance(budget, window_start=start, window_end=start + DAY, spent_amount=10)
    change_budget(
        organization_id=world.id,
        budget_id=budget.id,
        changes={"rollover": "all"},
        actor=ACTOR,
        now=NOW,
    )
    assert roll_over_due(now=NOW) == 0
    assert of_day(budget, TODAY).limit_amount == 1_000
    assert roll_over_due(now=NOW + DAY) == 1
    assert of_day(budget, TODAY + DAY).limit_amount == 2_000


def test_a_rollover_can_begin_and_end_later(world: World) -> None:
    budget = make_budget(world, **DAILY)
    where = {"organization_id": world.id, "budget_id": budget.id, "actor": ACTOR}
    change_budget(changes={"rollover": "all"}, now=NOW, **where)
    assert roll_over_due(now=NOW + DAY) == 1
    change_budget(changes={"rollover": "none"}, now=NOW + DAY, **where)
    assert roll_over_due(now=NOW + 2 * DAY) == 0
    with pytest.raises(BudgetValidationError, match="say how much is carried"):
        change_budget(changes={"rollover": "capped"}, now=NOW, **where)
