from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from django.utils import timezone

from budgets.domain.usage import book_refusals, book_usage
from controlplane.identity.ids import new_id
from controlplane.identity.models import Agent, AgentKey
from enforcement.domain.receiving import receive_calls
from enforcement.rules.policy import Mode, Per, ScopeKind
from enforcement.rules.reports.call import ReportedCall, Source, token_usage
from enforcement.rules.wire import Outcome, RefusalCount, UsageEvent
from tests.budgets.world import World, make_budget, ms
from tests.enforcement.dashboard.fleet import make_sidecar, make_spool, session
from tests.visitors import Visitors

Queries = Callable[[int], AbstractContextManager[Any]]


def call_now(world: World, agent: Agent, **changes: Any) -> None:
    now = timezone.now()
    event = UsageEvent(
        **{
            "id": str(new_id()),
            "agent": str(agent.id),
            "model": "gemma",
            "started_at_ms": ms(now),
            "outcome": Outcome.COMPLETED,
            "input_tokens": 100,
            "output_tokens": 20,
            "charge_nanos": 1_500,
            **changes,
        }
    )
    book_usage(organization_id=world.id, sidecar_id=None, events=[event], now=now)


def refuse_now(world: World, agent: Agent, count: int = 2) -> None:
    now = timezone.now()
    refusal = RefusalCount(
        id=str(new_id()),
        agent=str(agent.id),
        code="budget_exhausted",
        count=count,
        last_at_ms=ms(now),
        message="the day's limit is spent",
    )
    book_refusals(organization_id=world.id, refusals=[refusal], now=now)


def test_the_list_tells_what_each_agent_did_today(world: World, visitors: Visitors) -> None:
    make_spool(make_sidecar(world, "gpu"), sessions=[session(world, running=3)])
    call_now(world, world.agent)
    call_now(world, world.agent, outcome=Outcome.CUT)
    refuse_now(world, world.agent, count=4)
    rows = {row.slug: row for row in visitors.viewer.get("/agents/").context["agents"]}
    reader = rows["reader"]
    assert (reader.calls, reader.cut, reader.refused, reader.running) == (2, 1, 4, 3)
    assert (reader.tokens, reader.charge_nanos, reader.place) == (240, 3_000, "Research › Papers")
    assert (rows["loner"].calls, rows["loner"].place) == (0, "no team")


def test_the_list_is_searched_and_filtered(world: World, visitors: Visitors) -> None:
    Agent.objects.filter(slug="loner").update(state="paused")
    shown = [
        [row.slug for row in visitors.viewer.get(f"/agents/?{query}").context["agents"]]
        for query in ("", "q=READ", "state=paused", "q=read&state=paused", "state=nonsense")
    ]
    assert shown == [["loner", "reader"], ["reader"], ["loner"], [], ["loner", "reader"]]


@pytest.mark.parametrize("count", [1, 3])
def test_the_list_asks_as_often_for_three_agents_as_for_one(
    world: World, visitors: Visitors, count: int, django_assert_num_queries: Queries
) -> None:
    now = timezone.now()
    for index in range(count):
        agent = Agent.objects.create(
            organization=world.organization,
            team=world.team,
            project=world.project,
            slug=f"extra-{index}",
            name=f"Extra {index}",
            state_changed_at=now,
            created_at=now,
        )
        call_now(world, agent)
    with django_assert_num_queries(9):
        assert visitors.viewer.get("/agents/").status_code == 200


def test_the_page_shows_every_budget_that_a_call_is_charged_to(
    world: World, visitors: Visitors
) -> None:
    make_budget(world, name="Own")
    make_budget(
        world, name="Team", scope_kind=ScopeKind.TEAM, scope_id=world.team.id, mode=Mode.SOFT
    )
    make_budget(
        world, name="Each", scope_kind=ScopeKind.ORGANIZATION, scope_id=world.id, per=Per.AGENT
    )
    make_budget(world, name="Other", scope_id=world.loner.id)
    call_now(world, world.agent, charge_nanos=700_000_000)
    context = visitors.viewer.get(f"/agents/{world.agent.id}/").context
    rows = [(row.name, row.note, row.free) for row in context["budgets"]]
    assert rows == [
        ("Each", "Organization, each agent", 300_000_000),
        ("Own", "Agent Reader", 300_000_000),
        ("Team", "Team Research", 300_000_000),
    ]
    assert context["nearest"].name == "Each"


def test_the_page_lists_calls_and_refusals_with_their_reasons(
    world: World, visitors: Visitors
) -> None:
    budget = make_budget(world, name="Day")
    call_now(world, world.agent, outcome=Outcome.CUT, stopped_by=str(budget.id))
    refuse_now(world, world.agent)
    calls = visitors.viewer.get(f"/agents/{world.agent.id}/").context["calls"]
    assert {(row.outcome, row.reason, row.count) for row in calls} == {
        ("cut", "Day: the budget could not be extended", 1),
        ("refused", "the day's limit is spent", 2),
    }


def test_the_page_marks_calls_that_nobody_metered(world: World, visitors: Visitors) -> None:
    now = timezone.now()
    usage = token_usage(input_tokens=7, output_tokens=3)
    told = ReportedCall(Source.WEBHOOK, "c", "gemma", ms(now), usage, (world.agent.slug,))
    receive_calls(organization_id=world.id, source=Source.WEBHOOK, calls=[told], now=now)
    call_now(world, world.agent)
    page = visitors.viewer.get(f"/agents/{world.agent.id}/")
    flags = {(row.input_tokens, row.flag) for row in page.context["calls"]}
    assert flags == {(7, "reported"), (100, "")}
    assert page.content.decode().count('<span class="tag">reported</span>') == 1


@pytest.mark.parametrize("count", [1, 3])
def test_the_page_asks_as_often_for_three_of_all_as_for_one(
    world: World, visitors: Visitors, count: int, django_assert_num_queries: Queries
) -> None:
    for index in range(count):
        make_budget(world, name=f"Budget {index}")
        call_now(world, world.agent)
        refuse_now(world, world.agent)
        make_spool(make_sidecar(world, f"gpu-{index}"), sessions=[session(world)])
    with django_assert_num_queries(24):
        assert visitors.viewer.get(f"/agents/{world.agent.id}/").status_code == 200


def test_an_agent_is_created_where_the_form_says(world: World, visitors: Visitors) -> None:
    wish = {
        "name": "Night shift",
        "slug": "night-shift",
        "team": str(world.team.id),
        "project": str(world.project.id),
        "owner": "",
        "requests_per_minute": "60",
        "tokens_per_minute": "",
    }
    assert visitors.admin.post("/agents/new/", wish).status_code == 302
    agent = Agent.objects.get(slug="night-shift")
    assert (agent.team, agent.project, agent.owner) == (world.team, world.project, None)
    assert (agent.requests_per_minute, agent.tokens_per_minute) == (60, None)

    again = visitors.admin.post("/agents/new/", wish)
    assert again.status_code == 422
    assert "slug" in again.context["form"].errors


def test_an_edit_keeps_the_slug(world: World, visitors: Visitors) -> None:
    wish = {"name": "Reader two", "slug": "stolen", "team": "", "project": "", "owner": ""}
    visitors.owner.post(f"/agents/{world.agent.id}/edit/", wish)
    world.agent.refresh_from_db()
    assert (world.agent.name, world.agent.slug) == ("Reader two", "reader")


def test_a_key_is_shown_once_and_only_on_its_own_page(world: World, visitors: Visitors) -> None:
    visitors.owner.post(f"/agents/{world.agent.id}/keys/", {"name": "laptop"})
    fragment = visitors.owner.get(f"/agents/{world.agent.id}/", headers={"HX-Request": "true"})
    other = visitors.owner.get(f"/agents/{world.loner.id}/")
    page = visitors.owner.get(f"/agents/{world.agent.id}/")
    again = visitors.owner.get(f"/agents/{world.agent.id}/")
    shown = [b"cmp_" in answer.content for answer in (fragment, other, page, again)]
    assert shown == [False, False, True, False]


def test_a_key_is_revoked_on_the_page_of_its_own_agent(world: World, visitors: Visitors) -> None:
    visitors.owner.post(f"/agents/{world.agent.id}/keys/", {"name": "laptop"})
    key = AgentKey.objects.get()
    wrong = visitors.owner.post(f"/agents/{world.loner.id}/keys/{key.id}/revoke/")
    assert wrong.status_code == 404
    visitors.owner.post(f"/agents/{world.agent.id}/keys/{key.id}/revoke/")
    key.refresh_from_db()
    assert key.revoked_at is not None


def test_viewers_look_and_strangers_find_nothing(world: World, visitors: Visitors) -> None:
    page = f"/agents/{world.agent.id}/"
    assert [c.get(page).status_code for c in (visitors.viewer, visitors.stranger)] == [200, 404]
    for path in (f"{page}keys/", f"{page}edit/", f"{page}kill/", "/agents/new/"):
        assert visitors.viewer.post(path, {"name": "x", "reason": "x"}).status_code == 403
    for path in (f"{page}keys/", f"{page}edit/", f"{page}kill/"):
        assert visitors.stranger.post(path, {"name": "x", "reason": "x"}).status_code == 404
    assert AgentKey.objects.count() == 0


def test_the_csv_has_every_agent(world: World, visitors: Visitors) -> None:
    call_now(world, world.agent)
    lines = visitors.viewer.get("/agents/export.csv").content.decode().splitlines()
    assert lines[1].startswith("Loner,loner,no team,active,,0,0,0,0,0.00,")
    assert lines[2].startswith("Reader,reader,Research › Papers,active,,1,0,0,120,0.0000015,")


def test_a_retired_agent_leaves_the_list_and_keeps_its_page(
    world: World, visitors: Visitors
) -> None:
    visitors.owner.post(f"/agents/{world.agent.id}/keys/", {"name": "laptop"})
    path = f"/agents/{world.agent.id}/retire/"
    assert visitors.viewer.post(path, {"reason": "old"}).status_code == 403
    assert visitors.owner.post(path, {"reason": ""}).status_code == 422
    visitors.owner.post(path, {"reason": "replaced"})
    rows = visitors.viewer.get("/agents/").context["agents"]
    assert [row.slug for row in rows] == ["loner"]
    page = visitors.owner.get(f"/agents/{world.agent.id}/")
    assert page.context["state"] == "retired"
    assert b"Issue key" not in page.content
    assert AgentKey.objects.get().revoked_at is not None
