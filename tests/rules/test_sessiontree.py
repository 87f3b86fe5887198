"""What a child session's call is charged to, and tokens that nobody can make up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.rules.matching import Matcher, Subject
from enforcement.rules.policy import AgentPolicy, BudgetPolicy, ScopeKind, Unit
from enforcement.rules.sessiontree import (
    MAX_DEPTH,
    Level,
    Lineage,
    LineageError,
    at_level,
    key_of,
    pairs_of,
    seal,
    session_of,
    unseal,
)

KEY = key_of(b"p" * 32)
AGENTS = {
    "a": AgentPolicy(id="a", slug="a", team="t1"),
    "b": AgentPolicy(id="b", slug="b", team="t2"),
}


def budget(name: str, kind: ScopeKind, scope: str, per: str = "") -> BudgetPolicy:
    return BudgetPolicy(name, name, kind, scope, Unit.TOKENS, 10, per=per)


BUDGETS = [
    budget("org", ScopeKind.ORGANIZATION, "o"),
    budget("each-agent", ScopeKind.ORGANIZATION, "o", per="agent"),
    budget("each-run", ScopeKind.ORGANIZATION, "o", per="session"),
    budget("each-run-tokens", ScopeKind.ORGANIZATION, "o", per="session"),
    budget("team-1", ScopeKind.TEAM, "t1"),
    budget("team-2", ScopeKind.TEAM, "t2"),
    budget("of-b", ScopeKind.AGENT, "b", per="session"),
]


def lineage(*levels: tuple[str, str, list[str]]) -> Lineage:
    return Lineage("d1", [Level(*level) for level in levels])


def charged(tree: Lineage) -> set[tuple[str, str]]:
    subject = Subject("o", tree.agent, session=tree.session)
    pairs = pairs_of(
        tree,
        subject_at=lambda level: at_level(subject, AGENTS[level.agent], level),
        plan=Matcher(BUDGETS).plan,
    )
    return set(pairs)


def test_a_child_pays_from_its_own_part_and_its_parents_other_budgets() -> None:
    assert charged(lineage(("s1/c", "a", ["each-run"]), ("s1", "a", []))) == {
        ("org", ""),
        ("each-agent", "a"),
        ("each-run", "s1/c"),
        ("each-run-tokens", "s1"),
        ("team-1", ""),
    }


def test_a_child_of_another_agent_pays_on_both_sides() -> None:
    tree = lineage(("s1/c", "b", ["each-run", "each-run-tokens"]), ("s1", "a", []))
    assert charged(tree) == {
        ("org", ""),
        ("each-agent", "a"),
        ("each-agent", "b"),
        ("each-run", "s1/c"),
        ("each-run-tokens", "s1/c"),
        ("team-1", ""),
        ("team-2", ""),
        ("of-b", "s1"),
    }


def test_the_nearest_that_was_given_a_budget_pays_it() -> None:
    tree = lineage(
        ("s3", "a", ["each-run"]), ("s2", "a", ["each-run", "each-run-tokens"]), ("s1", "a", [])
    )
    assert session_of(tree, "each-run") == "s3"
    assert session_of(tree, "each-run-tokens") == "s2"
    assert session_of(tree, "other") == "s1"


def test_a_token_says_what_was_sealed() -> None:
    tree = lineage(("s1/c", "b", ["each-run"]), ("s1", "a", []))
    assert unseal(seal(tree, key=KEY), key=KEY) == tree
    assert (tree.session, tree.agent, tree.depth) == ("s1/c", "b", 1)


@given(st.integers(0, 200), st.integers(0, 7))
def test_a_changed_token_is_none(place: int, bit: int) -> None:
    token = seal(lineage(("s1/c", "b", ["each-run"]), ("s1", "a", [])), key=KEY)
    at = place % len(token)
    other = chr((ord(token[at]) ^ (1 << bit)) & 127)
    changed = token[:at] + other + token[at + 1 :]
    try:
        said = unseal(changed, key=KEY)
    except (LineageError, UnicodeEncodeError):
        return
    assert said == unseal(token, key=KEY)  # the last characters of base64 have spare bits


@pytest.mark.parametrize(
    ("token", "problem"),
    [
        ("", "not one of this organization"),
        ("AAAA", "not one of this organization"),
        ("x" * 6_001, "too long"),
        ("x", "cannot be read"),
        (seal(lineage(("s1", "a", [])), key=KEY), "names no parent"),
        (
            seal(lineage(*[(f"s{n}", "a", []) for n in range(MAX_DEPTH + 2)]), key=KEY),
            "names no parent",
        ),
        (seal(lineage(("c", "a", []), ("s", "a", [])), key=key_of(b"other")), "not one of"),
    ],
)
def test_what_is_no_token_is_refused(token: str, problem: str) -> None:
    with pytest.raises(LineageError, match=problem):
        unseal(token, key=KEY)
