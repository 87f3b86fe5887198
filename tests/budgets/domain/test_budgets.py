"""Budgets are made, changed, archived and armed; what cannot be meant is refused in words."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from budgets.domain.budgets import archive_budget, arm_budgets, change_budget, describe
from budgets.errors import (
    BudgetArchivedError,
    BudgetNotFoundError,
    BudgetValidationError,
    UncoveredSplitError,
)
from budgets.models import Balance, Budget, Transfer
from controlplane.audit.models import AuditEntry
from controlplane.identity.models import Organization
from enforcement.rules.policy import HoldMode, Mode, Per, ScopeKind, Unit, WindowSpec
from tests.budgets.world import (
    ACTOR,
    NOW,
    World,
    make_balance,
    make_budget,
    make_lease,
    make_world,
)

LATER = NOW + timedelta(minutes=5)


def change(budget: Budget, **changes: Any) -> Budget:
    return change_budget(
        organization_id=budget.organization_id,
        budget_id=budget.id,
        changes=changes,
        actor=ACTOR,
        now=LATER,
        reason="asked for",
    )


def archive(budget: Budget) -> Budget:
    return archive_budget(
        organization_id=budget.organization_id, budget_id=budget.id, actor=ACTOR, now=LATER
    )


def revision(world: World) -> int:
    return Organization.objects.get(id=world.id).policy_revision


# ------------------------------------------------------------------------------ create


def test_a_hard_budget_is_arming_and_bumps_the_policy(world: World) -> None:
    before = revision(world)
    budget = make_budget(world)
    assert revision(world) == before + 1
    assert (budget.state, budget.armed_at, budget.policy_revision) == ("arming", None, before + 1)
    assert Balance.objects.count() == 0


def test_a_soft_budget_is_armed_at_once(world: World) -> None:
    budget = make_budget(world, mode=Mode.SOFT)
    assert (budget.state, budget.armed_at) == ("armed", NOW)


def test_making_one_is_on_record(world: World) -> None:
    budget = make_budget(world)
    entry = AuditEntry.objects.get(object_id=str(budget.id))
    assert (entry.action, entry.actor_label, entry.object_kind) == (
        "budget.create",
        "Olive Owner",
        "budget",
    )
    assert entry.after == describe(budget)
    assert entry.before is None


def test_its_policy_is_what_sidecars_need(world: World) -> None:
    budget = make_budget(
        world,
        per=Per.AGENT,
        scope_kind=ScopeKind.TEAM,
        scope_id=world.team.id,
        hold_mode=HoldMode.METERED,
        window_kind="calendar",
        period="month",
        time_zone="Asia/Kolkata",
        anchor_day=15,
    )
    policy = Budget.objects.get(id=budget.id).to_policy()
    assert policy.id == str(budget.id)
    assert (policy.scope_kind, policy.scope_id) == (ScopeKind.TEAM, str(world.team.id))
    assert (policy.unit, policy.limit, policy.mode) == (Unit.USD, 1_000_000_000, Mode.HARD)
    assert (policy.hold_mode, policy.per) == (HoldMode.METERED, Per.AGENT)
    assert policy.window == WindowSpec("calendar", "month", "Asia/Kolkata", 15)


CALENDAR = {"window_kind": "calendar", "period": "month"}


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"limit_amount": 0}, "limit_amount", "limit must be above zero, not 0.00"),
        ({"limit_amount": -5}, "limit_amount", "limit must be above zero, not -0.000000005"),
        ({"limit_amount": 2**63}, "limit_amount", "limit is at most 9223372036.854775807"),
        ({"max_values": 0}, "max_values", "must be above zero"),
        ({"max_values": 1_000_001}, "max_values", "is at most 1000000"),
        ({"name": "  "}, "name", "a budget needs a name"),
        ({"name": "x" * 201}, "name", "at most 200 characters"),
        ({"scope_id": uuid4()}, "scope_id", "no agent with id"),
        ({"scope_kind": ScopeKind.TEAM}, "scope_id", "no team with id"),
        ({"scope_kind": ScopeKind.PROJECT}, "scope_id", "no project with id"),
        ({"scope_kind": ScopeKind.ORGANIZATION}, "scope_id", "no organization with id"),
        ({"mode": Mode.SOFT, "hold_mode": HoldMode.METERED}, "hold_mode", "only a hard budget"),
        ({"mode": Mode.OBSERVE, "hold_mode": HoldMode.METERED}, "hold_mode", "only a hard budget"),
        ({"window_kind": "calendar"}, "period", "needs a period"),
        ({"period": "day"}, "period", "a lifetime window has no period"),
        ({"time_zone": "Europe/Berlin"}, "time_zone", "a lifetime window has no time zone"),
        ({"anchor_day": 2}, "time_zone", "a lifetime window has no time zone or anchor"),
        (CALENDAR | {"time_zone": "Mars/Base"}, "time_zone", "unknown time zone: 'Mars/Base'"),
        (CALENDAR | {"time_zone": "../etc/passwd"}, "time_zone", "unknown time zone"),
        (CALENDAR | {"time_zone": ""}, "time_zone", "unknown time zone"),
        (CALENDAR | {"anchor_day": 29}, "anchor_day", "must be 1 to 28"),
        (CALENDAR | {"anchor_day": 0}, "anchor_day", "must be 1 to 28"),
        (CALENDAR | {"anchor_month": 2}, "anchor_month", "a month has no anchor month"),
        (
            CALENDAR | {"period": "year", "anchor_month": 13},
            "anchor_month",
            "must be 1 to 12, not 13",
        ),
        (CALENDAR | {"rolling_s": 60}, "rolling_s", "only a rolling window has it"),
        (CALENDAR | {"ends_at": NOW}, "ends_at", "over already"),
        ({"window_kind": "until"}, "ends_at", "needs its end"),
        ({"window_kind": "rolling"}, "rolling_s", "has 30 to"),
        ({"window_kind": "rolling", "rolling_s": 10}, "rolling_s", "what is shorter is a rate"),
        (
            {"window_kind": "rolling", "rolling_s": 3_600, "rolling_parts": 7},
            "rolling_parts",
            "the nearest number is 6",
        ),
        ({"rolling_parts": 3}, "rolling_parts", "only a rolling window has parts"),
        ({"rollover": "all"}, "rollover", "only what a calendar window leaves"),
        (CALENDAR | {"rollover": "capped"}, "rollover_amount", "say how much"),
        (CALENDAR | {"rollover_amount": 5}, "rollover_amount", "only a capped rollover"),
        (
            CALENDAR | {"rollover": "capped", "rollover_amount": -5},
            "rollover_amount",
            "rollover must be above zero, not -0.000000005",
        ),
        (CALENDAR | {"period": "week", "anchor_day": 2}, "anchor_day", "a week has no anchor day"),
        ({"per": Per.SESSION}, "per", "needs a hard budget"),
    ],
)
def test_what_cannot_be_meant(
    world: World, changes: dict[str, Any], field: str, words: str
) -> None:
    before = revision(world)
    with pytest.raises(BudgetValidationError) as caught:
        make_budget(world, **changes)
    assert caught.value.field == field
    assert words in str(caught.value)
    assert (Budget.objects.count(), AuditEntry.objects.count()) == (0, 0)
    assert revision(world) == before


def test_a_scope_of_another_organization_matches_nothing(world: World) -> None:
    foreign = make_world("other").agent
    with pytest.raises(BudgetValidationError, match="no agent with id"):
        make_budget(world, scope_id=foreign.id)


def test_names_are_unique_while_live(world: World) -> None:
    first = make_budget(world)
    with pytest.raises(BudgetValidationError, match="another budget is named 'Reader'"):
        make_budget(world)
    archive(first)
    make_budget(world)


# ------------------------------------------------------------------------------ L15


def scoped(world: World, kind: ScopeKind) -> dict[str, Any]:
    ids = {
        ScopeKind.ORGANIZATION: world.id,
        ScopeKind.TEAM: world.team.id,
        ScopeKind.PROJECT: world.project.id,
        ScopeKind.AGENT: world.agent.id,
    }
    return {"scope_kind": kind, "scope_id": ids[kind]}


@pytest.mark.parametrize("kind", [k for k in ScopeKind if k is not ScopeKind.SESSION])
def test_a_session_budget_stands_below_any_hard_one(world: World, kind: ScopeKind) -> None:
    make_budget(world, name="above", **scoped(world, kind))
    assert make_budget(world, per=Per.SESSION).per == "session"


@pytest.mark.parametrize(
    "above",
    [
        {"mode": Mode.SOFT},
        {"mode": Mode.OBSERVE},
        {"scope": "loner"},
        {"per": Per.AGENT, "scope": "loner"},
    ],
)
def test_what_does_not_bound_its_sessions(world: World, above: dict[str, Any]) -> None:
    changes = dict(above)
    if changes.pop("scope", None):
        changes["scope_id"] = world.loner.id
    make_budget(world, name="above", **changes)
    with pytest.raises(UncoveredSplitError):
        make_budget(world, per=Per.SESSION)


def test_a_wider_session_budget_needs_a_wider_one_above(world: World) -> None:
    make_budget(world, name="above")
    with pytest.raises(UncoveredSplitError):
        make_budget(world, per=Per.SESSION, **scoped(world, ScopeKind.PROJECT))


def test_a_soft_session_budget_needs_nothing(world: World) -> None:
    make_budget(world, per=Per.SESSION, mode=Mode.SOFT)


def test_the_last_budget_above_cannot_go(world: World) -> None:
    above = make_budget(world, name="above")
    make_budget(world, per=Per.SESSION)
    with pytest.raises(UncoveredSplitError):
        archive(above)
    with pytest.raises(UncoveredSplitError):
        change(above, mode=Mode.SOFT)
    make_budget(world, name="another", **scoped(world, ScopeKind.ORGANIZATION))
    archive(above)


def test_an_unrelated_budget_may_go(world: World) -> None:
    make_budget(world, name="above")
    unrelated = make_budget(world, name="unrelated", scope_id=world.loner.id)
    make_budget(world, per=Per.SESSION)
    assert archive(unrelated).archived_at == LATER


# ------------------------------------------------------------------------------ change


def test_a_raised_limit_reaches_current_balances(world: World) -> None:
    budget = make_budget(world)
    balance = make_balance(budget, spent_amount=10)
    past = make_balance(
        budget,
        window_start=NOW - timedelta(days=2),
        window_end=NOW - timedelta(days=1),
    )
    change(budget, limit_amount=3_000_000_000)
    balance.refresh_from_db()
    past.refresh_from_db()
    assert (balance.limit_amount, balance.cap_amount) == (3_000_000_000, 3_000_000_000)
    assert (past.limit_amount, past.cap_amount) == (1_000_000_000, 1_000_000_000)
    row = Transfer.objects.get(kind="limit")
    assert (row.balance_id, row.amount, row.actor, row.reason) == (
        balance.id,
        3_000_000_000,
        "Olive Owner",
        "asked for",
    )


def test_a_lowered_limit_keeps_what_is_committed_and_arms_anew(world: World) -> None:
    budget = make_budget(world)
    arm_budgets(organization_id=world.id, revision=revision(world), now=NOW)
    balance = make_balance(budget, spent_amount=300_000_000)
    make_lease(balance, amount=400_000_000)
    changed = change(budget, limit_amount=500_000_000)
    balance.refresh_from_db()
    assert (balance.limit_amount, balance.cap_amount) == (500_000_000, 700_000_000)
    assert balance.free_amount == -200_000_000
    assert (changed.state, changed.armed_at) == ("arming", None)
    assert changed.policy_revision == revision(world)


def test_a_raised_limit_stays_armed(world: World) -> None:
    budget = make_budget(world)
    arm_budgets(organization_id=world.id, revision=revision(world), now=NOW)
    assert change(budget, limit_amount=2_000_000_000).state == "armed"


def test_a_soft_budget_that_turns_hard_takes_its_use_along(world: World) -> None:
    budget = make_budget(world, mode=Mode.SOFT)
    balance = make_balance(budget, spent_amount=5_000_000_000)
    changed = change(budget, mode=Mode.HARD)
    balance.refresh_from_db()
    assert (balance.hard, balance.cap_amount) == (True, 5_000_000_000)
    assert changed.state == "arming"


def test_a_change_is_on_record_with_both_sides(world: World) -> None:
    budget = make_budget(world)
    change(budget, limit_amount=2_000_000_000, name="Renamed")
    entry = AuditEntry.objects.get(action="budget.change")
    assert entry.before == {"limit_amount": 1_000_000_000, "name": "Reader"}
    assert entry.after == {"limit_amount": 2_000_000_000, "name": "Renamed"}
    assert entry.reason == "asked for"


def test_a_change_of_nothing_is_nothing(world: World) -> None:
    budget = make_budget(world)
    before = revision(world)
    change(budget, limit_amount=budget.limit_amount)
    assert revision(world) == before
    assert not AuditEntry.objects.filter(action="budget.change").exists()


@pytest.mark.parametrize(
    "field", ["scope_id", "scope_kind", "per", "unit", "period", "time_zone", "anchor_day", "state"]
)
def test_what_names_its_balances_never_changes(world: World, field: str) -> None:
    budget = make_budget(world)
    with pytest.raises(BudgetValidationError, match=f"{field} never changes"):
        change(budget, **{field: "x"})


def test_another_organization_has_no_such_budget(world: World) -> None:
    budget, other = make_budget(world), make_world("other")
    with pytest.raises(BudgetNotFoundError):
        change_budget(
            organization_id=other.id, budget_id=budget.id, changes={}, actor=ACTOR, now=LATER
        )
    with pytest.raises(BudgetNotFoundError):
        archive_budget(organization_id=other.id, budget_id=budget.id, actor=ACTOR, now=LATER)


def test_an_archived_budget_is_left_alone(world: World) -> None:
    budget = archive(make_budget(world))
    assert budget.archived_at == LATER
    with pytest.raises(BudgetArchivedError):
        change(budget, limit_amount=5)
    with pytest.raises(BudgetArchivedError):
        archive(budget)


# ------------------------------------------------------------------------------ arm


def test_a_budget_arms_when_every_book_knows_it(world: World) -> None:
    first = make_budget(world)
    second = make_budget(world, name="second")
    assert arm_budgets(organization_id=world.id, revision=first.policy_revision, now=LATER) == [
        first.id
    ]
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.state, first.armed_at) == ("armed", LATER)
    assert second.state == "arming"
    assert arm_budgets(organization_id=world.id, revision=10**9, now=LATER) == [second.id]
    assert arm_budgets(organization_id=world.id, revision=10**9, now=LATER) == []


def test_arming_is_of_one_organization(world: World) -> None:
    make_budget(world)
    assert arm_budgets(organization_id=make_world("other").id, revision=10**9, now=LATER) == []
