"""Calls that are stopped: what the engine did unheard is never more than what is charged."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from enforcement.rules.policy import OrderKind, Unit
from enforcement.rules.wire import Outcome, UsageEvent
from tests.sidecar.engine import (
    PROMPT_TOKENS,
    FakeEngine,
    Writer,
    send_json,
    start_stream,
)
from tests.sidecar.plane import Plane
from tests.sidecar.stack import AGENT, PRICE, agent, budget, chat, in_loop, stack

LIMIT = 95


async def finishes_anyway(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
    """An engine that makes a whole answer to its end, whoever has left."""
    await asyncio.sleep(0.3)
    made = body["max_tokens"]
    engine.output_tokens += made
    engine.prompt_tokens += PROMPT_TOKENS
    send_json(writer, engine.answer(made, "length"))


async def fails_late(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
    await asyncio.sleep(0.3)
    send_json(writer, {"error": {"message": "out of memory"}}, status=500)


async def goes_on(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
    """An engine that hears no half-close: it says three tokens and makes the others in silence."""
    engine.prompt_tokens += PROMPT_TOKENS
    start_stream(writer)
    for n in range(1, 4):
        engine.send(writer, engine.event({"content": "word "}, n, body))
    await writer.drain()
    await asyncio.sleep(1.0)
    engine.output_tokens += body["max_tokens"]


async def killed(tmp_path: Path, engine: FakeEngine, *, stream: bool) -> tuple[Plane, UsageEvent]:
    """One call, stopped while it runs; its event once all is settled."""
    plane = Plane(agents=[agent()], budgets=[budget(1_000, Unit.TOKENS)], prices=[PRICE])
    async with stack(tmp_path, engine=engine, plane=plane, drain_timeout=0.6) as world:
        call = asyncio.create_task(world.post(chat(max_tokens=LIMIT, stream=stream)))
        async with asyncio.timeout(5):
            while not engine.calls:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        plane.order(OrderKind.KILL, AGENT)
        await call
        await asyncio.sleep(1.2)
        await world.quiet()
    (event,) = plane.events.values()
    return plane, event


@in_loop
async def test_a_whole_answer_that_is_made_after_a_kill_is_charged_as_made(tmp_path: Path) -> None:
    engine = FakeEngine(kind="vllm", script=finishes_anyway)
    plane, event = await killed(tmp_path, engine, stream=False)

    assert event.outcome is Outcome.KILLED
    assert (event.input_tokens, event.output_tokens) == (PROMPT_TOKENS, LIMIT)
    assert (event.presumed, event.estimated) == (False, False)
    assert plane.balance("budget-tokens").spent == engine.prompt_tokens + engine.output_tokens


@in_loop
async def test_a_refusal_after_a_kill_costs_nothing(tmp_path: Path) -> None:
    engine = FakeEngine(kind="vllm", script=fails_late)
    plane, event = await killed(tmp_path, engine, stream=False)

    assert (event.input_tokens, event.output_tokens, event.charge_nanos) == (0, 0, 0)
    assert plane.balance("budget-tokens").spent == 0


@pytest.mark.parametrize("kind", ["vllm", "llamacpp"])
def test_an_engine_that_nobody_heard_stop_is_charged_all_that_was_held(
    tmp_path: Path, kind: str
) -> None:
    @in_loop
    async def test() -> None:
        engine = FakeEngine(kind=kind, script=goes_on)
        plane, event = await killed(tmp_path, engine, stream=True)

        assert (event.outcome, event.output_tokens) == (Outcome.KILLED, LIMIT)
        balance = plane.balance("budget-tokens")
        assert engine.prompt_tokens + engine.output_tokens <= balance.spent
        assert (balance.held, balance.suspense, balance.overrun) == (0, 0, 0)

    test()
