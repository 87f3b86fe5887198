"""Many callers at once, some of whom leave, on caps that do not last: the sums stay exact."""

import asyncio
import json
import random
from pathlib import Path

import pytest

from enforcement.rules.policy import HoldMode, OrderKind, Unit
from enforcement.sidecar.engines import ABORT_TOKENS, Engine
from enforcement.sidecar.service import Service
from tests.sidecar.engine import FakeEngine
from tests.sidecar.plane import Plane
from tests.sidecar.stack import (
    AGENT,
    KEY,
    PRICE,
    Stack,
    agent,
    budget,
    chat,
    in_loop,
    make_config,
    ready,
    stack,
)

LIMIT = 6_000


async def call_or_leave(world: Stack, seed: int) -> None:
    """One call of random shape; a third of the callers leave in the middle."""
    dice = random.Random(seed)
    body = chat(max_tokens=dice.randint(1, 120), stream=dice.random() < 0.8)
    data = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n"
        "connection: close\r\n\r\n".encode()
        + data
    )
    try:
        async with asyncio.timeout(dice.choice([0.02, 0.1, 20.0])):
            await reader.read()
    except (TimeoutError, ConnectionError):
        writer.transport.abort()
    writer.close()


@pytest.mark.parametrize("mode", list(HoldMode))
@pytest.mark.parametrize("seed", [1, 2])
def test_a_storm_never_passes_the_cap(tmp_path: Path, mode: HoldMode, seed: int) -> None:
    @in_loop
    async def test() -> None:
        cap = budget(LIMIT, Unit.TOKENS, hold_mode=mode)
        plane = Plane(agents=[agent()], budgets=[cap, budget(10**12)], prices=[PRICE])
        engine = FakeEngine(kind="vllm", delay=0.002)
        async with stack(tmp_path, engine=engine, plane=plane) as world:
            calls = [
                asyncio.create_task(call_or_leave(world, seed * 1_000 + n)) for n in range(120)
            ]
            await asyncio.sleep(0.15)
            plane.order(OrderKind.KILL, AGENT)
            await asyncio.sleep(0.1)
            plane.order(OrderKind.RESUME, AGENT)
            await asyncio.gather(*calls)
            await world.quiet()
        truth = engine.prompt_tokens + engine.output_tokens
        balance = plane.balance("budget-tokens")
        unseen = ABORT_TOKENS[Engine.VLLM] * engine.calls
        assert truth <= LIMIT
        assert truth <= balance.spent + balance.overrun <= truth + unseen + 130 * 60
        assert (balance.held, balance.suspense, balance.overrun) == (0, 0, 0)
        parts = [p for e in plane.events.values() for p in e.parts if p.budget == cap.id]
        assert sum(part.amount for part in parts) == balance.spent
        dollars = plane.balance("budget-usd")
        assert sum(event.charge_nanos for event in plane.events.values()) == dollars.spent
        assert len(plane.events) >= engine.calls
        assert plane.duplicates == 0

    test()


@in_loop
async def test_two_sidecars_share_a_cap_to_its_end(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(LIMIT, Unit.TOKENS)], prices=[PRICE])
    engine = FakeEngine(kind="llamacpp", delay=0.001)
    async with stack(tmp_path / "a", engine=engine, plane=plane) as first:
        service = Service(make_config(tmp_path / "b", engine=engine, plane=plane))
        running = asyncio.create_task(service.run())
        second = Stack(engine, plane, service)
        await ready(second)
        statuses: list[int] = []

        async def spend(world: Stack) -> None:
            while True:
                status, _, _ = await world.post(chat(max_tokens=50))
                statuses.append(status)
                if status == 402:
                    return

        async with asyncio.timeout(20):
            await asyncio.gather(*(spend(world) for world in (first, second) for _ in range(4)))
        await first.quiet()
        await second.quiet()
        service.stop()
        assert await running == 0
    truth = engine.prompt_tokens + engine.output_tokens
    balance = plane.balance("budget-tokens")
    assert balance.spent == truth <= LIMIT
    assert LIMIT - truth < 16 + 7
    assert set(statuses) <= {200, 402, 429}
