"""Engine counters beside metered use: the sums, where they begin, and the likely cause."""

from datetime import timedelta
from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries

from controlplane.identity.ids import new_id
from enforcement.domain.enrolment import enrol_sidecar
from enforcement.domain.gather import Tokens
from enforcement.domain.unattributed import Difference, by_hour, differences
from enforcement.models import NodeSample, NodeUsage, ServingNode, Spool
from tests.budgets.world import ACTOR, NOW, World, make_world
from tests.enforcement.domain.nodes import make_node, meter, read

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
START = NOW.replace(minute=0)
LATER = NOW + 10 * MINUTE
PAST = "Calls reach this engine without passing a sidecar."
SETTLES = "Calls are running or ended a moment ago: the figures settle soon after they end."


@pytest.fixture
def node(world: World) -> ServingNode:
    """Read since yesterday, with nothing produced."""
    node = make_node(world)
    for at in (NOW - timedelta(days=1), NOW - MINUTE):
        read(node, 0, at=at)
    NodeUsage.objects.all().delete()
    return node


def produce(node: ServingNode, generation: int, **changes: Any) -> None:
    """Five minutes ago the engine had made so much; nothing since then."""
    read(node, generation, at=NOW + 5 * MINUTE, **changes)


def difference(world: World, **window: Any) -> Difference:
    values = {"since": NOW - HOUR, "until": LATER, "now": LATER}
    (found,) = differences(organization_id=world.id, **values | window)
    return found


def test_what_was_metered_is_not_unattributed(world: World, node: ServingNode) -> None:
    for _ in range(10):
        meter(world, NOW)
    produce(node, 200, prompt_tokens=1000, cached_tokens=0)
    found = difference(world)
    assert found.produced == Tokens(1000, 0, 200)
    assert found.metered == Tokens(1000, 0, 200)
    assert found.unattributed == Tokens(0, 0, 0)
    assert (found.cause, found.incomplete) == ("", False)
    assert found.fresh_at == NOW + 5 * MINUTE
    assert found.since == START - HOUR


def test_what_nobody_metered_went_past_the_sidecars(world: World, node: ServingNode) -> None:
    meter(world, NOW)
    produce(node, 300, prompt_tokens=900, cached_tokens=10)
    found = difference(world)
    assert found.unattributed == Tokens(800, 10, 280)
    assert found.cause == PAST


def test_noise_needs_no_cause(world: World, node: ServingNode) -> None:
    produce(node, 25)
    assert difference(world).unattributed == Tokens(50, 25, 25)
    assert difference(world).cause == ""
    read(node, 26, at=NOW + 6 * MINUTE)
    assert difference(world).cause == PAST


def test_other_nodes_and_other_hours_count_for_themselves(world: World, node: ServingNode) -> None:
    meter(world, NOW, node="gpu-b")
    meter(world, NOW - 2 * HOUR)
    meter(world, NOW)
    assert difference(world).metered == Tokens(100, 0, 20)
    stranger = make_world("stranger")
    meter(stranger, NOW)
    assert difference(world).metered == Tokens(100, 0, 20)
    assert (
        differences(
            organization_id=stranger.id, since=START, until=LATER, now=LATER, node_id=node.pk
        )
        == []
    )


def test_a_node_is_compared_from_its_first_sample_on(world: World) -> None:
    node = make_node(world)
    meter(world, NOW - 2 * HOUR)
    meter(world, NOW - 5 * MINUTE)
    read(node, 500, at=NOW)
    meter(world, NOW + MINUTE)
    produce(node, 520, prompt_tokens=1100, cached_tokens=500)
    found = difference(world, since=NOW - 5 * HOUR)
    assert found.metered == Tokens(100, 0, 20)
    assert found.produced == Tokens(100, 0, 20)
    (hour,) = by_hour(node=node, since=NOW, until=LATER)
    assert (hour.hour, hour.produced, hour.metered) == (START, found.produced, found.metered)


def test_a_node_that_was_never_read_shows_what_was_metered(world: World) -> None:
    make_node(world)
    meter(world, NOW)
    found = difference(world)
    assert (found.produced, found.metered) == (Tokens(), Tokens(100, 0, 20))
    assert found.fresh_at is None
    assert found.cause == "Its counters have not been read yet."


def test_hours_stand_in_order_with_either_side(world: World, node: ServingNode) -> None:
    NodeUsage.objects.create(node=node, hour=START - 2 * HOUR, generation_tokens=7, incomplete=True)
    meter(world, NOW - HOUR)
    meter(world, NOW)
    produce(node, 20, prompt_tokens=100)
    rows = by_hour(node=node, since=NOW - 2 * HOUR, until=LATER)
    assert [
        (row.hour, row.produced.generation, row.metered.generation, row.incomplete) for row in rows
    ] == [
        (START - 2 * HOUR, 7, 0, True),
        (START - HOUR, 0, 20, False),
        (START, 20, 20, False),
    ]


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"metrics_path": ""}, "This engine has no counters to compare with."),
        ({"engine": "ollama"}, "This engine has no counters to compare with."),
        (
            {"last_error": "/metrics answered 503"},
            "Its counters cannot be read: /metrics answered 503.",
        ),
    ],
)
def test_a_node_that_cannot_be_read_says_so(
    world: World, node: ServingNode, changes: dict[str, str], cause: str
) -> None:
    ServingNode.objects.filter(pk=node.pk).update(**changes)
    assert difference(world).cause == cause


def test_running_calls_and_fresh_ones_settle(world: World, node: ServingNode) -> None:
    produce(node, 900, requests_running=1)
    assert difference(world).cause == SETTLES
    read(node, 900, at=NOW + 9 * MINUTE)
    assert difference(world).cause == PAST
    meter(world, NOW, input_tokens=1800, output_tokens=900)
    read(node, 1080, at=LATER - timedelta(seconds=20))
    read(node, 1089, at=LATER - timedelta(seconds=10))
    assert difference(world).unattributed == Tokens(378, 1089, 189)
    assert difference(world).cause == SETTLES


def test_a_busy_engine_hides_nothing_that_was_made_before(world: World, node: ServingNode) -> None:
    read(node, 900, at=NOW)
    for second in range(0, 60, 5):
        read(node, 901 + second, at=LATER + timedelta(seconds=second - 60), requests_running=4)
    assert difference(world).cause == PAST


def test_what_runs_for_longer_than_calls_do_is_no_call_of_ours(
    world: World, node: ServingNode
) -> None:
    for minute in range(10):
        read(node, 100 * minute, at=NOW + minute * MINUTE, requests_running=1)
    assert difference(world).cause == SETTLES
    later = NOW + 18 * MINUTE
    read(node, 1000, at=later, requests_running=1)
    assert difference(world, until=later, now=later).cause == PAST


def test_a_call_that_began_before_the_window_is_no_difference(
    world: World, node: ServingNode
) -> None:
    meter(world, START - MINUTE, output_tokens=400, duration_ms=90_000)
    meter(world, START - MINUTE, output_tokens=400, duration_ms=30_000)
    produce(node, 400, prompt_tokens=100)
    assert difference(world, since=START).unattributed.generation == 400
    assert difference(world, since=START).cause == SETTLES
    read(node, 800, at=NOW + 6 * MINUTE, prompt_tokens=100)
    assert difference(world, since=START).cause == PAST


def test_a_restart_explains_only_its_own_hours(world: World, node: ServingNode) -> None:
    produce(node, 900)
    read(node, 3, at=NOW + 6 * MINUTE)
    assert difference(world).incomplete
    assert difference(world).cause == (
        "They differ only in hours in which the engine was restarted or could not be read."
    )
    NodeUsage.objects.create(node=node, hour=START - HOUR, generation_tokens=900)
    assert difference(world).cause == PAST


def test_a_restart_loses_what_the_engine_had_not_told(world: World, node: ServingNode) -> None:
    produce(node, 900)
    meter(world, NOW, input_tokens=3000, output_tokens=1500)
    read(node, 3, at=NOW + 6 * MINUTE)
    assert difference(world).cause == (
        "The engine was restarted, or could not be read for a time: its tokens are lost."
    )


def test_a_sidecar_that_does_not_report_explains_what_it_was_allowed_to_serve(
    world: World, node: ServingNode
) -> None:
    sidecar = enrol_sidecar(organization_id=world.id, name="edge", actor=ACTOR, now=NOW).sidecar
    ServingNode.objects.filter(pk=node.pk).update(sidecar=sidecar)
    heard_at = NOW + MINUTE
    Spool.objects.create(
        id=new_id(),
        organization=world.organization,
        sidecar=sidecar,
        boot="b",
        incarnation=new_id(),
        last_sync_at=heard_at,
        policy_valid_until=heard_at + MINUTE,
    )
    read(node, 0, at=NOW)
    read(node, 500, at=NOW + 2 * MINUTE)
    read(node, 500, at=NOW + 5 * MINUTE)
    assert difference(world).cause == "Its sidecar has not reported since 2026-05-13 10:31 UTC."
    read(node, 900, at=NOW + 6 * MINUTE)
    assert difference(world).cause == PAST


def test_a_node_that_fails_now_hides_nothing_that_went_past(
    world: World, node: ServingNode
) -> None:
    produce(node, 900)
    ServingNode.objects.filter(pk=node.pk).update(last_error="/metrics answered 503")
    assert difference(world).cause == PAST


def test_calls_since_the_last_reading_are_not_counted_by_the_engine_yet(
    world: World, node: ServingNode
) -> None:
    produce(node, 20, prompt_tokens=100)
    meter(world, NOW)
    meter(world, NOW + 6 * MINUTE, output_tokens=900)
    soon = NOW + 6 * MINUTE + timedelta(seconds=10)
    assert difference(world, until=soon, now=soon).cause == SETTLES
    assert difference(world).cause == (
        "Its counters have not been read since 2026-05-13 10:35 UTC."
    )


def test_presumed_use_explains_that_more_was_metered(world: World, node: ServingNode) -> None:
    meter(world, NOW, output_tokens=900, presumed=True)
    produce(node, 20, prompt_tokens=100)
    found = difference(world)
    assert found.unattributed.generation == -880
    assert found.cause == "Calls without an exact usage are charged their bound: 1 of them."


def test_presumed_use_explains_no_more_than_itself(world: World, node: ServingNode) -> None:
    meter(world, NOW, output_tokens=60, presumed=True)
    meter(world, NOW, output_tokens=900)
    produce(node, 20, prompt_tokens=200)
    assert difference(world).cause == (
        "Sidecars metered more than the engine counted: does another node have this name?"
    )


def test_more_metered_than_produced_without_a_reason_asks(world: World, node: ServingNode) -> None:
    meter(world, NOW, output_tokens=900)
    produce(node, 20, prompt_tokens=100)
    assert difference(world).cause == (
        "Sidecars metered more than the engine counted: does another node have this name?"
    )


def test_rounded_totals_explain_small_differences(world: World, node: ServingNode) -> None:
    produce(node, 1000, resolution=1000)
    NodeUsage.objects.update(prompt_tokens=0)
    assert difference(world).cause == "The engine rounds its totals to 1000 tokens."


@pytest.mark.parametrize("count", [1, 3])
def test_three_nodes_cost_as_many_queries_as_one(
    world: World, count: int, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(count):
        one = make_node(world, f"gpu-{number}")
        read(one, 0, at=NOW - timedelta(days=1))
        read(one, 900, at=NOW)
    with django_assert_num_queries(7):
        found = differences(organization_id=world.id, since=START, until=LATER, now=LATER)
    assert len(found) == count
    assert NodeSample.objects.count() == 2 * count
