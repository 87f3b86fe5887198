"""Rates of self-hosted models: what nodes cost by what they made, and all that it rests on."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from budgets.domain.prices import price_policies
from budgets.models import PriceVersion
from controlplane.audit.models import AuditEntry
from enforcement.domain.nodecosts import record_cost
from enforcement.domain.noderates import Measured, measure, set_measured_price
from enforcement.enums import NodeState
from enforcement.errors import NodeCostError
from enforcement.models import NodeActivity, NodeUsage, ServingNode
from enforcement.rules.noderates import Weights
from enforcement.rules.policy import Rates
from tests.budgets.world import ACTOR, NOW, World, make_world
from tests.enforcement.domain.nodes import make_node, meter

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
END = NOW.replace(minute=0, second=0, microsecond=0)
START = END - 4 * HOUR
USD = 1_000_000_000


def serving(
    world: World, name: str = "gpu-a", usd_per_hour: int = 1, **changes: Any
) -> ServingNode:
    values: dict[str, Any] = {"models": ["llama"], "created_at": START - HOUR}
    node = make_node(world, name, **values | changes)
    record_cost(
        organization_id=world.id,
        node_id=node.pk,
        cost_per_hour_nanos=usd_per_hour * USD,
        actor=ACTOR,
        now=NOW,
        valid_from=START,
    )
    return node


def made(node: ServingNode, hour: int, prompt: int, cached: int, answer: int, **more: Any) -> None:
    NodeUsage.objects.create(
        node=node,
        hour=START + hour * HOUR,
        prompt_tokens=prompt,
        cached_tokens=cached,
        generation_tokens=answer,
        **more,
    )


def measured(
    world: World, since: datetime = START, until: datetime = END, model: str = "llama"
) -> Measured:
    return measure(
        organization_id=world.id,
        model=model,
        since=since,
        until=until,
        weights=Weights(),
        now=NOW,
    )


def test_idle_hours_cost_as_well(world: World) -> None:
    """Four dollars in four hours, of which one made a million weighed tokens."""
    made(serving(world), 1, 700_000, 100_000, 97_500)
    found = measured(world)
    assert found.rates == Rates(4 * USD, 4 * USD // 10, 4 * USD, 16 * USD)
    assert found.evidence == {
        "since": START.isoformat(),
        "until": END.isoformat(),
        "cost": "4.00",
        "prompt_tokens": 700_000,
        "cached_tokens": 100_000,
        "answer_tokens": 97_500,
        "answer_per_mille": 4_000,
        "cached_per_mille": 100,
        "nodes": [
            {
                "node": "gpu-a",
                "cost": "4.00",
                "hours": 4,
                "idle_hours": 3,
                "hours_left_out": 0,
                "prompt_tokens": 700_000,
                "cached_tokens": 100_000,
                "answer_tokens": 97_500,
            }
        ],
    }


def test_an_hour_that_was_not_read_whole_is_left_out_with_its_cost(world: World) -> None:
    node = serving(world)
    made(node, 0, 1_000_000, 0, 0)
    made(node, 1, 900_000_000, 0, 0, incomplete=True)
    found = measured(world)
    assert found.rates.input == 3 * USD
    told = found.evidence["nodes"][0]
    assert (told["cost"], told["idle_hours"], told["hours_left_out"]) == ("3.00", 2, 1)


def test_all_nodes_of_the_model_count(world: World) -> None:
    made(serving(world), 0, 1_000_000, 0, 0)
    made(serving(world, "gpu-b", 2), 0, 2_000_000, 0, 0)
    serving(world, "other", 100, models=["gemma"])
    serving(world, "gone", 100, state=NodeState.GONE)
    serving(make_world("elsewhere"), "foreign", 100)
    found = measured(world)
    assert (found.rates.input, found.evidence["cost"]) == (4 * USD, "12.00")
    assert [told["node"] for told in found.evidence["nodes"]] == ["gpu-a", "gpu-b"]


def test_measured_rates_hold_and_keep_what_they_rest_on(world: World) -> None:
    made(serving(world), 0, 1_000_000, 0, 0)
    found = measured(world)
    assert PriceVersion.objects.count() == 0
    version = set_measured_price(
        found, organization_id=world.id, actor=ACTOR, now=NOW, reason="May"
    )
    version.refresh_from_db()
    assert (version.source, version.own, version.evidence) == ("measured", True, found.evidence)
    (policy,) = price_policies(organization_id=world.id, now=NOW, models={"llama"})
    assert policy.rates == found.rates
    assert AuditEntry.objects.get(action="price.set").reason == "May"


def test_a_jump_is_taken_only_when_it_is_confirmed(world: World) -> None:
    node = serving(world)
    made(node, 0, 1_000_000, 0, 0)
    who = {"organization_id": world.id, "actor": ACTOR}
    set_measured_price(measured(world), **who, now=NOW - HOUR)
    made(node, 1, 399_000_000, 0, 0)
    found = measured(world)
    assert found.jumps[0] == "input falls from $4.00 to $0.01"
    with pytest.raises(NodeCostError, match="confirm that this is meant: input falls"):
        set_measured_price(found, **who, now=NOW)
    set_measured_price(found, **who, now=NOW, confirmed=True)
    assert PriceVersion.objects.filter(valid_to=None).get().input_nanos_per_mtok == USD // 100


@pytest.mark.parametrize(
    ("since", "until", "said"),
    [
        (START + timedelta(minutes=1), END, "whole hours"),
        (START, END - timedelta(seconds=1), "whole hours"),
        (END, START, "must end after it begins"),
        (START, START, "must end after it begins"),
        (START, END + HOUR, "not in the future"),
        (END - timedelta(days=93), END, "at most 92 days"),
        (START - HOUR, END, "cost is not known for 1:00:00"),
        (START - 2 * HOUR, END, "gpu-a is only known since"),
        (START + HOUR, END, "too few to divide by"),
    ],
)
def test_times_that_cannot_be_measured(
    world: World, since: datetime, until: datetime, said: str
) -> None:
    made(serving(world), 0, 1_000_000, 0, 0)
    with pytest.raises(NodeCostError, match=said):
        measured(world, since, until)


def test_a_model_that_nobody_serves(world: World) -> None:
    with pytest.raises(NodeCostError, match="no node serves 'llama'"):
        measured(world)


# ------------------------------------------------------------------------------- several models


def busy(node: ServingNode, hour: int, minutes: int) -> None:
    NodeActivity.objects.create(
        node=node,
        hour=START + hour * HOUR,
        busy_ms=minutes * 60_000,
        running_ms=minutes * 60_000,
        idle_ms=(60 - minutes) * 60_000,
    )


def called(world: World, model: str, hour: int, prompt: int, answer: int, **more: Any) -> None:
    at = START + hour * HOUR + timedelta(minutes=1)
    meter(world, at, model=model, input_tokens=prompt, output_tokens=answer, **more)


@pytest.fixture
def shared(world: World) -> ServingNode:
    """One busy hour of four dollars' four, in which two models did the same."""
    node = serving(world, models=["gemma", "llama"])
    busy(node, 0, 60)
    made(node, 0, 500_000, 0, 125_000)
    called(world, "llama", 0, 400_000, 25_000)
    called(world, "gemma", 0, 100_000, 100_000)
    return node


def test_models_of_one_node_share_its_waiting_as_its_work(
    world: World, shared: ServingNode
) -> None:
    found = measured(world)
    assert found.rates == Rates(4 * USD, 4 * USD // 10, 4 * USD, 16 * USD)
    assert found.evidence["cost"] == "2.00"
    assert found.evidence["nodes"] == [
        {
            "node": "gpu-a",
            "cost": "2.00",
            "hours": 4,
            "idle_hours": 3,
            "hours_left_out": 0,
            "prompt_tokens": 400_000,
            "cached_tokens": 0,
            "answer_tokens": 25_000,
            "node_cost": "4.00",
            "busy_cost": {"gemma": "0.50", "llama": "0.50"},
            "unmetered_busy_cost": "0.00",
        }
    ]


def test_the_time_of_each_model_decides_not_the_tokens_of_all(
    world: World, shared: ServingNode
) -> None:
    """Half an hour of work for one of them alone: it cost half of the other hour."""
    busy(shared, 1, 30)
    made(shared, 1, 10_000, 0, 0)
    called(world, "gemma", 1, 10_000, 0)
    costs = {name: measured(world, model=name).evidence["cost"] for name in ("gemma", "llama")}
    assert costs == {"gemma": "2.666666667", "llama": "1.333333333"}  # four dollars


def test_what_nobody_metered_is_no_models(world: World, shared: ServingNode) -> None:
    NodeUsage.objects.update(prompt_tokens=1_500_000)
    found = measured(world)
    assert (found.evidence["cost"], found.rates.input) == ("1.00", 2 * USD)
    assert found.evidence["nodes"][0]["unmetered_busy_cost"] == "0.50"


def test_weights_divide_work_as_they_divide_cost(world: World, shared: ServingNode) -> None:
    light = Weights(answer_per_mille=1_000)
    found = measure(
        organization_id=world.id, model="llama", since=START, until=END, weights=light, now=NOW
    )
    assert found.evidence["nodes"][0]["busy_cost"] == {"gemma": "0.32", "llama": "0.68"}
    assert (found.rates.input, found.rates.output) == (6_400_000_000, 6_400_000_000)


def test_hours_not_read_whole_divide_nothing(world: World, shared: ServingNode) -> None:
    busy(shared, 1, 60)
    made(shared, 1, 900_000, 0, 0, incomplete=True)
    called(world, "gemma", 1, 900_000, 0)
    assert measured(world).evidence["cost"] == "1.50"


def test_another_node_that_serves_it_alone_counts_whole(world: World, shared: ServingNode) -> None:
    made(serving(world, "gpu-b"), 0, 500_000, 0, 0)
    found = measured(world)
    assert [told["cost"] for told in found.evidence["nodes"]] == ["2.00", "4.00"]
    assert found.rates.input == 6 * USD


def test_a_shared_node_that_nobody_saw_at_work_is_not_divided(world: World) -> None:
    made(serving(world, models=["gemma", "llama"]), 0, 1_000_000, 0, 0)
    with pytest.raises(NodeCostError, match="gpu-a has several models, and was not seen at work"):
        measured(world)


def test_a_model_that_a_shared_node_was_not_asked_for(world: World, shared: ServingNode) -> None:
    ServingNode.objects.update(models=["gemma", "llama", "qwen"])
    with pytest.raises(NodeCostError, match="the nodes cost nothing"):
        measured(world, model="qwen")


def test_a_node_that_costs_nothing_prices_nothing(world: World) -> None:
    made(serving(world, usd_per_hour=0), 0, 1_000_000, 0, 0)
    with pytest.raises(NodeCostError, match="cost nothing"):
        measured(world)
