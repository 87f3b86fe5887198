"""What no budget may be, whoever writes it."""

from uuid import uuid4

import pytest

from budgets.models import Budget
from tests.budgets.constraints.attack import refused_by, sql
from tests.budgets.world import NOW, World, make_budget


@pytest.fixture
def budget(world: World) -> Budget:
    return make_budget(
        world, window_kind="calendar", period="month", time_zone="Europe/Berlin", anchor_day=3
    )


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("limit_amount = 0", "budget_limit_positive"),
        ("limit_amount = -1", "budget_limit_positive"),
        ("max_values = 0", "budget_max_values_positive"),
        ("mode = 'gentle'", "budget_mode_known"),
        ("mode = 'soft', hold_mode = 'metered'", "budget_metered_only_if_hard"),
        ("hold_mode = 'loose'", "budget_metered_only_if_hard"),
        ("state = 'armed', armed_at = NULL", "budget_armed_has_instant"),
        ("state = 'arming', armed_at = now()", "budget_armed_has_instant"),
        ("state = 'broken'", "budget_armed_has_instant"),
        ("scope_kind = 'team'", "budget_identity_fixed"),
        ("scope_id = gen_random_uuid()", "budget_identity_fixed"),
        ("per = 'session'", "budget_identity_fixed"),
        ("unit = 'tokens'", "budget_identity_fixed"),
        ("period = 'day'", "budget_identity_fixed"),
        ("window_kind = 'lifetime', period = ''", "budget_identity_fixed"),
        ("time_zone = 'UTC'", "budget_identity_fixed"),
        ("anchor_day = 4", "budget_identity_fixed"),
        ("anchor_month = 4", "budget_identity_fixed"),
        ("rolling_parts = 4", "budget_identity_fixed"),
        ("rollover = 'some'", "budget_rollover_of_calendar_windows"),
        ("rollover = 'capped'", "budget_rollover_of_calendar_windows"),
        ("rollover = 'capped', rollover_amount = 0", "budget_rollover_of_calendar_windows"),
        ("rollover = 'all', rollover_amount = 1", "budget_rollover_of_calendar_windows"),
        ("rollover_amount = 1", "budget_rollover_of_calendar_windows"),
        ("organization_id = gen_random_uuid()", "budget_identity_fixed"),
    ],
)
def test_an_update_is_refused(budget: Budget, change: str, constraint: str) -> None:
    with refused_by(constraint):
        sql(f"UPDATE budgets_budget SET {change} WHERE id = %s", budget.id)


@pytest.mark.parametrize(
    ("column", "value", "constraint"),
    [
        ("scope_kind", "galaxy", "budget_scope_kind_known"),
        ("unit", "euro", "budget_unit_known"),
        ("per", "weather", "budget_per_known"),
        ("window_kind", "lifetime", "budget_window_complete"),
        ("period", "", "budget_window_complete"),
        ("period", "decade", "budget_window_complete"),
        ("anchor_day", 29, "budget_anchor_day_in_every_month"),
        ("anchor_day", 0, "budget_anchor_day_in_every_month"),
        ("anchor_month", 0, "budget_anchor_month_in_every_year"),
        ("anchor_month", 13, "budget_anchor_month_in_every_year"),
        ("window_kind", "until", "budget_window_complete"),
        ("window_kind", "rolling", "budget_window_complete"),
        ("ends_at", NOW, "budget_window_complete"),
        ("rolling_s", 3600, "budget_window_complete"),
        ("name", "Reader", "budget_name_unique_while_live"),
        ("overflow", "flood", "budget_overflow_known"),
        ("scope_session", "s1", "budget_session_scope_is_named"),
        ("scope_kind", "session", "budget_session_scope_is_named"),
        ("unit", "concurrency", "budget_permits_are_lent_for_good"),
    ],
)
def test_an_insert_is_refused(budget: Budget, column: str, value: object, constraint: str) -> None:
    budget.id, budget.name = uuid4(), "Twin"
    setattr(budget, column, value)
    with refused_by(constraint):
        budget.save(force_insert=True)


@pytest.mark.parametrize("change", [{"rolling_s": 29}, {"rolling_parts": 0}, {"rolling_parts": 49}])
def test_a_rolling_window_that_cannot_turn_is_refused(world: World, change: dict[str, int]) -> None:
    rolling = make_budget(world, window_kind="rolling", rolling_s=3600)
    rolling.id, rolling.name = uuid4(), "Twin"
    for column, value in change.items():
        setattr(rolling, column, value)
    with refused_by("budget_window_complete"):
        rolling.save(force_insert=True)


def test_a_rollover_needs_windows_that_follow(world: World) -> None:
    lifetime = make_budget(world, name="For good")
    with refused_by("budget_rollover_of_calendar_windows"):
        sql("UPDATE budgets_budget SET rollover = 'all' WHERE id = %s", lifetime.id)


def test_an_archived_name_is_free_again(world: World, budget: Budget) -> None:
    sql("UPDATE budgets_budget SET archived_at = now() WHERE id = %s", budget.id)
    assert make_budget(world).name == budget.name
