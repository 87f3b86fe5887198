"""Efficiency over the REST API."""

from datetime import timedelta

from django.utils import timezone

from controlplane.audit.domain import Actor
from enforcement.domain.nodecosts import record_cost
from enforcement.models import NodeActivity, NodeUsage, ServingNode
from tests.controlplane.world import Api, World


def test_nodes_are_told_with_their_charges(world: World, viewer: Api, foreigner: Api) -> None:
    now = timezone.now()
    hour = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    node = ServingNode.objects.create(
        organization=world.organization, name="gpu-a", base_url="http://a", created_at=hour
    )
    actor = Actor.system("test")
    record_cost(
        organization_id=world.id,
        node_id=node.pk,
        cost_per_hour_nanos=2_000_000_000,
        valid_from=hour,
        actor=actor,
        now=now,
    )
    NodeActivity.objects.create(
        node=node, hour=hour, busy_ms=900_000, idle_ms=2_700_000, running_ms=1_800_000
    )
    NodeUsage.objects.create(
        node=node, hour=hour, prompt_tokens=900, cached_tokens=90, generation_tokens=100
    )
    window = f"since={hour:%Y-%m-%dT%H:%M:%SZ}&until={hour + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    (row,) = viewer.call("GET", f"efficiency?{window}").json()
    assert row["charges"] == [
        {"line": "idle", "agent": "", "model": "", "cost": "1.50", "tokens": 0},
        {"line": "unmetered", "agent": "", "model": "", "cost": "0.50", "tokens": 0},
    ]
    del row["charges"], row["node"]
    assert row == {
        "node_name": "gpu-a",
        "engine": "unknown",
        "cost": "2.00",
        "idle_cost": "1.50",
        "unpriced_ms": 0,
        "produced": {"prompt": 900, "cached": 90, "generation": 100},
        "tokens_per_usd": 500,
        "per_million_tokens": "2000.00",
        "energy_millijoules": None,
        "energy_source": "unknown",
        "millijoules_per_token": None,
        "busy_ms": 900_000,
        "idle_ms": 2_700_000,
        "unread_ms": 0,
        "busy_permille": 250,
        "prefill_permille": None,
        "cached_permille": 100,
        "milli_at_once": 2_000,
        "models": [],
    }
    assert foreigner.call("GET", f"efficiency?{window}").json() == []


def test_a_window_that_makes_no_sense_is_refused(viewer: Api) -> None:
    assert viewer.call("GET", "efficiency?since=2020-01-01T00:00:00Z").status_code == 400
    assert viewer.call("GET", "efficiency?sinse=2020-01-01T00:00:00Z").status_code == 400
