"""Routes: local first with overflow, cheapest, small or large, and the batch lane."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from enforcement.rules.modelroutes import Choose, Lane, ModelRoute, Target
from enforcement.rules.policy import PricePolicy, Rates, Unit
from enforcement.sidecar.config import ConfigError
from tests.sidecar.engine import PROMPT_TOKENS, FakeEngine
from tests.sidecar.fleet import nodes
from tests.sidecar.plane import Plane
from tests.sidecar.stack import agent, budget, chat, in_loop
from tests.sidecar.test_nodes import refuse

LOCAL_FIRST = ModelRoute("assistant", (Target("local"), Target("cloud")))


def price(model: str, nanos: int) -> PricePolicy:
    return PricePolicy(id=f"price-{model}", model=model, rates=Rates(input=nanos, output=nanos))


def plane(**fields: Any) -> Plane:
    prices = [price("local", 1_000_000), price("cloud", 9_000_000)]
    return Plane(agents=[agent()], **({"prices": prices} | fields))


def pair(**fields: Any) -> list[FakeEngine]:
    return [FakeEngine(kind="vllm", model=name, **fields) for name in ("local", "cloud")]


def ask(**fields: Any) -> dict[str, Any]:
    return chat(model="assistant", **({"max_tokens": 5} | fields))


@in_loop
async def test_local_first_and_charged_as_what_it_was(tmp_path: Path) -> None:
    engines, found = pair(), plane(budgets=[budget(10**9)])
    async with nodes(tmp_path, engines, plane=found, routes=(LOCAL_FIRST,)) as world:
        status, _, _ = await world.post(ask())
        await world.quiet()
        listed = json.loads((await world.raw(MODELS)).split(b"\r\n\r\n", 1)[1])
    assert (status, engines[0].calls, engines[1].calls) == (200, 1, 0)
    assert engines[0].requests[0]["model"] == "local"
    (event,) = found.events.values()
    assert (event.model, event.charge_nanos) == ("local", PROMPT_TOKENS + 5)
    assert [model["id"] for model in listed["data"]] == ["assistant", "cloud", "local"]


MODELS = (
    b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer cmp_live_agent1_secret\r\n"
    b"connection: close\r\n\r\n"
)


@in_loop
async def test_a_failing_node_sends_its_calls_to_the_cloud_at_the_cloud_s_price(
    tmp_path: Path,
) -> None:
    engines, found = pair(), plane(budgets=[budget(10**9)])
    engines[0].script = refuse(503)
    async with nodes(tmp_path, engines, plane=found, routes=(LOCAL_FIRST,)) as world:
        status, _, _ = await world.post(ask())
        await world.quiet()
    assert status == 200
    first, second = sorted(found.events.values(), key=lambda event: event.attempt)
    assert (first.model, first.charge_nanos) == ("local", 0)
    assert (second.model, second.charge_nanos) == ("cloud", 9 * (PROMPT_TOKENS + 5))
    assert found.balance("budget-usd").spent == second.charge_nanos


@in_loop
async def test_a_full_node_overflows_to_the_next_target(tmp_path: Path) -> None:
    engines = pair(delay=0.1)
    each = [{"concurrency": 1}]
    async with nodes(tmp_path, engines, plane=plane(), each=each, routes=(LOCAL_FIRST,)) as world:
        answers = await asyncio.gather(*(world.post(ask()) for _ in range(3)))
    assert [status for status, _, _ in answers] == [200] * 3
    assert [engine.calls for engine in engines] == [1, 2]


@in_loop
async def test_where_all_are_full_the_first_queues(tmp_path: Path) -> None:
    engines = pair(delay=0.1)
    every = {"concurrency": 1}
    async with nodes(tmp_path, engines, plane=plane(), every=every, routes=(LOCAL_FIRST,)) as world:
        await asyncio.gather(*(world.post(ask()) for _ in range(4)))
    assert [engine.calls for engine in engines] == [3, 1]


@in_loop
async def test_the_cheapest_by_the_prices_of_now(tmp_path: Path) -> None:
    engines, found = pair(), plane()
    route = ModelRoute("assistant", (Target("cloud"), Target("local")), Choose.CHEAPEST)
    async with nodes(tmp_path, engines, plane=found, routes=(route,)) as world:
        await world.post(ask())
        found.change_policy(prices=[price("local", 9_000_000), price("cloud", 1_000_000)])
        await asyncio.sleep(0.2)
        await world.post(ask())
    assert [engine.calls for engine in engines] == [1, 1]


@in_loop
async def test_small_prompts_and_large_ones(tmp_path: Path) -> None:
    engines = pair()
    route = ModelRoute("assistant", (Target("local", up_to_prompt_tokens=100), Target("cloud")))
    async with nodes(tmp_path, engines, plane=plane(), routes=(route,)) as world:
        await world.post(ask())
        await world.post(ask(messages=[{"role": "user", "content": "word " * 200}]))
    assert [engine.calls for engine in engines] == [1, 1]


@in_loop
async def test_the_batch_lane_has_its_own_node_and_waits_for_the_others(tmp_path: Path) -> None:
    day, night = (FakeEngine(kind="vllm", model="local", delay=0.05) for _ in range(2))
    route = ModelRoute(
        "assistant",
        (
            Target("local", ("a",), lane=Lane.INTERACTIVE),
            Target("local", ("b",), lane=Lane.BATCH),
        ),
    )
    every = {"priority": True}
    async with nodes(tmp_path, [day, night], plane=plane(), every=every, routes=(route,)) as world:
        await world.post(ask())
        await world.post(ask(), x_comptroller_lane="batch")
        bad, _, _ = await world.post(ask(), x_comptroller_lane="express")
    assert (day.calls, night.calls, bad) == (1, 1, 400)
    assert (day.requests[0]["priority"], night.requests[0]["priority"]) == (0, 1)


@in_loop
async def test_on_a_shared_node_batch_calls_are_served_last(tmp_path: Path) -> None:
    engine = FakeEngine(kind="vllm", model="local", delay=0.05)
    async with nodes(tmp_path, [engine], plane=plane(), every={"concurrency": 1}) as world:
        body = chat(model="local", max_tokens=1)
        batch = [
            asyncio.create_task(world.post(body, x_comptroller_lane="batch")) for _ in range(4)
        ]
        await asyncio.sleep(0.02)
        others = [asyncio.create_task(world.post(body)) for _ in range(4)]
        await asyncio.gather(*others)
        assert sum(task.done() for task in batch) <= 2
        assert {(await task)[0] for task in batch} == {200}


@in_loop
async def test_budgets_follow_the_model_that_was_chosen(tmp_path: Path) -> None:
    cap = budget(1, Unit.REQUESTS, filters={"model": ["local"]})
    engines, found = pair(), plane(budgets=[cap])
    async with nodes(tmp_path, engines, plane=found, routes=(LOCAL_FIRST,)) as world:
        first, _, _ = await world.post(ask())
        second, _, body = await world.post(ask())
        cloud, _, _ = await world.post(chat(model="cloud", max_tokens=1))
    assert (first, second, cloud) == (200, 402, 200)
    assert json.loads(body)["error"]["budget"] == cap.name


@pytest.mark.parametrize(
    ("route", "problem"),
    [
        (ModelRoute("r", ()), "it has no targets"),
        (ModelRoute("r", (Target("r"),)), "a target needs a model, not a route"),
        (ModelRoute("r", (Target("m", ("nowhere",)),)), "no upstream is named 'nowhere'"),
        (ModelRoute("", (Target("m"),)), "a name of its own"),
    ],
)
def test_a_route_that_leads_nowhere_is_refused(
    tmp_path: Path, route: ModelRoute, problem: str
) -> None:
    @in_loop
    async def test() -> None:
        with pytest.raises(ConfigError, match=problem):
            async with nodes(tmp_path, [FakeEngine()], routes=(route,)):
                pass

    test()
