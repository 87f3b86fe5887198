from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from budgets import queries
from budgets.domain.budgets import archive_budget
from enforcement.rules.policy import Mode, Per, ScopeKind
from tests.budgets.world import (
    ACTOR,
    NOW,
    World,
    make_balance,
    make_budget,
    make_lease,
    make_world,
)

LIMIT = 1_000_000_000
MAY = datetime(2026, 5, 1, tzinfo=UTC)
JUNE = datetime(2026, 6, 1, tzinfo=UTC)


def test_a_budget_without_use_has_its_window(world: World) -> None:
    make_budget(world, window_kind="calendar", period="month")
    (row,) = queries.budget_rows(world.organization, now=NOW)
    assert (row.used, row.held, row.free, row.percent, row.balances) == (0, 0, LIMIT, 0, 0)
    assert (row.window_start, row.window_end) == (MAY, JUNE)


def test_its_figures_are_those_of_the_fullest_balance(world: World) -> None:
    above = make_budget(world, name="above")
    budget = make_budget(world, per=Per.SESSION)
    make_balance(budget, value="s1", spent_amount=10)
    full = make_balance(budget, value="s2", spent_amount=400_000_000, overrun_amount=1)
    make_lease(full, amount=100_000_000)
    rows = {row.budget.id: row for row in queries.budget_rows(world.organization, now=NOW)}
    row = rows[budget.id]
    assert row.balance == full
    assert (row.used, row.held, row.overrun) == (400_000_001, 100_000_000, 1)
    assert (row.committed, row.free, row.percent) == (500_000_001, 499_999_999, 50)
    assert row.balances == 2
    assert rows[above.id].balance is None
    assert queries.budget_row(budget, now=NOW) == row


def test_only_the_current_window_counts(world: World) -> None:
    budget = make_budget(world, window_kind="calendar", period="day")
    day = timedelta(days=1)
    start = NOW.replace(hour=0, minute=0)
    make_balance(budget, window_start=start - day, window_end=start, spent_amount=900)
    make_balance(budget, window_start=start, window_end=start + day, spent_amount=7)
    (row,) = queries.budget_rows(world.organization, now=NOW)
    assert (row.used, row.balances) == (7, 1)


def test_archived_ones_are_apart(world: World) -> None:
    budget = make_budget(world)
    make_budget(world, name="live")
    archive_budget(organization_id=world.id, budget_id=budget.id, actor=ACTOR, now=NOW)
    rows = queries.budget_rows(world.organization, now=NOW)
    assert [row.budget.name for row in rows] == ["live"]
    rows = queries.budget_rows(world.organization, now=NOW, archived=True)
    assert [row.budget.name for row in rows] == ["Reader"]


def test_nearest_and_risk(world: World) -> None:
    use = {"a": 790_000_000, "b": 800_000_000, "c": LIMIT, "d": 5}
    for name, spent in use.items():
        make_balance(make_budget(world, name=name), spent_amount=spent)
    soft = make_budget(world, name="soft", mode=Mode.SOFT)
    make_balance(soft, spent_amount=3 * LIMIT)
    make_budget(world, name="unused")
    rows = queries.budget_rows(world.organization, now=NOW)
    names = [row.budget.name for row in queries.nearest(rows, count=3)]
    assert names == ["soft", "c", "b"]
    risk = queries.risk(rows)
    assert (risk.hard, risk.full, risk.near, risk.total) == (5, 1, 1, 2)


@pytest.mark.parametrize("count", [1, 4])
def test_rows_cost_three_queries(world: World, count: int, django_assert_num_queries: Any) -> None:
    for number in range(count):
        make_balance(make_budget(world, name=f"b{number}"))
    with django_assert_num_queries(3):
        assert len(queries.budget_rows(world.organization, now=NOW)) == count


# ------------------------------------------------------------------------------ tree


def shape(world: World) -> list[tuple[int, str, str]]:
    nodes = queries.tree(world.organization, now=NOW)
    return [(node.depth, node.kind, node.name) for node in nodes]


def test_the_tree_is_depth_first(world: World) -> None:
    make_world("other")
    assert shape(world) == [
        (0, "organization", "Acme"),
        (1, "team", "Research"),
        (2, "project", "Papers"),
        (3, "agent", "Reader"),
        (1, "agent", "Loner"),
    ]


def test_sessions_stand_below_their_budget(world: World) -> None:
    make_budget(world, name="above")
    sessions = make_budget(world, name="sessions", per=Per.SESSION)
    for number in range(7):
        make_balance(sessions, value=f"s{number}", updated_at=NOW + timedelta(seconds=number))
    rows = shape(world)
    assert [name for depth, kind, name in rows if kind == "session"] == [
        "s6",
        "s5",
        "s4",
        "s3",
        "s2",
    ]
    assert rows.index((4, "session", "s6")) == rows.index((3, "agent", "Reader")) + 1


def test_the_effective_cap_is_the_nearest_on_the_way_up(world: World) -> None:
    team: dict[str, Any] = {"scope_kind": ScopeKind.TEAM, "scope_id": world.team.id}
    narrow = make_budget(world, name="team", limit_amount=LIMIT // 2, **team)
    own = make_budget(world, name="own")
    make_budget(world, name="soft", mode=Mode.SOFT, limit_amount=1)
    above = make_budget(
        world, name="all", scope_kind=ScopeKind.ORGANIZATION, scope_id=world.id, limit_amount=LIMIT
    )
    caps = {
        node.name: node.effective["usd"].budget.name
        for node in queries.tree(world.organization, now=NOW)
    }
    assert caps == {
        "Acme": "all",
        "Research": "team",
        "Papers": "team",
        "Reader": "team",
        "Loner": "all",
    }
    make_balance(own, spent_amount=LIMIT - 1)
    nodes = {node.name: node for node in queries.tree(world.organization, now=NOW)}
    assert nodes["Reader"].effective["usd"].budget == own
    assert nodes["Papers"].effective["usd"].budget == narrow
    make_balance(above, spent_amount=LIMIT)
    nodes = {node.name: node for node in queries.tree(world.organization, now=NOW)}
    assert nodes["Loner"].effective["usd"].free == 0


def test_a_budget_for_each_agent_binds_each_by_its_own_share(world: World) -> None:
    each = make_budget(
        world,
        name="each",
        per=Per.AGENT,
        scope_kind=ScopeKind.ORGANIZATION,
        scope_id=world.id,
    )
    make_balance(each, value=str(world.agent.id), spent_amount=LIMIT - 5)
    nodes = {node.name: node for node in queries.tree(world.organization, now=NOW)}
    assert nodes["Reader"].effective["usd"].free == 5
    assert nodes["Loner"].effective["usd"].free == LIMIT
    assert nodes["Papers"].effective == nodes["Acme"].effective == {}


@pytest.mark.parametrize("count", [1, 3])
def test_the_tree_costs_the_same_for_any_size(
    world: World, count: int, django_assert_num_queries: Any
) -> None:
    for number in range(count):
        make_balance(make_budget(world, name=f"b{number}"))
    with django_assert_num_queries(8):
        queries.tree(world.organization, now=NOW)
