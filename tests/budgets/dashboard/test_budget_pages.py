from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from budgets.enums import WindowKind
from budgets.models import Budget, BudgetChange
from controlplane.audit.models import AuditEntry
from enforcement.rules.policy import HoldMode, Mode, Per, ScopeKind, Unit
from tests.budgets.world import World, make_balance, make_budget
from tests.visitors import Visitors

Queries = Callable[[int], AbstractContextManager[Any]]


def wish(world: World, **changes: str) -> dict[str, str]:
    """The form of a new budget as a browser sends it."""
    return {
        "name": "Pocket money",
        "scope": f"agent:{world.agent.id}",
        "per": "",
        "unit_of_limit": "usd",
        "limit": "$1,250.50",
        "window": "month",
        "time_zone": "Europe/Berlin",
        "anchor_day": "15",
        "mode": "hard",
        "hold_mode": "strict",
        "max_values": "",
        "reason": "asked for by Rita",
        **changes,
    }


def test_a_budget_is_created_as_the_form_says(world: World, visitors: Visitors) -> None:
    response = visitors.admin.post("/budgets/new/", wish(world))
    budget = Budget.objects.get()
    assert response.headers["Location"] == f"/budgets/{budget.id}/"
    assert (budget.scope_kind, budget.scope_id) == (ScopeKind.AGENT, world.agent.id)
    assert (budget.limit_amount, budget.unit) == (1_250_500_000_000, Unit.USD)
    assert (budget.window_kind, budget.period) == (WindowKind.CALENDAR, "month")
    assert (budget.time_zone, budget.anchor_day) == ("Europe/Berlin", 15)
    assert (budget.mode, budget.hold_mode) == (Mode.HARD, HoldMode.STRICT)
    entry = AuditEntry.objects.get(action="budget.create")
    assert (entry.actor_label, entry.reason) == ("Acme Admin", "asked for by Rita")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"window": "lifetime"}, {"window_kind": "lifetime", "period": "", "anchor_day": 1}),
        (
            {"window": "rolling", "rolling_hours": "24"},
            {"window_kind": "rolling", "rolling_s": 86_400, "rolling_parts": 24},
        ),
        (
            {"window": "until", "ends_on": "2099-01-31T12:00"},
            {"window_kind": "until", "ends_at": datetime(2099, 1, 31, 12, tzinfo=UTC)},
        ),
        (
            {"window": "year", "anchor_month": "4", "rollover": "all"},
            {"period": "year", "anchor_month": 4, "anchor_day": 15, "rollover": "all"},
        ),
        (
            {"rollover": "capped", "rollover_amount": "20"},
            {"rollover": "capped", "rollover_amount": 20_000_000_000, "anchor_month": 1},
        ),
    ],
)
def test_every_window_has_its_fields(
    world: World, visitors: Visitors, changes: dict[str, str], expected: dict[str, Any]
) -> None:
    visitors.admin.post("/budgets/new/", wish(world, **changes))
    budget = Budget.objects.get()
    assert {name: getattr(budget, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"window": "rolling", "rolling_hours": "0"}, "rolling_hours", "greater than or equal"),
        ({"window": "until", "ends_on": ""}, "ends_on", "A window until a date needs its end."),
        ({"window": "until", "ends_on": "2020-01-01T00:00"}, "ends_on", "over already"),
        ({"rollover": "capped"}, "rollover_amount", "Say how much is carried at most."),
        ({"rollover": "capped", "rollover_amount": "x"}, "rollover_amount", "Write dollars"),
        ({"limit": "0"}, "limit", "The limit must be above zero."),
        ({"limit": "-3"}, "limit", "The limit must be above zero."),
        ({"limit": "1e"}, "limit", "Write dollars, like 25 or 0.01."),
        ({"limit": "0.0000000001"}, "limit", "Write dollars, like 25 or 0.01."),
        ({"limit": "99999999999"}, "limit", "Write dollars, like 25 or 0.01."),
        ({"unit_of_limit": "tokens", "limit": "1.5"}, "limit", "Write a whole number."),
        ({"name": ""}, "name", "This field is required."),
        ({"time_zone": "Mars/Olympus"}, "time_zone", "Mars/Olympus is no time zone"),
        ({"anchor_day": "31"}, "anchor_day", "less than or equal to 28"),
        ({"scope": "agent:00000000-0000-0000-0000-000000000000"}, "scope", "valid choice"),
        ({"per": "session"}, "per", "needs a hard budget"),
    ],
)
def test_a_wish_that_cannot_be_meant_is_told_at_its_field(
    world: World, visitors: Visitors, changes: dict[str, str], field: str, words: str
) -> None:
    response = visitors.owner.post("/budgets/new/", wish(world, **changes))
    assert response.status_code == 422
    assert words in " ".join(response.context["form"].errors[field])
    assert Budget.objects.count() == 0


def test_a_taken_name_is_told_at_the_name(world: World, visitors: Visitors) -> None:
    make_budget(world, name="Pocket money")
    response = visitors.owner.post("/budgets/new/", wish(world))
    assert response.context["form"].errors["name"] == ["Another budget is named 'Pocket money'."]


def test_a_lifetime_has_neither_zone_nor_anchor(world: World, visitors: Visitors) -> None:
    visitors.owner.post("/budgets/new/", wish(world, window="lifetime"))
    budget = Budget.objects.get()
    assert (budget.window_kind, budget.period, budget.time_zone) == ("lifetime", "", "UTC")


def test_a_soft_budget_holds_nothing(world: World, visitors: Visitors) -> None:
    visitors.owner.post("/budgets/new/", wish(world, mode="soft", hold_mode="metered"))
    assert Budget.objects.get().hold_mode == HoldMode.STRICT


def test_an_edit_changes_the_limit_only(world: World, visitors: Visitors) -> None:
    budget = make_budget(world)
    page = visitors.owner.get(f"/budgets/{budget.id}/edit/")
    assert page.context["form"].initial["limit"] == "1.00"
    changes = {"name": "Reader", "limit": "0.5", "mode": "hard", "hold_mode": "strict"}
    visitors.owner.post(f"/budgets/{budget.id}/edit/", changes)
    budget.refresh_from_db()
    assert (budget.limit_amount, budget.max_values) == (500_000_000, 10_000)


def test_an_archived_budget_leaves_the_tree(world: World, visitors: Visitors) -> None:
    budget = make_budget(world, name="Old money")
    visitors.owner.post(f"/budgets/{budget.id}/archive/", {"reason": "done"})
    assert "Old money" not in visitors.owner.get("/budgets/?archived=0").content.decode().replace(
        "Old money is archived", ""
    )
    assert "Old money" in visitors.owner.get("/budgets/?archived=1").content.decode()
    assert visitors.owner.get(f"/budgets/{budget.id}/edit/").status_code == 404


@pytest.mark.parametrize("path", ["/budgets/new/", "/budgets/{}/edit/", "/budgets/{}/archive/"])
def test_only_owners_and_admins_write(world: World, visitors: Visitors, path: str) -> None:
    address = path.format(make_budget(world).id)
    assert visitors.owner.get(address).status_code == 200
    assert visitors.admin.get(address).status_code == 200
    assert visitors.viewer.get(address).status_code == 403
    assert visitors.viewer.post(address, {}).status_code == 403
    assert visitors.nobody.get(address).headers["Location"] == f"/sign-in/?next={address}"


def test_strangers_see_neither_tree_nor_budget(world: World, visitors: Visitors) -> None:
    budget = make_budget(world, name="Secret plan")
    assert "Secret plan" not in visitors.stranger.get("/budgets/").content.decode()
    for path in (f"/budgets/{budget.id}/", f"/budgets/{budget.id}/edit/"):
        assert visitors.stranger.get(path).status_code == 404
    visitors.stranger.post(f"/budgets/{budget.id}/archive/", {"reason": "mine now"})
    budget.refresh_from_db()
    assert budget.archived_at is None


@pytest.mark.parametrize("count", [1, 3])
def test_the_tree_asks_as_often_for_three_budgets_as_for_one(
    world: World, visitors: Visitors, count: int, django_assert_num_queries: Queries
) -> None:
    for index in range(count):
        make_balance(make_budget(world, name=f"Budget {index}"), spent_amount=index)
    with django_assert_num_queries(14):
        assert visitors.viewer.get("/budgets/").status_code == 200


def test_the_tree_shows_the_nearest_cap_of_each_level(world: World, visitors: Visitors) -> None:
    make_balance(make_budget(world, name="Agent cap"), spent_amount=900_000_000)
    make_budget(
        world,
        name="Company cap",
        scope_kind=ScopeKind.ORGANIZATION,
        scope_id=world.organization.id,
        limit_amount=5_000_000_000,
    )
    rows = visitors.viewer.get("/budgets/").context["tree"]
    caps = {row.name: row.effective.free for row in rows if row.is_scope}
    assert caps == {
        "Acme": 5_000_000_000,
        "Research": 5_000_000_000,
        "Papers": 5_000_000_000,
        "Reader": 100_000_000,
    }


def test_a_split_budget_names_its_fullest_balance(world: World, visitors: Visitors) -> None:
    budget = make_budget(
        world,
        name="Each",
        scope_kind=ScopeKind.ORGANIZATION,
        scope_id=world.organization.id,
        per=Per.AGENT,
    )
    make_balance(budget, value=str(world.agent.id), spent_amount=10)
    make_balance(budget, value=str(world.loner.id), spent_amount=20)
    assert "each agent, fullest: Loner" in visitors.viewer.get("/budgets/").content.decode()


def test_the_csv_has_exact_amounts_and_no_formulas(world: World, visitors: Visitors) -> None:
    make_balance(make_budget(world, name="=1+1"), spent_amount=123_456_789)
    lines = visitors.viewer.get("/budgets/export.csv").content.decode().splitlines()
    assert lines[1].startswith("'=1+1,Agent Reader,none,hard,usd,lifetime,")
    assert lines[1].endswith(",1.00,0.123456789,0.00,0.00,0.00,0.876543211")


def test_a_fragment_is_the_tree_alone(world: World, visitors: Visitors) -> None:
    response = visitors.viewer.get("/budgets/", headers={"HX-Request": "true"})
    assert b"<html" not in response.content
    assert visitors.nobody.get("/budgets/", headers={"HX-Request": "true"}).status_code == 401


def test_pages_are_never_kept_by_caches(world: World, visitors: Visitors) -> None:
    assert "no-store" in visitors.viewer.get("/budgets/").headers["Cache-Control"]


def test_a_split_filtered_budget_is_created_as_the_form_says(
    world: World, visitors: Visitors
) -> None:
    form = wish(
        world,
        session="night run",
        per="tag",
        split_tag="task",
        filters="model = gemma*, toy\n\ntag:env = prod\nuser=ann",
        mode="soft",
        overflow="share",
        unit_of_limit="output_tokens",
        limit="5000",
    )
    response = visitors.admin.post("/budgets/new/", form)
    assert response.status_code == 302, response.content.decode()
    policy = Budget.objects.get().to_policy()
    assert (policy.scope_kind, policy.scope_session, policy.per) == (
        ScopeKind.SESSION,
        "night run",
        "tag:task",
    )
    assert policy.filters == {"model": ["gemma*", "toy"], "tag:env": ["prod"], "user": ["ann"]}
    assert (policy.unit, policy.limit) == (Unit.OUTPUT_TOKENS, 5_000)
    page = visitors.viewer.get(response.headers["Location"]).content.decode()
    assert "night run" in page
    assert "gemma*" in page


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"filters": "model"}, "as: model = gpt-4*, claude*"),
        ({"filters": "weather = rain"}, "No fact"),
        ({"session": "s1", "scope": "organization"}, "Choose the agent of this session"),
        ({"per": "tag", "split_tag": ""}, "Split by one of"),
    ],
)
def test_a_bad_scope_is_told_at_its_field(
    world: World, visitors: Visitors, changes: dict[str, str], words: str
) -> None:
    if changes.get("scope") == "organization":
        changes = {**changes, "scope": f"organization:{world.id}"}
    response = visitors.admin.post("/budgets/new/", wish(world, **changes))
    assert response.status_code == 422
    assert words in response.content.decode()


def test_the_page_that_explains(world: World, visitors: Visitors) -> None:
    budget = make_budget(world, unit=Unit.REQUESTS, limit_amount=5)
    url = f"/budgets/explain/?agent={world.agent.id}"
    assert "Let through" in visitors.viewer.get(url).content.decode()
    make_balance(budget, spent_amount=5)
    page = visitors.viewer.get(url).content.decode()
    assert "Refused" in page
    assert "is exhausted" in page
    assert visitors.viewer.get("/budgets/explain/").status_code == 200
    assert visitors.viewer.get(f"{url}&tags=x").status_code == 422
    empty = visitors.viewer.get(f"/budgets/explain/?agent={world.loner.id}").content.decode()
    assert "No budget counts this request" in empty


def test_a_change_is_planned_and_cancelled_by_page(world: World, visitors: Visitors) -> None:
    budget = make_budget(world, unit=Unit.TOKENS, limit_amount=1_000)
    url = f"/budgets/{budget.id}/changes/new/"
    assert "limit now" in visitors.admin.get(url).content.decode()
    form = {"kind": "increase", "amount": "500", "starts_at": "", "reason": "launch"}
    refused = visitors.admin.post(url, form)
    assert refused.status_code == 422
    assert "An increase needs an end." in refused.content.decode()
    ends = (timezone.now() + timedelta(days=3)).strftime("%Y-%m-%dT%H:%M")
    assert visitors.admin.post(url, form | {"ends_at": ends}).status_code == 302
    budget.refresh_from_db()
    assert budget.effective_limit == 1_500
    change = BudgetChange.objects.get()
    page = visitors.viewer.get(f"/budgets/{budget.id}/").content.decode()
    assert "Planned changes" in page
    assert ">500 tokens<" in page
    cancel = f"/budgets/{budget.id}/changes/{change.id}/cancel/"
    assert visitors.admin.get(cancel).status_code == 405
    for _ in range(2):
        assert visitors.admin.post(cancel).status_code == 302
    budget.refresh_from_db()
    assert budget.effective_limit == 1_000
