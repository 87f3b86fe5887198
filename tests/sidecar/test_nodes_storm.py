"""Failing nodes, few slots, callers that leave, workers that are killed: the cap holds in all of it."""

import asyncio
import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from enforcement.rules.policy import HoldMode, Unit
from tests.sidecar.engine import FakeEngine, Writer, send_json
from tests.sidecar.fleet import nodes
from tests.sidecar.plane import Plane
from tests.sidecar.stack import KEY, PRICE, Stack, agent, budget, chat, in_loop
from tests.sidecar.test_supervisor import fleet

LIMIT = 4_000


def moody(seed: int) -> Any:
    """A node that answers, refuses, dies before or in its answer, as a die falls."""
    dice = random.Random(seed)

    async def script(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
        mood = dice.random()
        if mood < 0.25:
            send_json(writer, {"error": {"message": "no"}}, status=503)
        elif mood < 0.35:
            writer.transport.abort()
            raise ConnectionError
        elif mood < 0.45 and body.get("stream"):
            asyncio.get_running_loop().call_later(0.01, writer.transport.abort)
            await engine.generate(body, writer)
        else:
            await engine.generate(body, writer)

    return script


async def call_or_leave(world: Stack, seed: int) -> int:
    """One call of random shape; a fifth of the callers leave. The status; 0: it left."""
    dice = random.Random(seed)
    data = json.dumps(chat(max_tokens=dice.randint(1, 60), stream=dice.random() < 0.6)).encode()
    session = f"x-comptroller-session: s{seed % 7}\r\n" if seed % 2 else ""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n{session}"
        "connection: close\r\n\r\n".encode()
        + data
    )
    try:
        if dice.random() < 0.2:
            await asyncio.sleep(dice.random() * 0.1)
            return 0
        answer = await reader.read()
        return int(answer.split(b" ", 2)[1]) if answer else -1
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("mode", list(HoldMode))
@pytest.mark.parametrize("seed", [1, 2])
def test_attempts_slots_and_leavers_never_pass_the_cap(
    tmp_path: Path, mode: HoldMode, seed: int
) -> None:
    @in_loop
    async def test() -> None:
        cap = budget(LIMIT, Unit.TOKENS, hold_mode=mode)
        plane = Plane(agents=[agent()], budgets=[cap], prices=[PRICE])
        engines = [
            FakeEngine(kind="vllm", delay=0.001, script=moody(seed * 10 + n)) for n in range(3)
        ]
        every = {"concurrency": 4, "queue": 20, "failures": 4, "rest": 0.2}
        async with nodes(tmp_path, engines, plane=plane, every=every, attempts=3) as world:
            statuses = await asyncio.gather(
                *(call_or_leave(world, seed * 1_000 + n) for n in range(150))
            )
            await world.quiet()
            for node in world.service.desk.router.upstreams:
                assert node.slots is not None
                assert (node.running, node.slots.taken, len(node.slots.queue)) == (0, 0, 0)
            assert world.service.desk.metrics.uncaught == 0
            assert not world.service.desk.live
        truth = sum(engine.prompt_tokens + engine.output_tokens for engine in engines)
        balance = plane.balance(cap.id)
        assert truth <= LIMIT
        assert balance.spent <= LIMIT
        assert (balance.held, balance.suspense, balance.overrun) == (0, 0, 0)
        parts = [part for event in plane.events.values() for part in event.parts]
        assert sum(part.amount for part in parts) == balance.spent
        assert plane.duplicates == 0
        assert set(statuses) <= {0, 200, 402, 429, 502, 503}
        assert statuses.count(200) > 10

    test()


def test_killed_workers_never_pass_the_cap(tmp_path: Path) -> None:
    async def test() -> None:
        plane = Plane(agents=[agent()], budgets=[budget(LIMIT, Unit.TOKENS)], prices=[PRICE])
        engine = FakeEngine(kind="vllm", delay=0.002)
        statuses: list[int] = []

        async def spend() -> None:
            for _ in range(400):
                try:
                    status, _, _ = await found.post(max_tokens=20, stream=True)
                except ValueError:  # its worker was killed in the middle
                    status = 0
                statuses.append(status)
                if status in (0, 402):
                    await asyncio.sleep(0.05)

        async with fleet(tmp_path, engine, plane) as found:
            clients = [asyncio.create_task(spend()) for _ in range(8)]
            for n in range(4):
                await asyncio.sleep(0.4)
                children = found.children()
                if children:
                    os.kill(children[n % len(children)], signal.SIGKILL)
            async with asyncio.timeout(20):
                while statuses.count(402) < 20:
                    await asyncio.sleep(0.05)
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
        truth = engine.prompt_tokens + engine.output_tokens
        balance = plane.balance("budget-tokens")
        assert truth <= LIMIT
        assert balance.spent + balance.suspense + balance.held <= LIMIT
        assert balance.overrun == 0
        assert statuses.count(200) > 20

    in_loop(test, within=60)()
