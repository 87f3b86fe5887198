"""Metered use beside engine counters, by hour: what is drift and what is merely not known."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from budgets.domain.usage import book_usage
from controlplane.identity.ids import new_id
from enforcement.domain.reconciliation import reconcile, reconciled
from enforcement.models import Reconciliation, ServingNode
from enforcement.rules.reconcile import Threshold
from tests.budgets.world import NOW, World, call, ms
from tests.enforcement.domain.nodes import make_node, meter, read

HOUR = timedelta(hours=1)
START = NOW.replace(minute=0)  # of the hour of all calls
LATER = START + timedelta(hours=6)


def read_often(node: ServingNode, generation: int, *, since_h: int = 0, until_h: int = 1) -> None:
    """Every five minutes, at rest before 10:30 and after it; the engine makes all of it then."""
    first = (since_h * HOUR) // timedelta(minutes=5)
    last = (until_h * HOUR) // timedelta(minutes=5)
    for step in range(first, last + 1):
        at = START + step * timedelta(minutes=5)
        made = generation if at > NOW else 0
        read(node, made, at=at, prompt_tokens=5 * made, cached_tokens=0)


def rows_of(world: World, *, until_h: int = 2, now: datetime = LATER) -> list[Reconciliation]:
    window: dict[str, Any] = {
        "organization_id": world.id,
        "since": START - HOUR,
        "until": START + until_h * HOUR,
    }
    reconcile(**window, now=now, by=Threshold())
    return reconciled(**window)


def drift(row: Reconciliation) -> tuple[int | None, int | None]:
    if row.produced_prompt_tokens is None or row.produced_generation_tokens is None:
        return (None, None)
    return (
        row.produced_prompt_tokens - row.metered_prompt_tokens,
        row.produced_generation_tokens - row.metered_generation_tokens,
    )


def verdicts(
    world: World, *, until_h: int = 2
) -> list[tuple[int, str, tuple[int | None, int | None]]]:
    return [
        (row.starts_at.hour, row.verdict, drift(row)) for row in rows_of(world, until_h=until_h)
    ]


def causes(world: World, **changes: Any) -> list[tuple[str, str]]:
    return [(row.verdict, row.cause_kind) for row in rows_of(world, **changes)]


def test_what_was_metered_and_produced_agrees(world: World, node: ServingNode) -> None:
    read_often(node, 200)
    for _ in range(10):
        meter(world, NOW)
    assert verdicts(world) == [(10, "agrees", (0, 0))]


def test_what_went_past_the_sidecars_drifts(world: World, node: ServingNode) -> None:
    read_often(node, 200)
    meter(world, NOW)
    assert verdicts(world) == [(10, "drifts", (900, 180))]


def test_a_late_event_is_in_the_next_answer(world: World, node: ServingNode) -> None:
    read_often(node, 200)
    for _ in range(7):
        meter(world, NOW)
    assert verdicts(world) == [(10, "drifts", (300, 60))]
    for _ in range(3):
        meter(world, NOW)
    assert verdicts(world) == [(10, "agrees", (0, 0))]


def test_an_hour_with_a_silence_is_unknown(world: World, node: ServingNode) -> None:
    for at, made in ((START, 0), (START + HOUR, 0), (START + 2 * HOUR, 200)):
        read(node, made, at=at)
    assert causes(world) == [("unknown", "not_scraped")] * 2


def test_an_hour_with_a_restart_is_unknown_and_the_one_before_it_is_not(
    world: World, node: ServingNode
) -> None:
    read_often(node, 200)
    for minute in (1, 61):
        read(node, 3, at=START + HOUR + timedelta(minutes=minute))
    for _ in range(10):
        meter(world, NOW)
    assert causes(world) == [("agrees", ""), ("unknown", "restarted")]


@pytest.mark.parametrize(
    ("now", "cause"), [(START + timedelta(minutes=50), "open"), (LATER, "stale")]
)
def test_an_hour_that_was_not_read_to_its_end_is_unknown(
    world: World, node: ServingNode, now: datetime, cause: str
) -> None:
    read(node, 0, at=START)
    read(node, 0, at=NOW)
    meter(world, NOW)
    (row,) = rows_of(world, now=now)
    assert (row.verdict, row.cause_kind, drift(row)) == ("unknown", cause, (-100, -20))
    assert (row.calls, row.metered_prompt_tokens, row.charge_nanos) == (1, 100, 1_500)


@pytest.mark.parametrize(
    ("changes", "verdict", "cause"),
    [
        ({}, "unknown", "not_read"),
        ({"last_error": "connection refused"}, "unknown", "unreadable"),
        ({"metrics_path": ""}, "alone", "no_counters"),
        ({"engine": "ollama", "metrics_path": "/api/ps"}, "alone", "no_counters"),
        ({"name": "another"}, "alone", "no_node"),
    ],
)
def test_a_node_that_was_never_read_is_compared_with_nothing(
    world: World, node: ServingNode, changes: dict[str, str], verdict: str, cause: str
) -> None:
    ServingNode.objects.filter(pk=node.pk).update(**changes)
    meter(world, NOW)
    assert causes(world) == [(verdict, cause)]


def test_hours_before_the_first_reading_are_unknown_and_what_began_before_it_is_left_out(
    world: World, node: ServingNode
) -> None:
    for at in (START - timedelta(minutes=30), START + timedelta(minutes=1)):
        meter(world, at)
    for minute in range(2, 67, 5):
        made, at = (20 if minute > 30 else 0), START + timedelta(minutes=minute)
        read(node, made, at=at, prompt_tokens=5 * made, cached_tokens=0)
    meter(world, NOW)
    earlier, first = rows_of(world)
    assert (earlier.verdict, earlier.cause_kind, earlier.calls) == ("unknown", "not_read", 1)
    assert (first.verdict, first.calls, first.metered_generation_tokens) == ("agrees", 1, 20)


def test_no_use_is_below_zero_while_some_of_the_first_hour_is_not_folded(
    world: World, node: ServingNode
) -> None:
    """Seen a minute after a start: the calls before the first reading were booked, not yet folded."""
    meter(world, START + timedelta(minutes=1))
    read(node, 0, at=START + timedelta(minutes=5))
    events = [
        call(world, node="gpu-a", started_at_ms=ms(START + timedelta(minutes=minute)))
        for minute in (2, 3, 6)
    ]
    book_usage(organization_id=world.id, sidecar_id=new_id(), events=events, now=NOW)
    (first,) = rows_of(world)
    assert (first.calls, first.metered_prompt_tokens, first.charge_nanos) == (1, 100, 1_500)


def test_models_are_told_apart_and_the_engine_counts_them_together(
    world: World, node: ServingNode
) -> None:
    read_often(node, 40)
    meter(world, NOW)
    meter(world, NOW, model="qwen")
    found = [(row.model, row.verdict, row.cause_kind, drift(row)) for row in rows_of(world)]
    assert found == [
        ("", "agrees", "", (0, 0)),
        ("gemma", "alone", "several_models", (None, None)),
        ("qwen", "alone", "several_models", (None, None)),
    ]


def test_nodes_are_apart_and_in_order(world: World, node: ServingNode) -> None:
    read_often(node, 20)
    read_often(make_node(world, "a-first"), 200)
    meter(world, NOW)
    assert verdicts(world) == [
        (10, "drifts", (1000, 200)),
        (10, "agrees", (0, 0)),
    ]


def test_calls_over_the_full_hour_shift_tokens_also_at_the_edge_of_what_is_asked(
    world: World, node: ServingNode
) -> None:
    for step in range(25):
        at = START + step * timedelta(minutes=5)
        made = 200 if step > 12 else 0
        read(node, made, at=at, prompt_tokens=5 * made, cached_tokens=0)
    for _ in range(10):
        meter(world, START + timedelta(minutes=59))
    assert causes(world, until_h=1) == [("shifted", "")]
    assert causes(world) == [("shifted", ""), ("shifted", "")]


# ------------------------------------------------------------------------------- why


def test_drift_has_its_likely_cause(world: World, node: ServingNode) -> None:
    read_often(node, 200)
    assert causes(world) == [("drifts", "past_sidecars")]


def test_what_runs_now_does_not_excuse_an_hour_that_is_long_over(
    world: World, node: ServingNode
) -> None:
    read_often(node, 200)
    read(node, 900, at=LATER, prompt_tokens=1000, cached_tokens=0, requests_running=1)
    assert causes(world)[0] == ("drifts", "past_sidecars")


def test_presumed_calls_explain_what_was_metered_too_much(world: World, node: ServingNode) -> None:
    read_often(node, 20)
    meter(world, NOW, presumed=True, output_tokens=900)
    meter(world, NOW)
    assert causes(world) == [("drifts", "presumed")]


# ------------------------------------------------------------------------------- again


def test_to_do_it_again_writes_nothing(world: World, node: ServingNode) -> None:
    read_often(node, 200)
    meter(world, NOW)
    rows_of(world)
    rows_of(world, now=LATER + HOUR)
    assert [row.computed_at for row in rows_of(world)] == [LATER]


def test_a_row_that_is_no_more_is_removed(world: World, node: ServingNode) -> None:
    read_often(node, 20)
    meter(world, NOW)
    assert [row.model for row in rows_of(world)] == ["gemma"]
    meter(world, NOW, model="qwen")
    ServingNode.objects.filter(pk=node.pk).update(metrics_path="")
    assert [row.model for row in rows_of(world)] == ["gemma", "qwen"]


def test_many_nodes_and_hours_ask_as_often_as_one(
    world: World, django_assert_num_queries: Callable[[int], AbstractContextManager[Any]]
) -> None:
    for number in range(5):
        read_often(make_node(world, f"gpu-{number}"), 20, since_h=-2, until_h=2)
        meter(world, NOW, node=f"gpu-{number}")
    with django_assert_num_queries(9):  # two of them the savepoint's
        reconcile(
            organization_id=world.id,
            since=START - HOUR,
            until=START + HOUR,
            now=LATER,
            by=Threshold(),
        )


# ------------------------------------------------------------------------------- the command


def test_the_command_tells_the_rows_and_fails_on_drift(
    world: World, node: ServingNode, capsys: pytest.CaptureFixture[str]
) -> None:
    read_often(node, 200)
    words = ["--hours=1", f"--until={(START + HOUR).isoformat()}", "--format=json"]
    with pytest.raises(CommandError, match="1 of 1 rows drift by more"):
        call_command("reconcile_usage", *words)
    (row,) = json.loads(capsys.readouterr().out)
    assert row == {
        "node": "gpu-a",
        "provider": "",
        "model": "",
        "starts_at": "2026-05-13T10:00:00+00:00",
        "ends_at": "2026-05-13T11:00:00+00:00",
        "verdict": "drifts",
        "metered_prompt_tokens": 0,
        "produced_prompt_tokens": 1000,
        "billed_prompt_tokens": None,
        "metered_generation_tokens": 0,
        "produced_generation_tokens": 200,
        "billed_generation_tokens": None,
        "charge_nanos": 0,
        "billed_nanos": None,
        "cause_kind": "past_sidecars",
        "cause": "Calls reach this engine without passing a sidecar.",
    }


def test_the_command_is_content_without_drift(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("reconcile_usage", "--format=human")
    assert "Nothing was metered, produced or billed" in capsys.readouterr().out


UNTIL = ("--until=yesterday", "--until=2026-05-13T11:00")


@pytest.mark.parametrize("wrong", ["--hours=0", "--hours=745", *UNTIL])
def test_the_command_refuses_what_it_cannot_ask(world: World, wrong: str) -> None:
    with pytest.raises(CommandError):
        call_command("reconcile_usage", wrong)
