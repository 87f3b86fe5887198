"""Which budgets a request matches, and which balance of each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.rules import matching
from enforcement.rules.matching import (
    FILTERABLE,
    Matcher,
    Subject,
    fact_of,
    fits,
    matches,
    reader_of,
    subject_of,
    value_of,
)
from enforcement.rules.policy import (
    AgentPolicy,
    BudgetPolicy,
    HoldMode,
    Mode,
    Per,
    ScopeKind,
    Unit,
)

AGENT = AgentPolicy(id="a1", slug="one", team="t1", project="p1")
SUBJECT = subject_of(
    "o1",
    AGENT,
    session="s1",
    user="u1",
    model="gpt-4o",
    provider="openai",
    node="n1",
    skill="k1",
    tags={"env": "prod"},
)


def budget(
    budget_id: str,
    scope_kind: ScopeKind = ScopeKind.ORGANIZATION,
    scope_id: str = "o1",
    mode: Mode = Mode.HARD,
    **fields: object,
) -> BudgetPolicy:
    return BudgetPolicy(budget_id, budget_id, scope_kind, scope_id, Unit.USD, 1, mode, **fields)  # type: ignore[arg-type]


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


def test_a_session_is_a_scope_of_its_agent() -> None:
    own = budget("b", ScopeKind.SESSION, "a1", scope_session="s1")
    assert matches(own, SUBJECT)
    assert not matches(budget("b", ScopeKind.SESSION, "a1", scope_session="s2"), SUBJECT)
    assert not matches(budget("b", ScopeKind.SESSION, "a2", scope_session="s1"), SUBJECT)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, True),
        ({"model": ["gpt-4o"]}, True),
        ({"model": ["gpt-4"]}, False),
        ({"model": ["gpt-4*"]}, True),
        ({"model": ["claude*", "gpt-4o"]}, True),
        ({"model": ["gpt-4o"], "node": ["n2"]}, False),
        ({"model": ["gpt-4o"], "node": ["n2", "n1"]}, True),
        ({"user": ["*"], "skill": ["k1"], "provider": ["open*"]}, True),
        ({"tag:env": ["prod"]}, True),
        ({"tag:env": ["test"]}, False),
        ({"tag:team": ["*"]}, False),
    ],
)
def test_every_fact_that_is_filtered_on_must_fit(
    filters: dict[str, list[str]], expected: bool
) -> None:
    found = budget("b", filters=filters)
    assert matches(found, SUBJECT) is expected
    assert [b.id for b in Matcher([found]).plan(SUBJECT).budgets] == ["b"] * expected


def test_what_a_request_does_not_have_fits_nothing() -> None:
    assert not fits("*", "")
    assert fits("*", "x")


@pytest.mark.parametrize("name", [*FILTERABLE, "session", "tag:env", "tag:none"])
@pytest.mark.parametrize("subject", [SUBJECT, subject_of("o1", AGENT)])
def test_a_reader_finds_the_fact_of_its_name(subject: Subject, name: str) -> None:
    assert reader_of(name)(subject) == fact_of(subject, name)


def test_a_unit_is_found_by_its_text_too() -> None:
    assert {unit: unit.value for unit in Unit}["gpu_ms"] == "gpu_ms"


def test_the_split_names_the_balance() -> None:
    names = [*Per, "tag:env", "tag:team"]
    assert [value_of(per, SUBJECT) for per in names] == [
        "",
        "t1",
        "p1",
        "a1",
        "s1",
        "u1",
        "gpt-4o",
        "openai",
        "n1",
        "k1",
        "prod",
        "",
    ]


def test_a_plan_has_hard_budgets_first_and_only_matching_ones() -> None:
    matcher = Matcher(
        [
            budget("3", mode=Mode.SOFT),
            budget("2", ScopeKind.AGENT, "a1", per="session"),
            budget("1", ScopeKind.TEAM, "t1", hold_mode=HoldMode.METERED),
        ]
    )
    plan = matcher.plan(SUBJECT)
    assert [b.id for b in plan.budgets] == ["1", "2", "3"]
    assert plan.balances(SUBJECT) == (("1", ""), ("2", "s1"), ("3", ""))
    assert (plan.metered, plan.prompt_sized) == (True, True)
    other = subject_of("o1", AgentPolicy(id="a2", slug="two"))
    assert [b.id for b in matcher.plan(other).budgets] == ["3"]


def test_plans_are_made_anew_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "MAX_PLANS", 2)
    matcher = Matcher([budget("b", filters={"user": ["u3*"]})])
    subjects = [subject_of("o1", AGENT, user=f"u{number}") for number in range(1, 6)]
    assert [len(matcher.plan(subject).budgets) for subject in subjects] == [0, 0, 1, 0, 0]


FACTS = st.sampled_from(["", "a", "ab", "abc", "b"])
PATTERNS = st.lists(st.sampled_from(["*", "a", "a*", "ab*", "b", "abc"]), min_size=1, max_size=3)
FILTERS = st.dictionaries(st.sampled_from(["user", "model", "node", "tag:x"]), PATTERNS, max_size=3)
SCOPES = st.sampled_from(
    [
        (ScopeKind.ORGANIZATION, "o1", ""),
        (ScopeKind.TEAM, "t1", ""),
        (ScopeKind.AGENT, "a1", ""),
        (ScopeKind.AGENT, "a2", ""),
        (ScopeKind.SESSION, "a1", "a"),
    ]
)


@given(
    st.lists(st.tuples(SCOPES, FILTERS), max_size=12),
    st.lists(st.tuples(FACTS, FACTS, FACTS, FACTS, FACTS), min_size=1, max_size=4),
)
def test_the_index_finds_what_a_scan_finds(
    given_budgets: list[tuple[tuple[ScopeKind, str, str], dict[str, list[str]]]],
    given_facts: list[tuple[str, str, str, str, str]],
) -> None:
    budgets = [
        budget(f"{number:02}", kind, scope, scope_session=session, filters=filters)
        for number, ((kind, scope, session), filters) in enumerate(given_budgets)
    ]
    matcher = Matcher(budgets)
    for session, user, model, node, tag in given_facts:
        subject = Subject(
            "o1", "a1", "t1", None, session, user, model, "", node, tags={"x": tag} if tag else {}
        )
        expected = [item.id for item in budgets if matches(item, subject)]
        assert [item.id for item in matcher.plan(subject).budgets] == expected
