"""What thresholds that were reached do to calls, with real HTTP in the sidecar."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from enforcement.rules.policy import BudgetPolicy, Measure, Mode, PolicySnapshot, ScopeKind, Unit
from enforcement.rules.thresholds import MEASURES
from enforcement.rules.verdicts import Cut
from enforcement.sidecar.measures import Measures, target_of
from tests.sidecar.engine import FakeEngine
from tests.sidecar.plane import Plane
from tests.sidecar.stack import agent, budget, chat, events_of, in_loop, stack

SOFT = budget(1_000, Unit.TOKENS, id="soft", name="Soft cap", mode=Mode.SOFT, per="user")


def measure(kind: str, value: str = "ann", percent: int = 100, **more: Any) -> Measure:
    return Measure(budget="soft", value=value, kind=kind, percent=percent, **more)


def plane(*measures: Measure) -> Plane:
    return Plane(agents=[agent()], budgets=[SOFT], measures=list(measures))


@pytest.mark.parametrize(
    ("kind", "status", "reason", "words"),
    [
        ("pause", 403, "budget_paused", "its calls wait for a decision by people"),
        ("refuse", 402, "budget_threshold", "Budget Soft cap has reached 100 % of its limit"),
        ("cut", 402, "budget_threshold", "has reached 100 %"),
    ],
)
def test_new_calls_of_the_balance_are_refused(
    tmp_path: Path, kind: str, status: int, reason: str, words: str
) -> None:
    @in_loop
    async def run() -> None:
        async with stack(tmp_path, plane=plane(measure(kind))) as world:
            got, _, body = await world.post(chat(max_tokens=4, user="ann"))
            other, _, _ = await world.post(chat(max_tokens=4, user="bob"))
            error = json.loads(body)["error"]
            assert (got, error["reason"], other) == (status, reason, 200)
            assert words in error["message"]
            assert error["budget_id"] == "soft"

    run()


@in_loop
async def test_a_call_is_rerouted_and_counted_as_what_it_became(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.more_models = ["tiny"]
    measures = plane(measure("reroute", model="tiny"))
    async with stack(tmp_path, plane=measures, engine=engine) as world:
        status, _, _ = await world.post(chat(max_tokens=4, user="ann"))
        await world.post(chat(max_tokens=4, user="bob"))
        await world.quiet()
    assert status == 200
    assert sorted(event.model for event in measures.events.values()) == ["tiny", "toy"]
    assert [body["model"] for body in engine.requests] == ["tiny", "toy"]


@in_loop
async def test_a_reroute_to_nowhere_is_told(tmp_path: Path) -> None:
    async with stack(tmp_path, plane=plane(measure("reroute", model="gone"))) as world:
        status, _, body = await world.post(chat(max_tokens=4, user="ann"))
    assert (status, json.loads(body)["error"]["code"]) == (404, "model_not_found")


@in_loop
async def test_calls_are_throttled_to_the_rate(tmp_path: Path) -> None:
    async with stack(tmp_path, plane=plane(measure("throttle", requests_per_minute=2))) as world:
        statuses = [(await world.post(chat(max_tokens=4, user="ann")))[0] for _ in range(4)]
        other = (await world.post(chat(max_tokens=4, user="bob")))[0]
        first = world.plane.policy
        world.plane.change_policy(measures=[*first.measures, measure("notify", percent=80)])
        await asyncio.sleep(0.3)
        again = (await world.post(chat(max_tokens=4, user="ann")))[0]
        world.plane.change_policy(measures=[])
        await asyncio.sleep(0.3)
        lifted = (await world.post(chat(max_tokens=4, user="ann")))[0]
    assert (statuses, other, again, lifted) == ([200, 200, 429, 429], 200, 429, 200)


@in_loop
async def test_running_calls_are_cut_when_the_measure_comes(tmp_path: Path) -> None:
    engine = FakeEngine(delay=0.01)
    async with stack(tmp_path, plane=plane(), engine=engine) as world:
        running = asyncio.create_task(world.post(chat(max_tokens=500, user="ann", stream=True)))
        spared = asyncio.create_task(world.post(chat(max_tokens=500, user="bob", stream=True)))
        await asyncio.sleep(0.3)
        world.plane.change_policy(measures=[measure("cut", percent=120)])
        status, _, body = await asyncio.wait_for(running, 3)
        assert status == 200
        note = events_of(body)[-1]["comptroller"]
        assert (note["outcome"], note["reason"]) == ("cut", "budget_threshold")
        assert note["message"] == "Budget Soft cap has reached 120 % of its limit"
        assert not spared.done()
        spared.cancel()


def test_without_measures_nothing_is_looked_up() -> None:
    measures = Measures(PolicySnapshot("o", 1, budgets=[SOFT]), previous=None)
    assert measures.of(None) == ()  # type: ignore[arg-type]


def test_the_highest_threshold_names_the_model() -> None:
    low, high = measure("reroute", model="m1", percent=80), measure("reroute", model="m2")
    assert target_of([low, high], "big") == "m2"
    assert target_of([low, high], "m2") == ""
    assert target_of([measure("pause")], "big") == ""


def test_every_measure_stops_slows_or_moves_a_call() -> None:
    policy = BudgetPolicy("soft", "S", ScopeKind.AGENT, "a", Unit.TOKENS, 10)
    for kind in MEASURES - {"throttle", "reroute"}:
        one = Measure("soft", "", kind.value, 100)
        measures = Measures(PolicySnapshot("o", 1, budgets=[policy], measures=[one]), previous=None)
        assert measures.refusal([one]) is not None
        assert isinstance(measures.cut([one]), Cut) is (kind == "cut")
