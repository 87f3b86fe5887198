"""Metered use beside engine counters, by hour: what is drift and what is merely not known."""

import json
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from enforcement.domain.reconciliation import Reconciled, reconcile
from enforcement.models import ServingNode
from enforcement.rules.reconcile import Threshold, Verdict
from tests.budgets.world import NOW, World
from tests.enforcement.domain.nodes import make_node, meter, read

HOUR = timedelta(hours=1)
START = NOW.replace(minute=0)  # of the hour of all calls


def read_often(node: ServingNode, generation: int, *, since_h: int = 0, until_h: int = 1) -> None:
    """Every five minutes, at rest before 10:30 and after it; the engine makes all of it then."""
    first = (since_h * HOUR) // timedelta(minutes=5)
    last = (until_h * HOUR) // timedelta(minutes=5)
    for step in range(first, last + 1):
        at = START + step * timedelta(minutes=5)
        made = generation if at > NOW else 0
        read(node, made, at=at, prompt_tokens=5 * made, cached_tokens=0)


def verdicts(world: World, *, until_h: int = 2) -> list[tuple[int, Verdict, tuple[int, int]]]:
    rows: list[Reconciled] = reconcile(
        organization_id=world.id,
        since=START - HOUR,
        until=START + until_h * HOUR,
        threshold=Threshold(),
    )
    return [(row.count.hour.hour, row.verdict, row.count.drift_tokens) for row in rows]


def test_what_was_metered_and_produced_agrees(world: World, node: ServingNode) -> None:
    read_often(node, 200)
    for _ in range(10):
        meter(world, NOW)
    assert verdicts(world) == [(10, Verdict.AGREES, (0, 0))]


def test_what_went_past_the_sidecars_drifts(world: World, node: ServingNode) -> None:
    read_often(node, 200)
    meter(world, NOW)
    assert verdicts(world) == [(10, Verdict.DRIFTS, (900, 180))]


def test_a_late_event_is_in_the_next_answer(world: World, node: ServingNode) -> None:
    read_often(node, 200)
    for _ in range(7):
        meter(world, NOW)
    assert verdicts(world) == [(10, Verdict.DRIFTS, (300, 60))]
    for _ in range(3):
        meter(world, NOW)
    assert verdicts(world) == [(10, Verdict.AGREES, (0, 0))]


def test_an_hour_with_a_silence_is_unknown(world: World, node: ServingNode) -> None:
    for at, made in ((START, 0), (START + HOUR, 0), (START + 2 * HOUR, 200)):
        read(node, made, at=at)
    assert [verdict for _, verdict, _ in verdicts(world)] == [Verdict.UNKNOWN] * 2


def test_an_hour_with_a_restart_is_unknown_and_the_one_before_it_is_not(
    world: World, node: ServingNode
) -> None:
    read_often(node, 200)
    for minute in (1, 61):
        read(node, 3, at=START + HOUR + timedelta(minutes=minute))
    for _ in range(10):
        meter(world, NOW)
    found = [verdict for _, verdict, _ in verdicts(world)]
    assert found == [Verdict.AGREES, Verdict.UNKNOWN]


def test_an_hour_that_is_not_over_is_unknown(world: World, node: ServingNode) -> None:
    read(node, 0, at=START)
    read(node, 0, at=NOW)
    meter(world, NOW)
    assert verdicts(world) == [(10, Verdict.UNKNOWN, (-100, -20))]


def test_a_node_that_was_never_read_is_unknown(world: World, node: ServingNode) -> None:
    meter(world, NOW)
    assert verdicts(world) == [(10, Verdict.UNKNOWN, (-100, -20))]


def test_nodes_are_apart_and_in_order(world: World, node: ServingNode) -> None:
    read_often(node, 20)
    read_often(make_node(world, "a-first"), 200)
    meter(world, NOW)
    assert verdicts(world) == [
        (10, Verdict.DRIFTS, (1000, 200)),
        (10, Verdict.AGREES, (0, 0)),
    ]


def test_the_command_tells_the_rows_and_fails_on_drift(
    world: World, node: ServingNode, capsys: pytest.CaptureFixture[str]
) -> None:
    read_often(node, 200)
    words = ["--hours=1", f"--until={(START + HOUR).isoformat()}", "--format=json"]
    with pytest.raises(CommandError, match="1 hours drift by more"):
        call_command("reconcile_usage", *words)
    (row,) = json.loads(capsys.readouterr().out)
    assert row == {
        "node": "gpu-a",
        "hour": START.isoformat(),
        "verdict": "drifts",
        "metered_prompt": 0,
        "produced_prompt": 1000,
        "prompt_drift": 1000,
        "metered_generation": 0,
        "produced_generation": 200,
        "generation_drift": 200,
    }


def test_the_command_is_content_without_drift(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("reconcile_usage", "--format=human")
    assert "No node has produced or metered anything" in capsys.readouterr().out


UNTIL = ("--until=yesterday", "--until=2026-05-13T11:00")


@pytest.mark.parametrize("wrong", ["--hours=0", "--hours=745", "--per-mille=1001", *UNTIL])
def test_the_command_refuses_what_it_cannot_ask(world: World, wrong: str) -> None:
    with pytest.raises(CommandError):
        call_command("reconcile_usage", wrong)
