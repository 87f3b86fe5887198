"""Kill, pause, resume, throttle; and clients that leave."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from enforcement.rules.policy import AgentState, OrderKind, Unit
from enforcement.rules.wire import Outcome
from enforcement.sidecar.engines import ABORT_TOKENS, Engine
from tests.sidecar.engine import FakeEngine, Writer, end_chunks, send_chunk, start_stream
from tests.sidecar.plane import Plane
from tests.sidecar.stack import (
    AGENT,
    KEY,
    PRICE,
    Stack,
    agent,
    budget,
    chat,
    events_of,
    in_loop,
    stack,
)


def slow_world(tmp_path: Path, kind: str = "llamacpp") -> tuple[Plane, FakeEngine]:
    plane = Plane(agents=[agent()], budgets=[budget(100_000, Unit.TOKENS)], prices=[PRICE])
    return plane, FakeEngine(kind=kind, delay=0.01)


async def wait_for_tokens(engine: FakeEngine, count: int) -> None:
    async with asyncio.timeout(5):
        while engine.output_tokens < count:
            await asyncio.sleep(0.005)


@in_loop
async def test_a_kill_cuts_streams_refuses_calls_and_is_acknowledged(tmp_path: Path) -> None:
    plane, engine = slow_world(tmp_path)
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        running = [
            asyncio.create_task(world.post(chat(max_tokens=500, stream=True))) for _ in range(5)
        ]
        await wait_for_tokens(engine, 25)
        began = time.monotonic()
        order = plane.order(OrderKind.KILL, AGENT)
        answers = [await task for task in running]
        took = time.monotonic() - began
        refused, headers, body = await world.post(chat())
        await world.quiet()
        async with asyncio.timeout(2):
            while order.id not in plane.acknowledgements:
                await asyncio.sleep(0.01)
        plane.order(OrderKind.RESUME, AGENT)
        await asyncio.sleep(0.2)
        resumed, _, _ = await world.post(chat(max_tokens=1))
    assert took < 0.5
    for _, _, answer in answers:
        last = events_of(answer)[-1]
        assert last["choices"][0]["finish_reason"] == "length"
        assert (last["comptroller"]["reason"], last["comptroller"]["order"]) == (
            "agent_killed",
            order.id,
        )
    acknowledgement = plane.acknowledgements[order.id]
    assert acknowledgement.streams_cut == 5
    assert acknowledgement.last_byte_ms < 50
    assert (refused, headers["x-should-retry"]) == (403, "false")
    assert json.loads(body)["error"]["code"] == "agent_killed"
    assert resumed == 200
    killed = [event for event in plane.events.values() if event.outcome is Outcome.KILLED]
    assert len(killed) == 5
    assert {event.stopped_by for event in killed} == {order.id}
    metered = sum(event.output_tokens for event in plane.events.values())
    assert abs(metered - engine.output_tokens) <= 5


@in_loop
async def test_a_kill_ends_a_whole_answer_too(tmp_path: Path) -> None:
    plane, engine = slow_world(tmp_path)
    engine.delay = 3.0
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        running = asyncio.create_task(world.post(chat(max_tokens=20)))
        await asyncio.sleep(0.2)
        plane.order(OrderKind.KILL, AGENT)
        status, _, body = await running
        await world.quiet()
    assert (status, json.loads(body)["error"]["code"]) == (403, "agent_killed")
    (event,) = plane.events.values()
    assert (event.outcome, event.presumed) == (Outcome.KILLED, True)


@in_loop
async def test_a_paused_agent_in_the_policy_is_refused(tmp_path: Path) -> None:
    plane = Plane(agents=[agent(state=AgentState.PAUSED)])
    async with stack(tmp_path, plane=plane) as world:
        status, _, body = await world.post(chat())
        plane.change_policy(agents=[agent()])
        await asyncio.sleep(0.2)
        again, _, _ = await world.post(chat(max_tokens=1))
    assert (status, json.loads(body)["error"]["code"]) == (403, "agent_paused")
    assert again == 200


@in_loop
async def test_a_revoked_key_is_refused_with_the_next_policy(tmp_path: Path) -> None:
    async with stack(tmp_path) as world:
        assert (await world.post(chat(max_tokens=1)))[0] == 200
        world.plane.change_policy(agents=[agent()], revoked_cards=[])
        world.plane.change_policy(agents=[])
        await asyncio.sleep(0.2)
        status, _, body = await world.post(chat(max_tokens=1))
    assert (status, json.loads(body)["error"]["code"]) == (401, "invalid_api_key")


@in_loop
async def test_rates_throttle_then_refuse(tmp_path: Path) -> None:
    plane = Plane(agents=[agent(requests_per_minute=3)])
    async with stack(tmp_path, plane=plane, grant_timeout=0.2) as world:
        answers = [await world.post(chat(max_tokens=1)) for _ in range(4)]
    assert [status for status, _, _ in answers] == [200, 200, 200, 429]
    _, headers, body = answers[3]
    assert 19 <= int(headers["retry-after"]) <= 20
    assert json.loads(body)["error"]["reason"] == "requests_per_minute"


@in_loop
async def test_a_rate_that_frees_soon_is_waited_for(tmp_path: Path) -> None:
    plane = Plane(agents=[agent(requests_per_minute=300)])
    async with stack(tmp_path, plane=plane) as world:
        first = world.service.desk.view
        assert first is not None
        began = time.monotonic()
        found = first.agents[AGENT]
        from enforcement.sidecar import clock

        found.rates.requests_tat_ns = clock.now_ns() + 60_000_000_000
        status, _, _ = await world.post(chat(max_tokens=1))
    assert status == 200
    assert 0.15 < time.monotonic() - began < 0.6


@in_loop
async def test_unused_tokens_go_back_to_the_token_rate(tmp_path: Path) -> None:
    plane = Plane(agents=[agent(tokens_per_minute=2_000)])
    engine = FakeEngine(kind="vllm")
    engine.natural_length = 5
    async with stack(tmp_path, engine=engine, plane=plane, grant_timeout=0.1) as world:
        answers = [await world.post(chat(max_tokens=900)) for _ in range(6)]
    assert [status for status, _, _ in answers] == [200] * 6


async def open_stream(world: Stack) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    body = json.dumps(chat(max_tokens=900, stream=True)).encode()
    writer.write(
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        + body
    )
    await reader.readuntil(b"word")
    return reader, writer


@in_loop
async def test_a_client_that_leaves_pays_for_what_was_generated(tmp_path: Path) -> None:
    plane, engine = slow_world(tmp_path)
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        _, writer = await open_stream(world)
        await wait_for_tokens(engine, 20)
        writer.close()
        await world.quiet()
        produced = engine.output_tokens
    assert engine.output_tokens == produced
    (event,) = plane.events.values()
    assert event.outcome is Outcome.CLIENT_GONE
    assert 0 <= event.output_tokens - produced <= ABORT_TOKENS[Engine.LLAMA_CPP]
    assert plane.balance("budget-tokens").spent == event.input_tokens + event.output_tokens
    assert plane.balance("budget-tokens").held == 0


async def deaf(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
    """An engine that ends its answer whole, and keeps the connection, whoever has left."""
    if not body.get("stream"):
        await engine.generate(body, writer)
        return
    start_stream(writer)
    engine.send(writer, engine.event({"content": "word "}, 1, body))
    await writer.drain()
    await asyncio.sleep(0.2)
    engine.send(writer, engine.event({}, 1, body, reason="stop"))
    send_chunk(writer, b"data: [DONE]\n\n")
    end_chunks(writer)
    await writer.drain()
    await asyncio.sleep(0.3)


@in_loop
async def test_a_half_closed_connection_carries_no_second_call(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(100_000, Unit.TOKENS)], prices=[PRICE])
    engine = FakeEngine(kind="vllm", script=deaf)
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        _, writer = await open_stream(world)
        writer.close()
        async with asyncio.timeout(5):
            while not plane.events:
                await asyncio.sleep(0.005)
        status, _, _ = await world.post(chat(max_tokens=1))
        await world.quiet()
    assert status == 200
    assert [event.outcome for event in plane.events.values()] == [
        Outcome.CLIENT_GONE,
        Outcome.COMPLETED,
    ]
    assert plane.balance("budget-tokens").held == 0


@in_loop
async def test_a_client_that_leaves_a_whole_answer_pays_its_usage(tmp_path: Path) -> None:
    plane, engine = slow_world(tmp_path)
    engine.delay = 0.3
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        task = asyncio.create_task(world.post(chat(max_tokens=20)))
        await asyncio.sleep(0.1)
        task.cancel()
        await world.quiet()
        async with asyncio.timeout(2):
            while not plane.events:
                await asyncio.sleep(0.01)
    (event,) = plane.events.values()
    assert (event.outcome, event.output_tokens, event.presumed) == (Outcome.CLIENT_GONE, 20, False)


@in_loop
async def test_a_slow_reader_slows_the_engine(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()])
    engine = FakeEngine(kind="plain", context=2_000_000)
    async with stack(tmp_path, engine=engine, plane=plane, context_window=2_000_000) as world:
        _, writer = await asyncio.open_connection("127.0.0.1", world.port)
        body = json.dumps(chat(max_tokens=1_000_000, stream=True)).encode()
        writer.write(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        writer.transport.pause_reading()
        before, after = -1, 0
        async with asyncio.timeout(10):
            while before != after:
                before = engine.output_tokens
                await asyncio.sleep(0.5)
                after = engine.output_tokens
        writer.transport.abort()
    assert 0 < after < 500_000
