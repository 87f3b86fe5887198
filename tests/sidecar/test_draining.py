"""Nodes that people take out of service: no new calls, and nothing is cut."""

import asyncio
import json
from pathlib import Path

from tests.sidecar.engine import FakeEngine
from tests.sidecar.fleet import nodes
from tests.sidecar.plane import Plane
from tests.sidecar.stack import PRICE, Stack, agent, chat, in_loop


async def drain(world: Stack, *names: str) -> None:
    world.plane.change_policy(draining=list(names))
    revision = world.plane.policy.revision
    async with asyncio.timeout(5):
        while world.desk.view is None or world.desk.view.snapshot.revision < revision:
            await asyncio.sleep(0.01)


@in_loop
async def test_a_draining_node_gets_no_new_call_until_it_is_back(tmp_path: Path) -> None:
    one, two = FakeEngine(), FakeEngine()
    async with nodes(tmp_path, [one, two]) as world:
        await drain(world, "a")
        for _ in range(4):
            assert (await world.post(chat(max_tokens=1)))[0] == 200
        assert (one.calls, two.calls) == (0, 4)
        await drain(world, "b")
        for _ in range(3):
            assert (await world.post(chat(max_tokens=1)))[0] == 200
    assert (one.calls, two.calls) == (3, 4)


@in_loop
async def test_what_runs_on_it_ends_by_itself(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], prices=[PRICE])
    engine = FakeEngine(delay=0.05)
    async with nodes(tmp_path, [engine], plane=plane) as world:
        running = asyncio.create_task(world.post(chat(max_tokens=10)))
        async with asyncio.timeout(5):
            while not engine.calls:
                await asyncio.sleep(0.01)
        await drain(world, "a")
        refused, headers, body = await world.post(chat(max_tokens=1))
        status, _, _ = await running
        await world.quiet()
    assert (refused, headers["retry-after"]) == (503, "30")
    assert json.loads(body)["error"]["reason"] == "nodes_draining"
    assert (status, engine.calls) == (200, 1)
    assert [event.outcome.value for event in plane.events.values()] == ["completed"]


@in_loop
async def test_a_session_moves_and_comes_back_to_its_node(tmp_path: Path) -> None:
    engines = [FakeEngine(), FakeEngine(), FakeEngine()]
    async with nodes(tmp_path, engines) as world:

        async def node(session: str = "run-7") -> str:
            before = [engine.calls for engine in engines]
            assert (await world.post(chat(max_tokens=1), x_comptroller_session=session))[0] == 200
            return "abc"[[e.calls - b for e, b in zip(engines, before, strict=True)].index(1)]

        home = await node()
        await drain(world, home)
        assert await node() != home
        await drain(world)
        assert await node() == home
        assert len({await node(f"run-{number}") for number in range(12)}) == 3


@in_loop
async def test_where_the_others_fail_the_caller_hears_of_that(tmp_path: Path) -> None:
    async def refuse(engine: FakeEngine, body: object, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 500 X\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
        )

    engines = [FakeEngine(), FakeEngine(script=refuse)]
    async with nodes(tmp_path, engines, every={"failures": 1, "rest": 5.0}) as world:
        await drain(world, "a")
        await world.post(chat(max_tokens=1))
        status, _, body = await world.post(chat(max_tokens=1))
    assert (status, json.loads(body)["error"]["reason"]) == (503, "nodes_failing")
    assert engines[0].calls == 0
