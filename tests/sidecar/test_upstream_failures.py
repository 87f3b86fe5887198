"""Serving nodes that hang, die, lie or answer nonsense: clear errors, nothing lost or doubled."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from enforcement.rules.policy import Unit
from enforcement.rules.wire import Outcome, UsageEvent
from enforcement.sidecar.engines import ABORT_TOKENS, Engine
from tests.sidecar.engine import (
    PROMPT_TOKENS,
    FakeEngine,
    Script,
    Writer,
    end_chunks,
    send_chunk,
    send_json,
    send_raw,
    start_stream,
)
from tests.sidecar.plane import Plane
from tests.sidecar.stack import PRICE, agent, budget, chat, in_loop, stack

HOLD = PROMPT_TOKENS + 10
Result = tuple[int, bytes, UsageEvent, Plane]


async def call(tmp_path: Path, script: Script, *, stream: bool = False, **settings: Any) -> Result:
    """One call of at most 10 tokens against a scripted node, and what was booked for it."""
    engine = FakeEngine(kind="vllm", script=script)
    plane = Plane(agents=[agent()], budgets=[budget(10_000, Unit.TOKENS)], prices=[PRICE])
    async with stack(tmp_path, engine=engine, plane=plane, **settings) as world:
        status, _, body = await world.post(chat(max_tokens=10, stream=stream))
        await world.quiet()
    (event,) = plane.events.values()
    balance = plane.balance("budget-tokens")
    assert (balance.held, balance.suspense, balance.overrun) == (0, 0, 0)
    assert balance.spent == sum(part.amount for part in event.parts)
    return status, body, event, plane


def code_of(body: bytes) -> str:
    return str(json.loads(body)["error"]["code"])


async def hang(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
    await asyncio.sleep(20)


async def die_before_head(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
    writer.transport.abort()
    raise ConnectionError


async def die_in_body(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{")
    await writer.drain()
    await asyncio.sleep(0.02)
    raise ConnectionError


async def html(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
    send_raw(writer, b"<html>Welcome</html>", b"text/html")


async def gzip(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n\x1f\x8b")


async def split_response(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nx: a\nset-cookie: b\r\ncontent-length: 2\r\n\r\n{}")


async def two_lengths(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}")


async def too_long(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n\r\n")


async def upgrade(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n")


@pytest.mark.parametrize(
    "script",
    [die_before_head, die_in_body, html, gzip, split_response, two_lengths, too_long, upgrade],
)
def test_an_answer_that_makes_no_sense_is_502_and_charged_whole(
    tmp_path: Path, script: Script
) -> None:
    @in_loop
    async def test() -> None:
        status, body, event, _ = await call(tmp_path, script)
        assert (status, code_of(body)) == (502, "upstream_failed")
        assert (event.presumed, event.outcome) == (True, Outcome.UPSTREAM_FAILED)
        assert event.parts[0].amount == HOLD

    test()


@in_loop
async def test_a_node_that_hangs_is_504_and_charged_whole(tmp_path: Path) -> None:
    status, body, event, _ = await call(tmp_path, hang, upstream_head_timeout=0.3)
    assert (status, code_of(body)) == (504, "upstream_timeout")
    assert (event.presumed, event.parts[0].amount) == (True, HOLD)


@in_loop
async def test_a_node_that_refuses_owes_nothing(tmp_path: Path) -> None:
    async def refuse(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
        send_json(writer, {"error": {"message": "too long", "code": "ctx"}}, status=400)

    status, body, event, plane = await call(tmp_path, refuse)
    assert (status, code_of(body)) == (400, "ctx")
    assert (event.outcome, event.charge_nanos, event.parts) == (Outcome.UPSTREAM_FAILED, 0, [])
    assert plane.balance("budget-tokens").spent == 0


@in_loop
async def test_the_nodes_own_401_is_not_the_callers(tmp_path: Path) -> None:
    async def refuse(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
        send_json(writer, {"error": {"message": "bad key"}}, status=401)

    status, body, _, _ = await call(tmp_path, refuse)
    assert (status, code_of(body)) == (502, "upstream_refused")


@in_loop
async def test_a_node_that_is_away_owes_nothing(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(10_000, Unit.TOKENS)], prices=[PRICE])
    engine = FakeEngine()
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        assert engine._server is not None
        engine._server.close()
        for connection in list(world.service.desk.router.upstreams[0].pool._all):
            connection.drop()
        status, _, body = await world.post(chat(max_tokens=10))
        await world.quiet()
    assert (status, code_of(body)) == (502, "upstream_unreachable")
    assert plane.balance("budget-tokens").spent == 0


LIES = [
    {"prompt_tokens": -5, "completion_tokens": 3},
    {"prompt_tokens": 7, "completion_tokens": 10**30},
    {"prompt_tokens": 7, "completion_tokens": 2.5},
    {"prompt_tokens": 7, "completion_tokens": "many"},
    {"prompt_tokens": 90_000_000, "completion_tokens": 3},
    {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 99}},
    {"completion_tokens": 3},
    [],
    None,
]


@pytest.mark.parametrize("lie", LIES)
def test_a_usage_that_cannot_be_true_charges_the_whole_hold(tmp_path: Path, lie: object) -> None:
    async def script(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
        send_json(writer, engine.answer(3, "stop") | {"usage": lie})

    @in_loop
    async def test() -> None:
        status, _, event, _ = await call(tmp_path, script)
        assert status == 200
        assert (event.presumed, event.parts[0].amount) == (True, HOLD)

    test()


@in_loop
async def test_a_usage_above_the_hold_is_overrun_not_hidden(tmp_path: Path) -> None:
    async def script(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
        send_json(writer, engine.answer(30, "stop"))

    plane = Plane(agents=[agent()], budgets=[budget(20, Unit.TOKENS)])
    engine = FakeEngine(kind="vllm", script=script)
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        await world.post(chat(max_tokens=10))
        await world.quiet()
    balance = plane.balance("budget-tokens")
    assert balance.spent + balance.overrun == PROMPT_TOKENS + 30
    assert balance.overrun > 0


def stream_script(*events: dict[str, Any] | bytes, done: bool = True, end: bool = True) -> Script:
    async def script(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
        start_stream(writer)
        for event in events:
            if isinstance(event, bytes):
                send_chunk(writer, event)
            else:
                engine.send(writer, event)
        if done:
            send_chunk(writer, b"data: [DONE]\n\n")
        if end:
            end_chunks(writer)
            return
        await writer.drain()
        await asyncio.sleep(0.02)
        raise ConnectionError

    return script


def word(usage: object = ..., reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": "w"}, "finish_reason": reason}
    event: dict[str, Any] = {"id": "c", "model": "toy", "choices": [choice]}
    return event if usage is ... else event | {"usage": usage}


@in_loop
async def test_a_stream_that_dies_ends_well_and_is_charged_by_count(tmp_path: Path) -> None:
    script = stream_script(*[word()] * 5, done=False, end=False)
    status, body, event, _ = await call(tmp_path, script, stream=True)
    frames = body.split(b"\n\n")
    assert status == 200
    assert json.loads(frames[5].removeprefix(b"data: "))["error"]["code"] == "upstream_failed"
    assert frames[6:] == [b"data: [DONE]", b""]
    assert (event.outcome, event.estimated) == (Outcome.UPSTREAM_FAILED, True)
    unseen = ABORT_TOKENS[Engine.VLLM]
    assert (event.input_tokens, event.output_tokens) == (PROMPT_TOKENS, 5 + unseen)


@in_loop
async def test_a_stream_without_usage_or_done_is_counted(tmp_path: Path) -> None:
    script = stream_script(*[word()] * 4, done=False)
    status, body, event, _ = await call(tmp_path, script, stream=True)
    assert (status, body.endswith(b"data: [DONE]\n\n")) == (200, True)
    assert (event.output_tokens, event.estimated, event.outcome) == (4, True, Outcome.COMPLETED)


@in_loop
async def test_shrinking_usage_never_lowers_the_charge(tmp_path: Path) -> None:
    high = {"prompt_tokens": 7, "completion_tokens": 8}
    low = {"prompt_tokens": 7, "completion_tokens": 2}
    script = stream_script(word(high), word(low), word(low, "stop"))
    _, _, event, _ = await call(tmp_path, script, stream=True)
    assert (event.output_tokens, event.estimated) == (8, True)


@in_loop
async def test_usage_far_below_what_was_seen_is_not_believed(tmp_path: Path) -> None:
    engine = FakeEngine(kind="vllm")
    low = {"prompt_tokens": 7, "completion_tokens": 0}
    engine.script = stream_script(*[word()] * 60, word(low, "stop"))
    plane = Plane(agents=[agent()], budgets=[budget(10_000, Unit.TOKENS)])
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        await world.post(chat(max_tokens=100, stream=True))
        await world.quiet()
    (event,) = plane.events.values()
    assert event.estimated
    assert event.output_tokens >= 45


@in_loop
async def test_an_engine_that_ignores_the_limit_is_cut(tmp_path: Path) -> None:
    engine = FakeEngine(kind="vllm", delay=0.001)

    async def endless(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
        start_stream(writer)
        async for _ in engine.tokens(100_000, writer):
            pass

    engine.script = endless
    plane = Plane(agents=[agent()], budgets=[budget(10_000, Unit.TOKENS)])
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        _, _, body = await world.post(chat(max_tokens=20, stream=True))
        await world.quiet()
    assert b'"reason":"limit_ignored"' in body
    assert engine.output_tokens < 60
    (event,) = plane.events.values()
    assert abs(event.output_tokens - engine.output_tokens) <= 2


@in_loop
async def test_strange_frames_pass_and_are_counted(tmp_path: Path) -> None:
    script = stream_script(
        b"\xef\xbb\xbf: hello\r\n\r\n",
        b'data: {"choices":[{"delta":{"content":"a\\ndata: [DONE]\\n"}}]}\r\n\r',
        b'\ndata: {"choices":[{"delta":{"content":"\\"usage\\":{}"}}]}\r\r',
        b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}',
        done=False,
    )
    status, body, event, _ = await call(tmp_path, script, stream=True)
    assert status == 200
    assert body.startswith(b": hello\n\ndata: {")
    assert body.endswith(b'"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')
    assert event.output_tokens == 3
