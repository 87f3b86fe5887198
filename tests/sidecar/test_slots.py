"""Calls at once on a node: agents in turn, a bounded queue, and nothing lost on the way."""

import asyncio
import json
import time
from pathlib import Path

import msgspec
import pytest

from enforcement.rules.policy import AgentPolicy, OrderKind, Unit
from enforcement.sidecar.config import ConfigError
from tests.sidecar.engine import FakeEngine
from tests.sidecar.fleet import nodes
from tests.sidecar.plane import Plane, key_policy
from tests.sidecar.stack import PRICE, Stack, budget, chat, in_loop

KEYS = {name: f"cmp_live_{name}_secret" for name in ("flood", "calm", "third")}


def agents(**priorities: int) -> list[AgentPolicy]:
    return [
        AgentPolicy(id=name, slug=name, keys=[key_policy(key)], priority=priorities.get(name, 0))
        for name, key in KEYS.items()
    ]


async def call(world: Stack, name: str, tokens: int = 1) -> tuple[int, dict[str, str], bytes]:
    return await world.post(chat(max_tokens=tokens), authorization=f"Bearer {KEYS[name]}")


async def waiting(world: Stack, count: int) -> None:
    slots = world.service.desk.router.upstreams[0].slots
    assert slots is not None
    async with asyncio.timeout(5):
        while len(slots.queue) < count:
            await asyncio.sleep(0.005)


def idle(world: Stack) -> bool:
    slots = world.service.desk.router.upstreams[0].slots
    return slots is not None and (slots.taken, len(slots.queue), slots.queue.using) == (0, 0, {})


@in_loop
async def test_a_node_gets_no_more_than_its_slots(tmp_path: Path) -> None:
    engine = FakeEngine(delay=0.05)
    plane = Plane(agents=agents(), prices=[PRICE])
    async with nodes(tmp_path, [engine], plane=plane, every={"concurrency": 2}) as world:
        began = time.monotonic()
        calls = [asyncio.create_task(call(world, "calm")) for _ in range(8)]
        await waiting(world, 6)
        assert world.service.desk.router.upstreams[0].running == 2
        answers = [await task for task in calls]
        assert idle(world)
    assert [status for status, _, _ in answers] == [200] * 8
    assert time.monotonic() - began >= 4 * 0.05


@in_loop
async def test_a_flood_of_one_agent_does_not_starve_another(tmp_path: Path) -> None:
    engine = FakeEngine(delay=0.05)
    plane = Plane(agents=agents(), prices=[PRICE])
    async with nodes(tmp_path, [engine], plane=plane, every={"concurrency": 2}) as world:
        flood = [asyncio.create_task(call(world, "flood")) for _ in range(30)]
        await waiting(world, 28)
        began = time.monotonic()
        status, _, _ = await call(world, "calm")
        took = time.monotonic() - began
        done = sum(task.done() for task in flood)
        statuses = [(await task)[0] for task in flood]
    assert status == 200
    assert done <= 6  # not behind the 28 that came before it
    assert took < 28 * 0.05 / 2 / 2
    assert set(statuses) == {200}


@in_loop
async def test_a_full_queue_answers_429_and_drops_from_the_flood(tmp_path: Path) -> None:
    engine = FakeEngine(delay=0.1)
    plane = Plane(agents=agents(), prices=[PRICE])
    every = {"concurrency": 1, "queue": 3}
    async with nodes(tmp_path, [engine], plane=plane, every=every) as world:
        flood = [asyncio.create_task(call(world, "flood")) for _ in range(6)]
        await waiting(world, 3)
        calm, _, _ = await call(world, "calm")
        answers = [await task for task in flood]
        assert idle(world)
        refusals = world.service.desk.metrics.refusals["node_busy"]
    assert calm == 200
    busy = [answer for answer in answers if answer[0] == 429]
    assert (len(busy), refusals) == (3, 3)
    assert json.loads(busy[0][2])["error"]["reason"] == "node_busy"
    assert 1 <= int(busy[0][1]["retry-after"]) <= 30


@in_loop
async def test_nobody_waits_beyond_the_deadline_of_the_queue(tmp_path: Path) -> None:
    engine = FakeEngine(delay=0.6)
    plane = Plane(agents=agents(), prices=[PRICE])
    every = {"concurrency": 1, "queue_timeout": 0.2}
    async with nodes(tmp_path, [engine], plane=plane, every=every) as world:
        first = asyncio.create_task(call(world, "calm"))
        await asyncio.sleep(0.1)
        began = time.monotonic()
        status, _, _ = await call(world, "flood")
        took = time.monotonic() - began
        assert (await first)[0] == 200
        assert idle(world)
    assert status == 429
    assert 0.15 < took < 0.5


@in_loop
async def test_an_agent_has_a_bound_of_its_own(tmp_path: Path) -> None:
    engine = FakeEngine(delay=0.1)
    plane = Plane(agents=agents(), prices=[PRICE])
    every = {"concurrency": 4, "concurrency_per_agent": 1}
    async with nodes(tmp_path, [engine], plane=plane, every=every) as world:
        calls = [asyncio.create_task(call(world, "flood")) for _ in range(3)]
        await waiting(world, 2)
        calls.append(asyncio.create_task(call(world, "calm")))
        await asyncio.sleep(0.05)
        assert world.service.desk.router.upstreams[0].running == 2
        assert {(await task)[0] for task in calls} == {200}


@in_loop
async def test_a_higher_priority_gets_more_of_a_busy_node(tmp_path: Path) -> None:
    engine = FakeEngine(delay=0.05)
    plane = Plane(agents=agents(calm=2), prices=[PRICE])
    async with nodes(tmp_path, [engine], plane=plane, every={"concurrency": 4}) as world:
        flood = [asyncio.create_task(call(world, "flood")) for _ in range(20)]
        calm = [asyncio.create_task(call(world, "calm")) for _ in range(20)]
        while sum(task.done() for task in flood + calm) < 24:
            await asyncio.sleep(0.01)
        ahead = sum(task.done() for task in calm), sum(task.done() for task in flood)
        await asyncio.gather(*flood, *calm)
    assert ahead[0] > ahead[1]


@in_loop
async def test_who_leaves_the_queue_takes_no_slot(tmp_path: Path) -> None:
    engine = FakeEngine(delay=0.2)
    plane = Plane(agents=agents(), prices=[PRICE])
    async with nodes(tmp_path, [engine], plane=plane, every={"concurrency": 1}) as world:
        first = asyncio.create_task(call(world, "calm"))
        await asyncio.sleep(0.05)
        gone = [asyncio.create_task(call(world, "flood")) for _ in range(5)]
        await waiting(world, 5)
        for task in gone:
            task.cancel()
        await first
        assert (await call(world, "third"))[0] == 200
        assert idle(world)
    assert engine.calls == 2


@in_loop
async def test_a_kill_empties_the_queue_of_its_agent(tmp_path: Path) -> None:
    engine = FakeEngine(delay=0.3)
    plane = Plane(agents=agents(), prices=[PRICE])
    async with nodes(tmp_path, [engine], plane=plane, every={"concurrency": 1}) as world:
        first = asyncio.create_task(call(world, "calm"))
        await asyncio.sleep(0.05)
        killed = [asyncio.create_task(call(world, "flood")) for _ in range(5)]
        await waiting(world, 5)
        plane.order(OrderKind.KILL, "flood")
        statuses = [(await task)[0] for task in killed]
        assert (await first)[0] == 200
        assert idle(world)
    assert statuses == [403] * 5
    assert engine.calls == 1


@in_loop
async def test_who_waits_for_a_node_holds_no_money(tmp_path: Path) -> None:
    caps = [budget(1_000, Unit.TOKENS, id=name, name=name) for name in KEYS]
    caps = [msgspec.structs.replace(cap, scope_id=cap.id) for cap in caps]
    plane = Plane(agents=agents(), budgets=caps, prices=[PRICE])
    engine = FakeEngine(kind="vllm", delay=0.2)
    async with nodes(tmp_path, [engine], plane=plane, every={"concurrency": 1}) as world:
        calls = [asyncio.create_task(call(world, name)) for name in KEYS]
        await waiting(world, 2)
        assert len(world.service.desk.book.lots.holds) <= 1
        assert [(await task)[0] for task in calls] == [200] * 3
        await world.quiet()
    assert [plane.balance(name).spent for name in KEYS] == [8, 8, 8]


@in_loop
async def test_workers_need_a_slot_each(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least that of workers"):
        async with nodes(tmp_path, [FakeEngine()], every={"concurrency": 1}, workers=2):
            pass


@in_loop
async def test_slots_are_shared_among_workers(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with nodes(tmp_path, [engine], every={"concurrency": 5}, workers=2) as world:
        slots = world.service.desk.router.upstreams[0].slots
        assert slots is not None
        assert slots.permits == 2
