"""Which budgets an agent matches, and which balance of each."""

import pytest

from enforcement.rules.matching import MatchPlans, Subject, matches, subject_of, value_of
from enforcement.rules.policy import (
    AgentPolicy,
    BudgetPolicy,
    Mode,
    Per,
    PolicySnapshot,
    ScopeKind,
    Unit,
)

AGENT = AgentPolicy(id="a1", slug="one", team="t1", project="p1")


def budget(
    budget_id: str, scope_kind: ScopeKind, scope_id: str, mode: Mode = Mode.HARD
) -> BudgetPolicy:
    return BudgetPolicy(budget_id, budget_id, scope_kind, scope_id, Unit.USD, 1, mode)


@pytest.mark.parametrize(
    ("scope_kind", "scope_id", "expected"),
    [
        (ScopeKind.ORGANIZATION, "o1", True),
        (ScopeKind.ORGANIZATION, "o2", False),
        (ScopeKind.TEAM, "t1", True),
        (ScopeKind.TEAM, "t2", False),
        (ScopeKind.PROJECT, "p1", True),
        (ScopeKind.PROJECT, "a1", False),
        (ScopeKind.AGENT, "a1", True),
        (ScopeKind.AGENT, "a2", False),
    ],
)
def test_a_budget_matches_its_own_scope_only(
    scope_kind: ScopeKind, scope_id: str, expected: bool
) -> None:
    assert matches(budget("b", scope_kind, scope_id), subject_of("o1", AGENT)) is expected


def test_the_split_names_the_balance() -> None:
    subject = Subject(organization="o1", agent="a1", session="s1")
    assert [value_of(per, subject) for per in (Per.NONE, Per.AGENT, Per.SESSION)] == [
        "",
        "a1",
        "s1",
    ]


def test_a_plan_has_hard_budgets_first_and_only_matching_ones() -> None:
    policy = PolicySnapshot(
        organization="o1",
        revision=1,
        agents=[AGENT, AgentPolicy(id="a2", slug="two")],
        budgets=[
            budget("3", ScopeKind.ORGANIZATION, "o1", Mode.SOFT),
            budget("2", ScopeKind.AGENT, "a1"),
            budget("1", ScopeKind.TEAM, "t1"),
        ],
    )
    plans = MatchPlans(policy)
    assert [b.id for b in plans.plan("a1")] == ["1", "2", "3"]
    assert [b.id for b in plans.plan("a2")] == ["3"]
    with pytest.raises(KeyError):
        plans.plan("a3")
