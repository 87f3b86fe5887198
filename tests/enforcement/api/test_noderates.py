"""Rates that are measured, over the REST API."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from budgets.models import PriceVersion
from enforcement.domain.nodecosts import record_cost
from enforcement.models import NodeUsage, ServingNode
from tests.controlplane.world import ACTOR, Api, World

HOUR = timedelta(hours=1)
PATH = "prices/measure"


@pytest.fixture
def end() -> datetime:
    return timezone.now().replace(minute=0, second=0, microsecond=0)


@pytest.fixture
def wish(end: datetime) -> dict[str, Any]:
    return {
        "model": "llama",
        "since": (end - 2 * HOUR).isoformat(),
        "until": end.isoformat(),
    }


@pytest.fixture
def node(world: World, end: datetime) -> ServingNode:
    """Two dollars in two hours, for a million weighed tokens."""
    start = end - 2 * HOUR
    node = ServingNode.objects.create(
        organization=world.organization,
        name="gpu-a",
        base_url="http://a",
        models=["llama"],
        created_at=start,
    )
    record_cost(
        organization_id=world.id,
        node_id=node.pk,
        cost_per_hour_nanos=10**9,
        valid_from=start,
        actor=ACTOR,
        now=timezone.now(),
    )
    NodeUsage.objects.create(
        node=node, hour=start, prompt_tokens=600_000, generation_tokens=100_000
    )
    return node


def test_rates_are_told_then_applied(node: ServingNode, admin: Api, wish: dict[str, Any]) -> None:
    told = admin.call("POST", PATH, wish).json()
    assert told | {"evidence": None} == {
        "model": "llama",
        "input_per_mtok": "2.00",
        "cached_input_per_mtok": "0.20",
        "cache_write_per_mtok": "2.00",
        "output_per_mtok": "8.00",
        "jumps": [],
        "evidence": None,
        "price_version": None,
    }
    assert told["evidence"]["nodes"][0]["idle_hours"] == 1
    assert PriceVersion.objects.count() == 0
    body = wish | {"apply": True, "reason": "May", "answer_per_mille": 14_000}
    applied = admin.call("POST", PATH, body, Idempotency_Key="k").json()
    version = PriceVersion.objects.get()
    assert applied["price_version"] == str(version.pk)
    assert (version.source, version.evidence) == ("measured", applied["evidence"])
    assert applied["output_per_mtok"] == "14.00"
    again = admin.call("POST", PATH, body, Idempotency_Key="k")
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (applied, "true")
    assert PriceVersion.objects.count() == 1


def test_a_jump_is_taken_only_when_it_is_confirmed(
    node: ServingNode, admin: Api, wish: dict[str, Any]
) -> None:
    admin.call("POST", PATH, wish | {"apply": True})
    NodeUsage.objects.update(prompt_tokens=999_600_000)
    dear = wish | {"apply": True}
    assert admin.call("POST", PATH, wish).json()["jumps"][0] == "input falls from $2.00 to $0.002"
    answer = admin.call("POST", PATH, dear)
    assert (answer.status_code, PriceVersion.objects.count()) == (422, 1)
    assert answer.json()["detail"].startswith("confirm that this is meant: input falls")
    assert admin.call("POST", PATH, dear | {"confirm": True}).status_code == 200
    assert PriceVersion.objects.filter(valid_to=None).get().input_nanos_per_mtok == 2_000_000


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"model": "gemma"}, 422, "no node serves 'gemma'"),
        ({"since": "2026-05-01T00:30:00Z"}, 422, "name whole hours"),
        ({"since": "0001-01-01T00:00:00Z"}, 422, "at most 92 days"),
        ({"since": "yesterday"}, 400, "wrong format"),
        ({"answer_per_mille": 0}, 422, "weighs more than 0"),
        ({"answer_per_mille": 2**80}, 422, "weighs more than 0"),
        ({"cached_per_mille": -1}, 422, "weighs 0 to 1"),
        ({"weight": 4}, 400, "unknown field"),
        ({"model": ""}, 400, "may not be blank"),
    ],
)
def test_what_cannot_be_measured_is_told(
    node: ServingNode,
    admin: Api,
    wish: dict[str, Any],
    changes: dict[str, Any],
    status: int,
    words: str,
) -> None:
    answer = admin.call("POST", PATH, wish | {"apply": True} | changes)
    assert answer.status_code == status
    assert words in answer.content.decode()
    assert PriceVersion.objects.count() == 0


def test_nodes_of_others_are_unknown(
    node: ServingNode, foreigner: Api, wish: dict[str, Any]
) -> None:
    answer = foreigner.call("POST", PATH, wish)
    assert (answer.status_code, answer.json()["detail"]) == (422, "no node serves 'llama'")
