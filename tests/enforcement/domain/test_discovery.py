"""Nodes that a place names."""

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from controlplane.audit.models import AuditEntry
from enforcement.domain.discovery import Discovered, discover
from enforcement.domain.nodes import create_node, set_labels, set_node_state
from enforcement.domain.places import PlaceError
from enforcement.enums import NodeState
from enforcement.models import ServingNode
from enforcement.rules.targetfile import targets_of
from enforcement.tasks import discover_nodes
from tests.budgets.world import ACTOR, NOW, World, make_world


@pytest.fixture
def world(db: None) -> World:
    return make_world()


def found(world: World, *hosts: str, place: str = "/etc/nodes.yaml", **labels: str) -> Discovered:
    targets = targets_of([{"targets": list(hosts), "labels": labels}])
    return discover(organization_id=world.id, place=place, targets=targets, actor=ACTOR, now=NOW)


def states() -> dict[str, str]:
    return dict(ServingNode.objects.order_by("name").values_list("name", "state"))


def test_nodes_come_change_go_and_come_back(world: World) -> None:
    assert found(world, "a:1", "b:1", rack="7").entered == ["a:1", "b:1"]
    node = ServingNode.objects.get(name="a:1")
    assert node.labels == {"rack": "7", "comptroller/source": "/etc/nodes.yaml"}
    assert found(world, "a:1", "b:1", rack="7") == Discovered(kept=["a:1", "b:1"])
    assert found(world, "a:1", rack="8") == Discovered(changed=["a:1"], gone=["b:1"])
    assert states() == {"a:1": "active", "b:1": "gone"}
    assert found(world, "b:1").changed == ["b:1"]
    assert states() == {"a:1": "gone", "b:1": "active"}
    assert AuditEntry.objects.filter(action="node.change").count() == 4


def test_what_belongs_to_people_is_left_alone(world: World) -> None:
    who: dict[str, Any] = {"organization_id": world.id, "actor": ACTOR, "now": NOW}
    create_node(name="a:1", base_url="http://mine:1", **who)
    found(world, "b:1", "c:1")
    theirs = ServingNode.objects.get(name="b:1")
    set_labels(node_id=theirs.pk, labels={}, **who)
    removed = ServingNode.objects.get(name="c:1")
    set_node_state(node_id=removed.pk, state=NodeState.GONE, reason="", **who)
    assert found(world, "a:1", "c:1") == Discovered(kept=["a:1", "c:1"])
    assert states() == {"a:1": "active", "b:1": "active", "c:1": "gone"}
    assert ServingNode.objects.get(name="a:1").base_url == "http://mine:1"


def test_what_another_place_named_is_left_to_it(world: World) -> None:
    found(world, "a:1", "b:1")
    elsewhere = found(world, "a:1", "c:1", place="dns:vllm:1")
    assert elsewhere == Discovered(entered=["c:1"], kept=["a:1"])
    assert found(world, "a:1") == Discovered(kept=["a:1"], gone=["b:1"])
    assert states() == {"a:1": "active", "b:1": "gone", "c:1": "active"}


def test_a_target_that_nobody_is_sent_to_costs_only_itself(world: World) -> None:
    done = found(world, "a:1", "169.254.169.254:80", "2852039166:80", "b:1")
    assert done.entered == ["a:1", "b:1"]
    words = "the address leads to the metadata service of a cloud"
    assert done.refused == {"169.254.169.254:80": words, "2852039166:80": words}


@pytest.mark.parametrize("text", ["[", "[]", "\x00", "&a [*a]", "- targets: [x]", ""])
def test_a_broken_file_takes_no_node_away(world: World, tmp_path: Path, text: str) -> None:
    found(world, "a:1")
    file = tmp_path / "nodes.yaml"
    file.write_text(text)
    with pytest.raises(CommandError) as caught:
        call_command("work_on_nodes", "discover", json.dumps({"place": str(file)}))
    assert caught.value.returncode == 2
    assert states() == {"a:1": "active"}


def test_the_command_tells_what_became_of_each(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "nodes.json"
    file.write_text('[{"targets": ["a:1", "0:80"]}]')
    call_command("work_on_nodes", "discover", json.dumps({"place": str(file)}), "--format=json")
    assert json.loads(capsys.readouterr().out) == [
        {"name": "a:1", "outcome": "entered", "why": None},
        {"name": "0:80", "outcome": "refused", "why": "the address is that of no machine"},
    ]


def test_the_worker_asks_every_configured_place(
    world: World, tmp_path: Path, settings: Any
) -> None:
    discover_nodes()
    assert states() == {}
    file = tmp_path / "nodes.json"
    file.write_text('[{"targets": ["a:1"]}]')
    settings.NODES_FROM = ("/none", "dns:localhost:7", str(file))
    for _ in range(2):
        with pytest.raises(PlaceError, match=r"^/none: No such file or directory$"):
            discover_nodes()
    assert states()["a:1"] == states()["localhost/127.0.0.1"] == "active"


def test_nodes_of_nobody_are_told(world: World, settings: Any) -> None:
    settings.NODES_FROM, settings.NODES_ORGANIZATION = ("/none",), "nobody"
    with pytest.raises(PlaceError, match="names no organization"):
        discover_nodes()
