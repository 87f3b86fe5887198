"""Many nodes: who takes a call, what happens when one fails, and that each attempt is paid once."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from enforcement.rules.policy import Unit
from enforcement.rules.wire import Outcome, UsageEvent
from tests.sidecar.engine import PROMPT_TOKENS, FakeEngine, Script, Writer, send_raw
from tests.sidecar.fleet import nodes
from tests.sidecar.plane import Plane
from tests.sidecar.stack import PRICE, agent, budget, chat, events_of, in_loop

HOLD = PROMPT_TOKENS + 10


def refuse(status: int, headers: str = "") -> Script:
    async def script(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
        text = b'{"error": {"message": "no"}}'
        writer.write(
            f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}"
            f"content-length: {len(text)}\r\n\r\n".encode()
            + text
        )

    return script


async def die(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
    writer.transport.abort()
    raise ConnectionError


async def die_in_stream(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
    writer.write(b"transfer-encoding: chunked\r\n\r\n")
    engine.send(writer, engine.event({"content": "word "}, 1, body))
    await writer.drain()
    await asyncio.sleep(0.05)
    raise ConnectionError


def tokens_plane(limit: int = 10_000) -> Plane:
    return Plane(agents=[agent()], budgets=[budget(limit, Unit.TOKENS)], prices=[PRICE])


def by_attempt(plane: Plane) -> Sequence[UsageEvent]:
    return sorted(plane.events.values(), key=lambda event: event.attempt)


@pytest.mark.parametrize("script", [refuse(503), refuse(500), refuse(429), refuse(529)])
@pytest.mark.parametrize("stream", [False, True])
def test_a_node_that_refuses_is_followed_by_another(
    tmp_path: Path, script: Script, stream: bool
) -> None:
    @in_loop
    async def test() -> None:
        plane = tokens_plane()
        bad, good = FakeEngine(kind="vllm", script=script), FakeEngine(kind="vllm")
        async with nodes(tmp_path, [bad, good], plane=plane) as world:
            status, _, body = await world.post(chat(max_tokens=10, stream=stream))
            await world.quiet()
        assert status == 200
        if stream:
            assert events_of(body)[-1]["choices"][0]["finish_reason"] == "length"
        first, second = by_attempt(plane)
        assert (first.node, first.outcome, first.parts) == ("a", Outcome.UPSTREAM_FAILED, [])
        assert (second.node, second.outcome, second.attempt) == ("b", Outcome.COMPLETED, 2)
        balance = plane.balance("budget-tokens")
        assert (balance.spent, balance.held) == (HOLD, 0)
        assert (bad.calls, good.calls) == (1, 1)

    test()


@in_loop
async def test_a_second_attempt_says_so_where_first_ones_were_before(tmp_path: Path) -> None:
    """What calls of one size have in common is kept; which attempt one is, is its own."""
    plane = tokens_plane()
    failing = [False]

    async def answer(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
        await (refuse(503) if failing[0] else FakeEngine.generate)(engine, body, writer)

    engines = [FakeEngine(delay=0.05, script=answer), FakeEngine(delay=0.05)]
    async with nodes(tmp_path, engines, plane=plane) as world:
        await asyncio.gather(*(world.post(chat(max_tokens=10)) for _ in range(6)))
        failing[0] = True
        await asyncio.gather(*(world.post(chat(max_tokens=10)) for _ in range(2)))
        await world.quiet()
    events = plane.events.values()
    assert {event.node for event in events if event.attempt == 1} == {"a", "b"}
    seconds = [event for event in events if event.attempt == 2]
    failed = [event for event in events if event.outcome is Outcome.UPSTREAM_FAILED]
    assert [event.node for event in seconds] == ["b"] * len(failed)
    assert failed


@in_loop
async def test_an_attempt_that_nobody_heard_of_again_is_paid_and_followed(tmp_path: Path) -> None:
    plane = tokens_plane()
    bad, good = FakeEngine(kind="vllm", script=die), FakeEngine(kind="vllm")
    async with nodes(tmp_path, [bad, good], plane=plane) as world:
        status, _, _ = await world.post(chat(max_tokens=10))
        await world.quiet()
    first, second = by_attempt(plane)
    assert status == 200
    assert (first.presumed, first.parts[0].amount) == (True, HOLD)
    assert (second.presumed, second.parts[0].amount) == (False, HOLD)
    assert plane.balance("budget-tokens").spent == 2 * HOLD


@in_loop
async def test_a_node_that_cannot_be_reached_costs_nothing(tmp_path: Path) -> None:
    plane = tokens_plane()
    gone, good = FakeEngine(kind="vllm"), FakeEngine(kind="vllm")
    async with nodes(tmp_path, [gone, good], plane=plane) as world:
        assert gone._server is not None
        gone._server.close()
        for connection in list(world.service.desk.router.upstreams[0].pool._idle):  # type: ignore[attr-defined]
            connection.abort()
        status, _, _ = await world.post(chat(max_tokens=10))
        await world.quiet()
    assert status == 200
    assert by_attempt(plane)[0].charge_nanos == 0
    assert plane.balance("budget-tokens").spent == HOLD


@in_loop
async def test_what_has_reached_the_caller_is_never_repeated(tmp_path: Path) -> None:
    bad, good = FakeEngine(kind="vllm", script=die_in_stream), FakeEngine(kind="vllm")
    async with nodes(tmp_path, [bad, good]) as world:
        status, _, body = await world.post(chat(max_tokens=10, stream=True))
        await world.quiet()
        assert len(world.plane.events) == 1
    assert status == 200
    assert b"upstream_failed" in body
    assert good.calls == 0


@in_loop
async def test_a_caller_s_own_fault_is_not_tried_again(tmp_path: Path) -> None:
    first, second = FakeEngine(script=refuse(400)), FakeEngine(script=refuse(400))
    async with nodes(tmp_path, [first, second]) as world:
        status, _, _ = await world.post(chat(max_tokens=10))
    assert (status, first.calls + second.calls) == (400, 1)


@in_loop
async def test_attempts_are_bounded_and_the_last_word_is_passed_on(tmp_path: Path) -> None:
    plane = tokens_plane()
    engines = [FakeEngine(kind="vllm", script=refuse(503)) for _ in range(4)]
    async with nodes(tmp_path, engines, plane=plane, attempts=3) as world:
        status, _, _ = await world.post(chat(max_tokens=10))
        await world.quiet()
        retries = sum(world.service.desk.metrics.retries.values())
    assert (status, sum(engine.calls for engine in engines), retries) == (503, 3, 2)
    assert len({event.node for event in plane.events.values()}) == 3
    assert (plane.balance("budget-tokens").spent, plane.balance("budget-tokens").held) == (0, 0)


@in_loop
async def test_another_attempt_needs_a_hold_of_its_own(tmp_path: Path) -> None:
    """A cap for one call: the first attempt is presumed used, so the second one is not made."""
    plane = tokens_plane(limit=HOLD + 5)
    bad, good = FakeEngine(kind="vllm", script=die), FakeEngine(kind="vllm")
    async with nodes(tmp_path, [bad, good], plane=plane) as world:
        status, _, body = await world.post(chat(max_tokens=10))
        await world.quiet()
    assert (status, json.loads(body)["error"]["reason"]) == (402, "budget_exhausted")
    assert good.calls == 0
    assert plane.balance("budget-tokens").spent == HOLD


@in_loop
async def test_budgets_of_the_other_node_are_matched_anew(tmp_path: Path) -> None:
    caps = [
        budget(1_000, Unit.TOKENS, id="of-a", name="of a", filters={"node": ["a"]}),
        budget(1_000, Unit.TOKENS, id="of-b", name="of b", filters={"node": ["b"]}),
    ]
    plane = Plane(agents=[agent()], budgets=caps, prices=[PRICE])
    bad, good = FakeEngine(kind="vllm", script=refuse(503)), FakeEngine(kind="vllm")
    async with nodes(tmp_path, [bad, good], plane=plane) as world:
        status, _, _ = await world.post(chat(max_tokens=10))
        await world.quiet()
    assert status == 200
    assert (plane.balance("of-a").spent, plane.balance("of-b").spent) == (0, HOLD)


@in_loop
async def test_a_node_that_keeps_failing_is_left_alone_then_tried_once(tmp_path: Path) -> None:
    bad, good = FakeEngine(script=refuse(500)), FakeEngine()
    every = {"failures": 3, "rest": 0.5}
    async with nodes(tmp_path, [bad, good], every=every) as world:
        for _ in range(10):
            assert (await world.post(chat(max_tokens=1)))[0] == 200
        assert bad.calls == 3
        metrics = world.service.desk.metrics.exposition().decode()
        assert 'upstream_available{upstream="a"} 0.0' in metrics
        bad.script = None
        await asyncio.sleep(0.6)
        for _ in range(4):
            assert (await world.post(chat(max_tokens=1)))[0] == 200
        assert bad.calls > 4


@in_loop
async def test_where_all_nodes_fail_the_caller_is_told_when_to_come_back(tmp_path: Path) -> None:
    bad = FakeEngine(script=refuse(500))
    async with nodes(tmp_path, [bad], every={"failures": 2, "rest": 5.0}) as world:
        for _ in range(2):
            await world.post(chat(max_tokens=1))
        status, headers, body = await world.post(chat(max_tokens=1))
    assert (status, headers["retry-after"]) == (503, "5")
    assert json.loads(body)["error"]["reason"] == "nodes_failing"
    assert bad.calls == 2


@in_loop
async def test_a_node_that_asks_for_rest_gets_it(tmp_path: Path) -> None:
    busy, good = FakeEngine(script=refuse(429, "retry-after: 3\r\n")), FakeEngine()
    async with nodes(tmp_path, [busy, good]) as world:
        answers = [await world.post(chat(max_tokens=1)) for _ in range(4)]
    assert [status for status, _, _ in answers] == [200] * 4
    assert (busy.calls, good.calls) == (1, 4)


@in_loop
async def test_a_redirect_is_a_failure_and_is_not_followed(tmp_path: Path) -> None:
    other = FakeEngine()
    async with other.running():
        bad = FakeEngine(script=refuse(307, f"location: {other.url}/v1/chat/completions\r\n"))
        async with nodes(tmp_path, [bad]) as world:
            status, _, _ = await world.post(chat(max_tokens=1))
    assert (status, other.calls) == (502, 0)


@in_loop
async def test_calls_spread_over_equal_nodes(tmp_path: Path) -> None:
    engines = [FakeEngine(delay=0.05) for _ in range(3)]
    async with nodes(tmp_path, engines) as world:
        await asyncio.gather(*(world.post(chat(max_tokens=1)) for _ in range(12)))
    assert [engine.calls for engine in engines] == [4, 4, 4]


@in_loop
async def test_a_session_comes_back_to_its_node(tmp_path: Path) -> None:
    engines = [FakeEngine() for _ in range(4)]
    async with nodes(tmp_path, engines) as world:
        for session in range(6):
            before = [engine.calls for engine in engines]
            for _ in range(3):
                await world.post(chat(max_tokens=1), x_comptroller_session=f"session-{session}")
            added = [e.calls - n for e, n in zip(engines, before, strict=True)]
            assert sorted(added) == [0, 0, 0, 3]


@in_loop
async def test_a_model_is_renamed_on_the_way_and_only_there(tmp_path: Path) -> None:
    engine = FakeEngine(kind="vllm", model="vendor/toy-2026-08")
    plane = tokens_plane()
    every = {"models": ("toy",), "renamed": (("toy", "vendor/toy-2026-08"),)}
    async with nodes(tmp_path, [engine], plane=plane, every=every) as world:
        status, _, _ = await world.post(chat(max_tokens=3))
        other, _, _ = await world.post(chat(model="vendor/toy-2026-08", max_tokens=3))
        await world.quiet()
    assert (status, other) == (200, 404)
    assert engine.requests[0]["model"] == "vendor/toy-2026-08"
    (event,) = plane.events.values()
    assert (event.model, event.charge_nanos) == ("toy", PROMPT_TOKENS + 2 * 3)


@in_loop
async def test_a_paid_api_is_never_asked_how_it_is(tmp_path: Path) -> None:
    engine = FakeEngine()
    every = {"models": ("toy",), "local": False}
    async with nodes(tmp_path, [engine], every=every, probe_interval=0.1) as world:
        status, _, _ = await world.post(chat(max_tokens=1))
        await asyncio.sleep(0.4)
    assert status == 200
    assert len(engine.heads) == 1


@in_loop
async def test_the_agent_s_priority_goes_to_the_engine_and_a_caller_s_own_does_not(
    tmp_path: Path,
) -> None:
    engine, plain = FakeEngine(kind="vllm"), FakeEngine(kind="vllm", model="other")
    plane = Plane(agents=[agent(priority=3)], prices=[PRICE])
    each = ({"priority": True}, {"priority": False})
    async with nodes(tmp_path, [engine, plain], plane=plane, each=each) as world:
        await world.post(chat(max_tokens=1, priority=-100))
        await world.post(chat(max_tokens=1, model="other", priority=-100))
    assert engine.requests[0]["priority"] == -3
    assert "priority" not in plain.requests[0]


async def text(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
    send_raw(writer, b"<html>", b"text/html")


@in_loop
async def test_nonsense_is_not_tried_again_but_counts_against_the_node(tmp_path: Path) -> None:
    engine, other = FakeEngine(script=text), FakeEngine()
    async with nodes(tmp_path, [engine, other]) as world:
        status, _, _ = await world.post(chat(max_tokens=1))
    assert (status, other.calls) == (502, 0)
