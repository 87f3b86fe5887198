"""The page of efficiency: figures, nodes, who the cost was for, and what an empty one says."""

from datetime import timedelta

import pytest
from django.utils import timezone

from controlplane.audit.domain import Actor
from enforcement.domain.nodecosts import record_cost
from enforcement.models import NodeActivity, NodeUsage
from tests.budgets.world import World, make_world
from tests.enforcement.dashboard.fleet import make_node
from tests.visitors import Visitors


def work(world: World, name: str = "gpu-a") -> None:
    """An hour of two dollars, a quarter of it busy, with a thousand tokens that nobody metered."""
    hour = timezone.now().replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    node = make_node(world, name, created_at=hour)
    for valid_from, nanos in ((hour, 2_000_000_000), (hour + timedelta(hours=1), 0)):
        record_cost(
            organization_id=world.id,
            node_id=node.pk,
            cost_per_hour_nanos=nanos,
            valid_from=valid_from,
            actor=Actor.system("test"),
            now=timezone.now(),
        )
    NodeActivity.objects.create(
        node=node, hour=hour, busy_ms=900_000, idle_ms=2_700_000, running_ms=1_800_000
    )
    NodeUsage.objects.create(node=node, hour=hour, prompt_tokens=900, generation_tokens=100)


def test_a_node_and_its_charges_are_shown(world: World, visitors: Visitors) -> None:
    work(world)
    text = " ".join(visitors.viewer.get("/efficiency/").content.decode().split())
    for shown in ("$2.00", "$1.50", "75 % of the cost", "$2,000.00", ">500<", "25 %", "2.0"):
        assert shown in text
    for line in ("idle", "unmetered", "add up to the cost exactly"):
        assert line in text


def test_an_empty_page_says_what_will_stand_there(visitors: Visitors) -> None:
    assert "Nothing to tell yet" in visitors.viewer.get("/efficiency/").content.decode()


@pytest.mark.parametrize(
    ("query", "window"),
    [("", "the last 24 hours"), ("?days=7", "the last 7 days"), ("?days=x", "the last 24 hours")],
)
def test_the_time_is_chosen(world: World, visitors: Visitors, query: str, window: str) -> None:
    work(world)
    work(make_world("stranger"), "gpu-b")
    shown = visitors.viewer.get(f"/efficiency/{query}").context
    assert (shown["window"], [node.node for node in shown["nodes"]]) == (window, ["gpu-a"])


def test_the_chargeback_is_had_as_csv(world: World, visitors: Visitors) -> None:
    work(world)
    lines = visitors.viewer.get("/efficiency/export.csv?days=7").content.decode().splitlines()
    assert lines == [
        "node,line,agent,model,nanos,tokens",
        "gpu-a,idle,,,1500000000,0",
        "gpu-a,unmetered,,,500000000,0",
    ]
