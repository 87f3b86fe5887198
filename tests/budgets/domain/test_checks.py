"""What a budget may say of its scope, filters, split and unit, and how it is refused."""

from typing import Any

import pytest

from budgets.domain.checks import MAX_PERMITS
from budgets.errors import BudgetValidationError, UncoveredSplitError, UnknownFactError
from budgets.models import PriceVersion
from controlplane.identity.ids import new_id
from enforcement.models import ServingNode
from enforcement.rules.policy import HoldMode, Mode, Overflow, Per, ScopeKind, Unit
from tests.budgets.world import NOW, World, make_budget


@pytest.fixture
def known(world: World) -> World:
    """A world with two priced models and a node."""
    for model, match in (("gpt-4o", "exact"), ("claude-", "prefix")):
        PriceVersion.objects.create(
            provider="openai", model=model, match=match, valid_from=NOW, source="test"
        )
    ServingNode.objects.create(
        id=new_id(),
        organization=world.organization,
        name="rack-1",
        base_url="http://n",
        models=["gemma"],
        created_at=NOW,
    )
    return world


@pytest.mark.parametrize(
    "filters",
    [
        {"model": ["gpt-4o"]},
        {"model": ["gpt*", "gemma"]},
        {"model": ["claude-9"]},
        {"node": ["rack-1"], "provider": ["openai"], "user": ["anybody"], "tag:env": ["prod*"]},
        {"skill": ["none-imported-yet"]},
    ],
)
def test_filters_that_can_match(known: World, filters: dict[str, list[str]]) -> None:
    budget = make_budget(known, filters=filters)
    budget.refresh_from_db()
    assert budget.to_policy().filters == filters


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ({"model": ["gpt-4"]}, "no model here fits 'gpt-4'; did you mean 'gpt-4o'?"),
        ({"model": ["gemma", "gema*"]}, "no model here fits 'gema*'; did you mean 'gemma'?"),
        ({"node": ["rack-2"]}, "no node here fits 'rack-2'; did you mean 'rack-1'?"),
        ({"provider": ["zzz"]}, "no provider here fits 'zzz'"),
    ],
)
def test_a_filter_that_matches_nothing_names_the_nearest(
    known: World, filters: dict[str, list[str]], words: str
) -> None:
    with pytest.raises(UnknownFactError) as caught:
        make_budget(known, filters=filters)
    assert (caught.value.field, caught.value.message) == ("filters", words)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"filters": {"modle": ["x"]}}, "filters"),
        ({"filters": {"user": []}}, "filters"),
        ({"filters": {"user": "ann"}}, "filters"),
        ({"filters": {"user": [""]}}, "filters"),
        ({"filters": {"user": ["a*b"]}}, "filters"),
        ({"filters": {"user": ["a\nb"]}}, "filters"),
        ({"filters": {"user": [7]}}, "filters"),
        ({"filters": {"tag:": ["x"]}}, "filters"),
        ({"filters": {f"tag:{n}": ["x"] for n in range(9)}}, "filters"),
        ({"filters": {"user": ["x"] * 101}}, "filters"),
        ({"per": "weather"}, "per"),
        ({"per": "tag:"}, "per"),
        ({"per": "tag:a b"}, "per"),
        ({"overflow": Overflow.SHARE}, "overflow"),
        ({"scope_kind": ScopeKind.SESSION}, "scope_session"),
        ({"scope_session": "s1"}, "scope_session"),
        ({"unit": Unit.CONCURRENCY, "mode": Mode.SOFT, "limit_amount": 5}, "mode"),
        (
            {
                "unit": Unit.CONCURRENCY,
                "limit_amount": 5,
                "window_kind": "calendar",
                "period": "day",
            },
            "window_kind",
        ),
        ({"unit": Unit.CONCURRENCY, "limit_amount": MAX_PERMITS + 1}, "limit_amount"),
        ({"unit": Unit.GPU_MS, "hold_mode": HoldMode.METERED}, "hold_mode"),
        ({"limit_amount": 0}, "limit_amount"),
        ({"limit_amount": -1}, "limit_amount"),
        ({"limit_amount": 2**63}, "limit_amount"),
    ],
)
def test_what_cannot_be_meant(world: World, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(BudgetValidationError) as caught:
        make_budget(world, **changes)
    assert caught.value.field == field


def test_a_misspelt_fact_is_told_the_nearest(world: World) -> None:
    with pytest.raises(BudgetValidationError, match="did you mean 'model'"):
        make_budget(world, filters={"modle": ["x"]})


@pytest.mark.parametrize("per", [Per.SESSION, Per.USER, Per.SKILL, "tag:task"])
def test_a_hard_split_by_what_callers_name_needs_a_bound_above(world: World, per: str) -> None:
    with pytest.raises(UncoveredSplitError, match=per):
        make_budget(world, per=per)
    make_budget(world, name="narrow", filters={"user": ["ann"]})
    with pytest.raises(UncoveredSplitError):
        make_budget(world, per=per)
    make_budget(world, name="whole")
    make_budget(world, per=per)


@pytest.mark.parametrize("per", [Per.MODEL, Per.NODE, Per.AGENT, Per.PROJECT])
def test_a_split_by_what_callers_cannot_invent_needs_none(world: World, per: str) -> None:
    assert make_budget(world, per=per).per == per


def test_a_session_may_be_the_scope(world: World) -> None:
    budget = make_budget(world, scope_kind=ScopeKind.SESSION, scope_session="night-run")
    policy = budget.to_policy()
    assert (policy.scope_kind, policy.scope_id, policy.scope_session) == (
        ScopeKind.SESSION,
        str(world.agent.id),
        "night-run",
    )
