from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from controlplane.identity.domain import authenticate_token
from controlplane.identity.enums import TokenKind
from enforcement.models import NodeSample, NodeUsage, Sidecar
from tests.budgets.world import World
from tests.enforcement.dashboard.fleet import make_node, make_sidecar, make_spool
from tests.enforcement.dashboard.test_agent_pages import call_now
from tests.visitors import Visitors

Queries = Callable[[int], AbstractContextManager[Any]]


def produce(node: Any, tokens: int) -> None:
    """What the node's counters say of this hour, besides the prompts of one call."""
    now = timezone.now()
    NodeSample.objects.create(
        node=node,
        at=now - timedelta(days=2),
        prompt_tokens_total=0,
        generation_tokens_total=0,
    )
    NodeUsage.objects.create(
        node=node,
        hour=now.replace(minute=0, second=0, microsecond=0),
        prompt_tokens=100,
        generation_tokens=tokens,
    )


def test_what_the_engine_made_stands_beside_what_was_metered(
    world: World, visitors: Visitors
) -> None:
    produce(make_node(world, "gpu-a"), 20)
    produce(make_node(world, "gpu-b"), 900)
    call_now(world, world.agent, node="gpu-a")
    call_now(world, world.agent, node="gpu-b")
    rows = visitors.viewer.get("/nodes/").context["nodes"]
    assert [(row.name, row.produced, row.metered, row.unattributed) for row in rows] == [
        ("gpu-a", 20, 20, 0),
        ("gpu-b", 900, 20, 880),
    ]
    assert [row.cause for row in rows] == [
        "",
        "Calls reach this engine without passing a sidecar.",
    ]
    assert rows[1].unattributed_text == "880 · 97 %"


def test_the_state_of_a_node_tells_what_is_wrong(world: World, visitors: Visitors) -> None:
    make_node(world, "a")
    make_node(world, "b", last_error="connection refused")
    make_node(world, "c", last_scraped_at=None)
    make_node(world, "d", state="draining")
    rows = visitors.viewer.get("/nodes/").context["nodes"]
    assert [row.state for row in rows] == ["active", "failing", "unscraped", "draining"]


def test_a_node_at_the_edge_is_away_before_it_fails(world: World, visitors: Visitors) -> None:
    now = timezone.now()
    for name, silent_s in (("a", 3_500), ("b", 3_700)):
        seen = now - timedelta(seconds=silent_s)
        make_node(world, name, last_error="gone", last_scraped_at=seen, patience_s=3_600)
    rows = visitors.viewer.get("/nodes/").context["nodes"]
    assert [row.state for row in rows] == ["away", "failing"]


def test_the_link_of_a_sidecar_is_told_by_its_silence(world: World, visitors: Visitors) -> None:
    now = timezone.now()
    for name, silent in (("a", 1), ("b", 30), ("c", 600)):
        seen = now - timedelta(seconds=silent)
        sidecar = make_sidecar(world, name, last_seen_at=seen)
        valid_until = seen + timedelta(seconds=40)
        make_spool(sidecar, last_sync_at=seen, policy_valid_until=valid_until, policy_revision=1)
    make_sidecar(world, "d", last_seen_at=None)
    rows = visitors.viewer.get("/nodes/").context["sidecars"]
    assert [row.link for row in rows] == ["online", "late", "offline", "never"]
    assert [bool(row.blind) for row in rows] == [True, True, False, False]


@pytest.mark.parametrize("count", [1, 3])
def test_the_page_asks_as_often_for_three_nodes_as_for_one(
    world: World, visitors: Visitors, count: int, django_assert_num_queries: Queries
) -> None:
    for index in range(count):
        make_spool(make_sidecar(world, f"sidecar-{index}"))
        produce(make_node(world, f"gpu-{index}"), 10)
    with django_assert_num_queries(15):
        assert visitors.viewer.get("/nodes/").status_code == 200


def test_the_token_of_a_sidecar_is_shown_with_its_command(world: World, visitors: Visitors) -> None:
    page = visitors.admin.post("/sidecars/new/", {"name": "gpu-1"})
    token = page.context["token"]
    assert f"COMPTROLLER_SIDECAR_TOKEN={token}" in page.content.decode()
    found = authenticate_token(token, kind=TokenKind.SIDECAR, now=timezone.now())
    assert found.organization_id == world.id

    again = visitors.admin.post("/sidecars/new/", {"name": "gpu-1"})
    assert again.context["form"].errors["name"] == ["Another sidecar has this name."]


def test_viewers_enrol_nothing_and_strangers_see_nothing(world: World, visitors: Visitors) -> None:
    make_node(world, "gpu-secret")
    assert visitors.viewer.post("/sidecars/new/", {"name": "mine"}).status_code == 403
    assert Sidecar.objects.count() == 0
    for path in ("/nodes/", "/nodes/export.csv"):
        assert "gpu-secret" in visitors.viewer.get(path).content.decode()
        assert "gpu-secret" not in visitors.stranger.get(path).content.decode()


def test_a_revoked_sidecar_is_no_longer_waited_for(world: World, visitors: Visitors) -> None:
    sidecar = make_sidecar(world, "gpu", last_seen_at=timezone.now() - timedelta(hours=1))
    path = f"/sidecars/{sidecar.id}/revoke/"
    assert visitors.viewer.post(path).status_code == 403
    assert visitors.stranger.post(path).status_code == 404
    assert visitors.owner.post(path).status_code == 302
    assert visitors.viewer.get("/").context["links"].all == 0
    assert visitors.viewer.get("/nodes/").context["sidecars"][0].is_revoked
