"""What nodes cost and made: time from readings, energy from devices, and charges that add up."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from enforcement.collectors.base import Device, Reading
from enforcement.domain.activity import measure_activity
from enforcement.domain.efficiency import Charge, EnergySource, NodeEfficiency, efficiency
from enforcement.domain.nodecosts import record_cost
from enforcement.domain.storing import Found, store_batch
from enforcement.models import NodeActivity, ServingNode
from tests.budgets.world import ACTOR, NOW, World
from tests.enforcement.domain.nodes import make_node, meter, read

HOUR = timedelta(hours=1)
START = NOW.replace(minute=0)
END = START + HOUR
STEP = timedelta(seconds=10)
USD = 1_000_000_000


def read_through(node: ServingNode, *, busy_from: int, busy_to: int, **totals: Any) -> None:
    """Every ten seconds of the hour; two requests run between two minutes, and end with them."""
    for number in range(-1, 362):
        at = START + number * STEP
        is_busy = busy_from * 60 <= number * 10 < busy_to * 60
        is_over = number * 10 >= busy_to * 60
        changes: dict[str, Any] = {"prompt_tokens": 0, "cached_tokens": 0, **totals}
        made = {name: amount if is_over else 0 for name, amount in changes.items()}
        extra = {"prefill_ms": 3_000 if is_over else 0, "decode_ms": 9_000 if is_over else 0}
        generation = made.pop("generation_tokens", 0)
        read(node, generation, at=at, requests_running=2 if is_busy else 0, extra=extra, **made)


def cost(world: World, node: ServingNode, usd: int = 4, **changes: Any) -> None:
    values: dict[str, Any] = {"cost_per_hour_nanos": usd * USD, "valid_from": START, **changes}
    record_cost(organization_id=world.id, node_id=node.pk, actor=ACTOR, now=START, **values)


def of(world: World, now: datetime = END) -> list[NodeEfficiency]:
    measure_activity(now=now, since=START)
    return efficiency(organization_id=world.id, since=START, until=END, now=now)


def test_a_node_works_waits_and_costs(world: World, node: ServingNode) -> None:
    cost(world, node)
    read_through(
        node, busy_from=15, busy_to=30, prompt_tokens=300, cached_tokens=75, generation_tokens=60
    )
    for _ in range(3):
        meter(world, NOW, cached_input_tokens=25)
    (found,) = of(world)
    assert (found.busy_ms, found.idle_ms, found.unread_ms) == (900_000, 2_700_000, 0)
    assert (found.busy_permille, found.milli_at_once) == (250, 2_000)
    assert (found.prefill_permille, found.cached_permille) == (250, 250)
    assert (found.cost_nanos, found.idle_nanos, found.unpriced_ms) == (4 * USD, 3 * USD, 0)
    assert (found.tokens, found.tokens_per_usd, found.nanos_per_million) == (
        360,
        90,
        11_111_111_111_112,
    )
    assert found.charges == (
        Charge("agent", "Reader", "gemma", USD, 360),
        Charge("idle", "", "", 3 * USD, 0),
    )
    (model,) = found.models
    assert (model.model, model.tokens, model.cost_nanos, model.tokens_per_usd) == (
        "gemma",
        360,
        USD,
        360,
    )


def test_what_nobody_metered_and_what_was_not_read_are_lines_of_their_own(
    world: World, node: ServingNode
) -> None:
    cost(world, node)
    for number in range(181):  # half an hour
        made = 40 if number else 0
        read(
            node,
            made,
            at=START + number * STEP,
            prompt_tokens=5 * made,
            cached_tokens=0,
            requests_running=1,
        )
    meter(world, NOW)
    (found,) = of(world)
    assert [(one.line, one.cost_nanos) for one in found.charges] == [
        ("agent", USD),
        ("unread", 2 * USD),
        ("unmetered", USD),
    ]
    assert sum(one.cost_nanos for one in found.charges) == found.cost_nanos


def test_agents_share_an_hour_and_its_cost_to_the_last_nano_dollar(
    world: World, node: ServingNode
) -> None:
    cost(world, node, usd=0, cost_per_hour_nanos=1_000_000_007)
    read_through(node, busy_from=0, busy_to=60, prompt_tokens=300, generation_tokens=60)
    for agent in (world.agent, world.loner, world.agent):
        meter(world, NOW, agent=str(agent.id))
    (found,) = of(world)
    assert [(one.agent, one.cost_nanos) for one in found.charges] == [
        ("Reader", 666_666_671),
        ("Loner", 333_333_336),
    ]
    assert sum(one.cost_nanos for one in found.charges) == 1_000_000_007


def test_a_node_without_a_cost_is_told_without_money(world: World, node: ServingNode) -> None:
    read_through(node, busy_from=0, busy_to=30, generation_tokens=60)
    (found,) = of(world)
    assert (found.cost_nanos, found.unpriced_ms, found.charges) == (0, 3_600_000, ())
    assert (found.tokens_per_usd, found.busy_permille) == (None, 500)


def test_a_silence_is_unread_and_an_hour_that_is_not_over_ends_now(
    world: World, node: ServingNode
) -> None:
    for minute in (0, 1, 20, 21):
        read(node, 0, at=START + timedelta(minutes=minute))
    (found,) = of(world, START + timedelta(minutes=30))
    assert (found.busy_ms, found.idle_ms, found.unread_ms) == (0, 120_000, 1_680_000)


def test_to_measure_again_writes_nothing(world: World, node: ServingNode) -> None:
    read_through(node, busy_from=0, busy_to=30, generation_tokens=60)
    assert measure_activity(now=END, since=START) == 2
    assert measure_activity(now=END, since=START) == 0


# ------------------------------------------------------------------------------- energy


def draw(node: ServingNode, *, counts: bool = True, until: int = 360) -> None:
    """A device that draws 100 W for the hour; its counter may be missing."""
    for number in range(until + 1):
        device = Device(
            "GPU-0",
            power_milliwatts=100_000,
            energy_millijoules=7_000 + number * 1_000_000 if counts else None,
        )
        reading = Reading(0, 0, 0, devices=(device,))
        store_batch([Found(node.pk, "dcgm", reading, START + number * STEP)])


@pytest.mark.parametrize(
    ("labels", "address"),
    [({"measures": "gpu-a"}, "http://elsewhere:9400"), ({}, "http://127.0.0.1:9400")],
    ids=["named", "same host"],
)
@pytest.mark.parametrize("counts", [True, False])
def test_joules_for_a_token_come_from_the_exporter_of_its_devices(
    world: World, node: ServingNode, labels: dict[str, str], address: str, *, counts: bool
) -> None:
    exporter = make_node(world, "dcgm-a", base_url=address, labels=labels)
    read_through(node, busy_from=0, busy_to=30, generation_tokens=1_000)
    draw(exporter, counts=counts)
    (found,) = of(world)
    assert found.energy_millijoules == 360_000_000
    assert found.energy_source is (EnergySource.COUNTED if counts else EnergySource.DRAWN)
    assert found.millijoules_per_token == 360_000


def test_an_exporter_of_a_host_with_two_engines_tells_of_neither(
    world: World, node: ServingNode
) -> None:
    exporter = make_node(world, "dcgm-a")
    other = make_node(world, "gpu-b")
    for one in (node, other):
        read_through(one, busy_from=0, busy_to=30, generation_tokens=10)
    draw(exporter)
    assert [row.energy_source for row in of(world)] == [EnergySource.UNKNOWN] * 2


def test_declared_watts_stand_in_where_nothing_measures(world: World, node: ServingNode) -> None:
    cost(world, node, watts=700)
    read_through(node, busy_from=0, busy_to=30, generation_tokens=1_000)
    (found,) = of(world)
    assert (found.energy_millijoules, found.energy_source) == (
        2_520_000_000,
        EnergySource.DECLARED,
    )


# ------------------------------------------------------------------------------- the command


def test_the_command_tells_nodes_charges_and_models(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    now = timezone.now()
    node = make_node(world, created_at=now)
    hour = now.replace(minute=0, second=0, microsecond=0)
    NodeActivity.objects.create(node=node, hour=hour, busy_ms=0, idle_ms=1)
    call_command("tell_efficiency", "--hours=1", "--format=json")
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["node"], row["cost_usd"], row["tokens_per_usd"]) == ("gpu-a", "0.00", None)
    for kind in ("--charges", "--models"):
        call_command("tell_efficiency", kind, "--format=json")
        assert json.loads(capsys.readouterr().out) == []


def test_the_command_says_what_it_cannot_tell(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("tell_efficiency", "--format=human")
    assert "No serving node was read or has a cost yet" in capsys.readouterr().out
    for wrong in ("--hours=0", "--hours=745", "--node=none", "--organization=none"):
        with pytest.raises(CommandError):
            call_command("tell_efficiency", wrong)
