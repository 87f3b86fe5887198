"""`comptroller nodes`, by the management command behind it."""

import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from controlplane.audit.models import AuditEntry
from enforcement.models import ServingNode
from tests.budgets.world import World, make_world

Said = pytest.CaptureFixture[str]

ADD = {
    "name": "gpu-a",
    "base_url": "http://10.0.0.1:8000",
    "engine": "vllm",
    "metrics_path": "/metrics",
    "labels": ["rack=7"],
}
COST = {"cost_per_hour": "2.49", "accelerator": "NVIDIA H100", "accelerator_count": 2}


@pytest.fixture(autouse=True)
def world(db: None) -> World:
    return make_world()


def ask(capsys: Said, verb: str, form: str = "json", **wish: Any) -> Any:
    call_command("work_on_nodes", verb, json.dumps(wish), f"--format={form}")
    said = capsys.readouterr().out
    return json.loads(said) if form == "json" else said


def entered(capsys: Said) -> Any:
    return ask(capsys, "add", **ADD)


def test_a_node_is_entered_priced_and_listed(capsys: Said) -> None:
    made = entered(capsys)
    assert (made["name"], made["labels"], made["cost"]) == ("gpu-a", {"rack": "7"}, None)
    cost = ask(capsys, "cost", node="gpu-a", watts=1400, **COST)
    assert (cost["cost_per_hour"], cost["recorded_by"]) == ("2.49", "command line")
    assert ask(capsys, "show", node=made["id"])["cost"] == cost
    assert ask(capsys, "list", labels=["rack=7"], gone=False) == [
        {
            "name": "gpu-a",
            "engine": "vllm",
            "state": "unscraped",
            "cost_per_hour": "2.49",
            "accelerators": "2 x NVIDIA H100",
            "read_at": None,
            "problem": None,
        }
    ]
    assert ask(capsys, "list", labels=["rack=8"], gone=False) == []


def test_a_person_reads_lines(capsys: Said) -> None:
    assert ask(capsys, "list", "human", labels=[], gone=False).splitlines()[1] == (
        "No node: a sidecar enters those behind it, `nodes add` enters others."
    )
    entered(capsys)
    lines = ask(capsys, "show", "human", node="gpu-a").splitlines()
    assert "  labels           rack=7" in lines


def test_labels_are_set_and_taken_away(capsys: Said) -> None:
    entered(capsys)
    shown = ask(capsys, "label", node="gpu-a", labels=["team=ml", "rack-"], reason="moved")
    assert shown["labels"] == {"team": "ml"}
    entry = AuditEntry.objects.get(action="node.label")
    assert (entry.reason, entry.before, entry.after) == (
        "moved",
        {"labels": "rack=7"},
        {"labels": "team=ml"},
    )


def test_a_node_at_the_edge_gets_patience(capsys: Said) -> None:
    entered(capsys)
    assert (
        ask(capsys, "patience", node="gpu-a", patience_s=86_400, reason="")["patience_s"] == 86_400
    )
    for wrong in (-1, 2_592_001):
        with pytest.raises(CommandError, match="patience_s is 0 to 2592000"):
            ask(capsys, "patience", node="gpu-a", patience_s=wrong, reason="")


def test_a_node_is_drained_and_removed_and_then_not_listed(capsys: Said) -> None:
    entered(capsys)
    for verb, state in (("drain", "draining"), ("activate", "active"), ("remove", "gone")):
        assert ask(capsys, verb, node="gpu-a", reason="")["state"] == state
    assert ask(capsys, "list", labels=[], gone=False) == []
    assert [row["state"] for row in ask(capsys, "list", labels=[], gone=True)] == ["gone"]


@pytest.mark.parametrize(
    ("verb", "wish", "code", "words"),
    [
        ("show", {"node": "nobody"}, 3, "no such node"),
        ("add", ADD, 5, "a node named 'gpu-a' exists"),
        ("add", {**ADD, "name": ""}, 2, "name: This field may not be blank."),
        ("add", {**ADD, "name": "b", "labels": ["rack"]}, 2, "a label is NAME=VALUE, not 'rack'"),
        ("label", {"node": "gpu-a", "labels": ["-x=1"], "reason": ""}, 2, "a label's name is"),
        ("label", {"node": "gpu-a", "labels": ["x=\n"], "reason": ""}, 2, "printable"),
        ("activate", {"node": "gpu-a", "reason": ""}, 5, "the node is active already"),
        ("cost", {"node": "gpu-a", "cost_per_hour": "1e9"}, 2, "not an amount in dollars"),
        ("cost", {"node": "gpu-a", **COST, "watts": 0}, 2, "watts is 1 to"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(
    capsys: Said, verb: str, wish: dict[str, Any], code: int, words: str
) -> None:
    entered(capsys)
    with pytest.raises(CommandError, match=words) as caught:
        ask(capsys, verb, **wish)
    assert caught.value.returncode == code
    assert ServingNode.objects.count() == 1
