"""Serving nodes over the REST API."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from controlplane.audit.models import AuditEntry
from controlplane.identity.models import Organization
from enforcement.domain.nodecosts import costs_of
from enforcement.domain.policy import compile_policy
from enforcement.models import NodeCost, NodeSample, NodeUsage, ServingNode
from enforcement.rules.nodecost import cost_at
from tests.controlplane.world import UNKNOWN, Api, World

ADDRESS = "http://gpu-a.example:8000"


@pytest.fixture
def node(world: World) -> ServingNode:
    return ServingNode.objects.create(
        organization=world.organization,
        name="gpu-a",
        base_url=ADDRESS,
        metrics_path="/metrics",
        engine="vllm",
        models=["gemma"],
        created_at=timezone.now(),
    )


def test_a_node_is_entered_and_read_back(world: World, admin: Api, viewer: Api) -> None:
    revision = world.organization.policy_revision
    made = admin.call("POST", "nodes", {"name": "gpu-b", "base_url": f"{ADDRESS}/v1/"})
    assert made.status_code == 201
    body = made.json()
    assert body == {
        "id": body["id"],
        "name": "gpu-b",
        "sidecar": None,
        "base_url": f"{ADDRESS}/v1",
        "engine": "unknown",
        "engine_version": "",
        "provider": "",
        "models": [],
        "context_window": None,
        "metrics_path": "/metrics",
        "state": "active",
        "labels": {},
        "by_hand": True,
        "removed_at": None,
        "patience_s": 0,
        "created_at": body["created_at"],
        "last_scraped_at": None,
        "last_error": "",
        "warning": "",
    }
    assert viewer.call("GET", f"nodes/{body['id']}").json() == body
    assert Organization.objects.get(pk=world.id).policy_revision == revision + 1
    entry = AuditEntry.objects.get(action="node.create")
    assert (entry.object_id, entry.actor_label) == (body["id"], "admin")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"name": "gpu-a", "base_url": ADDRESS}, 409, "a node named 'gpu-a' exists"),
        ({"name": "x", "base_url": "gpu"}, 422, "base_url begins with http:// or https://"),
        ({"name": "x", "base_url": "file:///etc"}, 422, "base_url begins with http://"),
        ({"name": "x", "base_url": "http://u:p@h"}, 422, "neither user, nor query"),
        ({"name": "x", "base_url": "http://h:99999"}, 422, "base_url is no URL"),
        ({"name": "x", "base_url": "http://169.254.169.254"}, 422, "metadata service"),
        ({"name": "x", "base_url": "http://2852039166/"}, 422, "metadata service"),
        ({"name": "x", "base_url": "http://[::ffff:100.100.100.200]"}, 422, "metadata service"),
        ({"name": "x", "base_url": "http://0:8000"}, 422, "that of no machine"),
        ({"name": "x", "base_url": "HTTP://GPU-A.example.:8000/"}, 409, "'gpu-a' is read at this"),
        ({"name": "x", "base_url": ADDRESS, "metrics_path": "m"}, 422, "begins with a slash"),
        ({"name": "x", "base_url": ADDRESS, "nmae": "y"}, 400, "unknown field"),
        ({"base_url": ADDRESS}, 400, "required"),
    ],
)
def test_what_cannot_be_a_node_is_refused_with_a_reason(
    node: ServingNode, admin: Api, body: dict[str, str], status: int, words: str
) -> None:
    answer = admin.call("POST", "nodes", body)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert words in answer.content.decode()
    assert ServingNode.objects.count() == 1


def test_a_node_is_drained_taken_back_and_removed(
    world: World, node: ServingNode, admin: Api
) -> None:
    revision = world.organization.policy_revision
    for verb, state in (("drain", "draining"), ("activate", "active"), ("remove", "gone")):
        answer = admin.call("POST", f"nodes/{node.pk}/{verb}", {"reason": f"to {verb}"})
        assert (answer.status_code, answer.json()["state"]) == (200, state)
        policy = compile_policy(organization_id=world.id, now=timezone.now())
        assert policy.draining == ([] if state == "active" else ["gpu-a"])
        assert policy.revision > revision
        revision = policy.revision
    again = admin.call("POST", f"nodes/{node.pk}/remove", {})
    assert (again.status_code, again.json()["detail"]) == (409, "the node is gone already")
    entries = AuditEntry.objects.filter(object_kind="node").order_by("id")
    assert [(entry.action, entry.reason) for entry in entries] == [
        ("node.draining", "to drain"),
        ("node.active", "to activate"),
        ("node.gone", "to remove"),
    ]


H100 = {
    "cost_per_hour": "2.49",
    "valid_from": "2026-05-01T00:00:00.000000Z",
    "accelerator": "NVIDIA H100",
    "accelerator_count": 2,
    "watts": 1500,
    "reason": "the contract",
}


def test_costs_are_recorded_corrected_and_all_kept(
    node: ServingNode, admin: Api, viewer: Api
) -> None:
    made = admin.call("POST", f"nodes/{node.pk}/costs", H100)
    assert made.status_code == 201
    body = made.json()
    assert body == {
        **H100,
        "recorded_by": "admin",
        "recorded_at": body["recorded_at"],
    }
    corrected = admin.call("POST", f"nodes/{node.pk}/costs", {**H100, "cost_per_hour": "2.5"})
    rows = viewer.call("GET", f"nodes/{node.pk}/costs").json()["results"]
    assert rows == [corrected.json(), body]
    cost = cost_at(costs_of([node.pk])[node.pk], timezone.now())
    assert cost is not None
    assert cost.cost_per_hour_nanos == 2_500_000_000
    entry = AuditEntry.objects.filter(action="node.cost").order_by("id")[0]
    assert (entry.object_id, entry.reason) == (str(node.pk), "the contract")
    assert entry.after == {
        "valid_from": "2026-05-01T00:00:00+00:00",
        "cost_per_hour": "2.49",
        "accelerator": "2 x NVIDIA H100",
        "watts": "1500",
    }


def test_a_cost_without_a_date_holds_from_now_on(node: ServingNode, admin: Api) -> None:
    before = timezone.now()
    body = admin.call("POST", f"nodes/{node.pk}/costs", {"cost_per_hour": "0.35"}).json()
    assert before <= datetime.fromisoformat(body["valid_from"]) <= timezone.now()
    assert (body["accelerator"], body["accelerator_count"], body["watts"]) == ("", 0, None)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"cost_per_hour": "-1"}, 422, "cost_per_hour is $0 to $100000.00"),
        ({"cost_per_hour": "100000.01"}, 422, "cost_per_hour is $0 to $100000.00"),
        ({"cost_per_hour": 2.49}, 400, "a decimal string"),
        ({"cost_per_hour": "NaN"}, 400, "not an amount in dollars"),
        ({"accelerator": "H100"}, 422, "given together"),
        ({"accelerator_count": 1}, 422, "given together"),
        ({"accelerator": "H100", "accelerator_count": -1}, 422, "given together"),
        ({"accelerator": "H100", "accelerator_count": 10_001}, 422, "accelerator_count is 0 to"),
        ({"watts": 0}, 422, "watts is 1 to 10000000"),
        ({"valid_from": "2019-01-01T00:00:00Z"}, 422, "five years back"),
        ({"valid_from": "2039-01-01T00:00:00Z"}, 422, "one year ahead"),
        ({"price": "1"}, 400, "unknown field"),
    ],
)
def test_a_cost_that_cannot_be_true_is_refused(
    node: ServingNode, admin: Api, body: dict[str, Any], status: int, words: str
) -> None:
    answer = admin.call("POST", f"nodes/{node.pk}/costs", {"cost_per_hour": "1.00", **body})
    assert (answer.status_code, words in answer.content.decode()) == (status, True)
    assert not NodeCost.objects.exists()


def test_labels_are_replaced_and_told_to_the_audit_trail(node: ServingNode, admin: Api) -> None:
    for labels in ({"rack": "7", "zone": "b"}, {"rack": ""}):
        answer = admin.call("PUT", f"nodes/{node.pk}/labels", {"labels": labels})
        assert (answer.status_code, answer.json()["labels"]) == (200, labels)
    entry = AuditEntry.objects.filter(action="node.label").order_by("-id")[0]
    assert (entry.before, entry.after) == ({"labels": "rack=7, zone=b"}, {"labels": "rack="})
    many = {f"l{number}": "x" for number in range(33)}
    for labels in (many, {"": "x"}, {"a b": "x"}, {"a" * 64: "x"}, {"a": "x" * 201}):
        assert admin.call("PUT", f"nodes/{node.pk}/labels", {"labels": labels}).status_code == 422


def test_patience_with_a_node_is_bounded(node: ServingNode, admin: Api, viewer: Api) -> None:
    path = f"nodes/{node.pk}/patience"
    assert admin.call("PUT", path, {"patience_s": 3_600}).json()["patience_s"] == 3_600
    assert admin.call("PUT", path, {"patience_s": -1}).status_code == 422
    assert viewer.call("PUT", path, {"patience_s": 1}).status_code == 403
    entry = AuditEntry.objects.get(action="node.change")
    assert (entry.before, entry.after) == ({"patience_s": "0"}, {"patience_s": "3600"})


def test_samples_come_youngest_first_in_pages(node: ServingNode, viewer: Api) -> None:
    now = timezone.now()
    for number in range(3):
        NodeSample.objects.create(
            node=node,
            at=now - timedelta(seconds=5 * number),
            prompt_tokens_total=10,
            generation_tokens_total=3 - number,
        )
    page = viewer.call("GET", f"nodes/{node.pk}/samples?page_size=2").json()
    assert [row["generation_tokens_total"] for row in page["results"]] == [3, 2]
    assert page["next"] is not None
    assert viewer.call("GET", f"nodes/{node.pk}/samples?nope=1").status_code == 400


def test_unattributed_tells_both_sides_their_cause_and_hours(
    node: ServingNode, viewer: Api
) -> None:
    now = timezone.now()
    hour = now.replace(minute=0, second=0, microsecond=0)
    ServingNode.objects.filter(pk=node.pk).update(last_scraped_at=now)
    for at in (now - timedelta(days=2), now):
        NodeSample.objects.create(
            node=node, at=at, prompt_tokens_total=0, generation_tokens_total=900
        )
    NodeUsage.objects.create(node=node, hour=hour, prompt_tokens=70, generation_tokens=900)
    body = viewer.call("GET", f"nodes/{node.pk}/unattributed").json()
    assert (body["node"], body["node_name"]) == (str(node.pk), "gpu-a")
    assert body["produced"] == {"prompt": 70, "cached": 0, "generation": 900}
    assert body["metered"] == {"prompt": 0, "cached": 0, "generation": 0}
    assert body["unattributed"] == body["produced"]
    assert body["cause"] == "Calls reach this engine without passing a sidecar."
    assert [row["produced"]["generation"] for row in body["hours"]] == [900]
    (row,) = viewer.call("GET", "nodes/unattributed").json()
    assert {**row, "hours": body["hours"], "until": body["until"]} == body


@pytest.mark.parametrize(
    "window",
    ["since=2026-05-01T00:00:00Z&until=2026-05-01T00:00:00Z", "since=2020-01-01T00:00:00Z", "x=1"],
)
def test_a_window_that_makes_no_sense_is_refused(
    node: ServingNode, viewer: Api, window: str
) -> None:
    for path in (f"nodes/{node.pk}/unattributed", "nodes/unattributed"):
        assert viewer.call("GET", f"{path}?{window}").status_code == 400


def test_strangers_find_nothing(node: ServingNode, foreigner: Api, viewer: Api) -> None:
    paths = ("", "/samples", "/costs", "/unattributed")
    for path in paths:
        assert foreigner.call("GET", f"nodes/{node.pk}{path}").status_code == 404
        assert viewer.call("GET", f"nodes/{UNKNOWN}{path}").status_code == 404
    assert foreigner.call("POST", f"nodes/{node.pk}/drain", {}).status_code == 404
    assert foreigner.call("POST", f"nodes/{node.pk}/costs", H100).status_code == 404
    assert foreigner.call("GET", "nodes").json()["results"] == []
    assert foreigner.call("GET", "nodes/unattributed").json() == []
    node.refresh_from_db()
    assert node.state == "active"


def test_viewers_change_nothing(node: ServingNode, viewer: Api) -> None:
    answers: list[Any] = [viewer.call("POST", "nodes", {"name": "x", "base_url": ADDRESS})]
    answers.append(viewer.call("POST", f"nodes/{node.pk}/costs", H100))
    answers += [
        viewer.call("POST", f"nodes/{node.pk}/{verb}", {})
        for verb in ("drain", "activate", "remove")
    ]
    assert [answer.status_code for answer in answers] == [403] * 5
