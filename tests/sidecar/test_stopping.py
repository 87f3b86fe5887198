"""Drain or stop now, of an agent or of one session; and the last call of who is paused."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from enforcement.rules.policy import (
    AgentState,
    HoldMode,
    Measure,
    OrderKind,
    SessionPolicy,
    Unit,
)
from enforcement.rules.wire import Outcome
from enforcement.sidecar.policy import MAX_RECENT_SESSIONS
from tests.sidecar.engine import FakeEngine
from tests.sidecar.plane import Plane
from tests.sidecar.stack import (
    AGENT,
    PRICE,
    Stack,
    agent,
    budget,
    chat,
    events_of,
    in_loop,
    stack,
)
from tests.sidecar.test_delegating import RUN, give

Answer = tuple[int, dict[str, str], bytes]


def slow_world(**fields: Any) -> tuple[Plane, FakeEngine]:
    plane = Plane(agents=[agent(**fields)], budgets=[budget(100_000, Unit.TOKENS)], prices=[PRICE])
    return plane, FakeEngine(kind="vllm", delay=0.01)


def stream(world: Stack, session: str = "", tokens: int = 60) -> "asyncio.Task[Answer]":
    headers = {"x_comptroller_session": session} if session else {}
    return asyncio.create_task(world.post(chat(max_tokens=tokens, stream=True), **headers))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def ending(answer: Answer) -> dict[str, Any]:
    last = events_of(answer[2])[-1]
    return dict(last.get("comptroller") or {})


@in_loop
async def test_a_drain_lets_running_streams_end_and_refuses_new_calls(tmp_path: Path) -> None:
    plane, engine = slow_world()
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        running = [stream(world) for _ in range(3)]
        await until(lambda: engine.output_tokens > 20)
        order = plane.order(OrderKind.KILL, AGENT, drain=True)
        await until(lambda: order.id in plane.acknowledgements)
        plane.change_policy(agents=[agent(state=AgentState.KILLED, draining=True)])
        refused, _, body = await world.post(chat())
        answers = [await task for task in running]
        await world.quiet()
    assert (refused, json.loads(body)["error"]["code"]) == (403, "agent_killed")
    assert [ending(answer) for answer in answers] == [{}] * 3
    assert engine.output_tokens == 3 * 60
    assert plane.acknowledgements[order.id].streams_cut == 0
    assert {event.outcome for event in plane.events.values()} == {Outcome.COMPLETED}


@in_loop
async def test_a_drain_can_be_sharpened(tmp_path: Path) -> None:
    plane, engine = slow_world()
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        running = stream(world, tokens=900)
        await until(lambda: engine.output_tokens > 5)
        plane.order(OrderKind.KILL, AGENT, drain=True)
        await asyncio.sleep(0.1)
        assert not running.done()
        now = plane.order(OrderKind.KILL, AGENT)
        answer = await running
    assert ending(answer)["order"] == now.id


@in_loop
async def test_a_drained_metered_stream_gets_no_more_than_it_holds(tmp_path: Path) -> None:
    cap = budget(100_000, Unit.TOKENS, hold_mode=HoldMode.METERED)
    plane = Plane(agents=[agent()], budgets=[cap], prices=[PRICE])
    engine = FakeEngine(kind="vllm", delay=0.002)
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        running = stream(world, tokens=900)
        await until(lambda: engine.output_tokens > 20)
        plane.order(OrderKind.PAUSE, AGENT, drain=True)
        answer = await running
        await world.quiet()
    assert ending(answer)["reason"] == "budget_exhausted"
    assert 64 <= engine.output_tokens <= 3 * 64
    assert plane.balance(cap.id).overrun == 0


@in_loop
async def test_one_session_is_killed_and_the_others_go_on(tmp_path: Path) -> None:
    plane, engine = slow_world()
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        killed, other = stream(world, "bad"), stream(world, "good")
        await until(lambda: engine.output_tokens > 10)
        order = plane.order(OrderKind.KILL, AGENT, session="bad")
        answers = await killed, await other
        refused = await world.post(chat(max_tokens=1), x_comptroller_session="bad")
        served = await world.post(chat(max_tokens=1), x_comptroller_session="good")
        plane.order(OrderKind.RESUME, AGENT, session="bad")
        await asyncio.sleep(0.2)
        again = await world.post(chat(max_tokens=1), x_comptroller_session="bad")
        await world.quiet()
    assert (ending(answers[0])["reason"], ending(answers[0])["order"]) == (
        "session_killed",
        order.id,
    )
    assert ending(answers[1]) == {}
    assert (refused[0], json.loads(refused[2])["error"]["code"]) == (403, "session_killed")
    assert (served[0], again[0]) == (200, 200)
    assert plane.acknowledgements[order.id].streams_cut == 1


@in_loop
async def test_a_stopped_session_stands_in_the_policy(tmp_path: Path) -> None:
    plane, engine = slow_world()
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        running = stream(world, "bad", tokens=900)
        await until(lambda: engine.output_tokens > 5)
        plane.change_policy(sessions=[SessionPolicy(AGENT, "bad", AgentState.KILLED)])
        answer = await running
        refused = await world.post(chat(), x_comptroller_session="bad")
        plane.change_policy(sessions=[])
        await asyncio.sleep(0.2)
        again = await world.post(chat(max_tokens=1), x_comptroller_session="bad")
    assert ending(answer)["reason"] == "session_killed"
    assert (refused[0], again[0]) == (403, 200)


@in_loop
async def test_a_kill_of_a_session_reaches_the_sessions_below_it(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[RUN], prices=[PRICE])
    engine = FakeEngine(kind="vllm", delay=0.01)
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        given = await give(world, 500)
        headers = {"x_comptroller_delegation": given["token"]}
        child = asyncio.create_task(world.post(chat(max_tokens=400, stream=True), **headers))
        other = stream(world, "s2")
        await until(lambda: engine.output_tokens > 10)
        order = plane.order(OrderKind.KILL, AGENT, session="s1")
        answer = await child
        refused = await world.post(chat(), **headers)
        plane.change_policy(sessions=[SessionPolicy(AGENT, "s1", AgentState.KILLED)])
        await asyncio.sleep(0.1)
        still = await world.post(chat(), **headers)
        assert ending(await other) == {}
    assert ending(answer)["order"] == order.id
    assert (refused[0], still[0]) == (403, 403)


@in_loop
async def test_a_paused_session_may_make_one_last_short_call(tmp_path: Path) -> None:
    plane, engine = slow_world(hand_back_tokens=7)
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        running = stream(world, "work", tokens=900)
        await until(lambda: engine.output_tokens > 5)
        plane.order(OrderKind.PAUSE, AGENT)
        cut = await running
        last = stream(world, "work", tokens=900)
        await until(lambda: engine.requests[-1].get("max_tokens") == 7)
        plane.change_policy(agents=[agent(state=AgentState.PAUSED, hand_back_tokens=7)])
        saved = await last
        after = await world.post(chat(), x_comptroller_session="work")
        made_up = await world.post(chat(), x_comptroller_session="made-up")
        await world.quiet()
    assert ending(cut)["hand_back_tokens"] == 7
    assert saved[0] == 200
    assert ending(saved) == {}
    assert (after[0], json.loads(after[2])["error"]["code"]) == (403, "agent_paused")
    assert made_up[0] == 403
    assert min(e.output_tokens for e in plane.events.values()) == 7


@in_loop
async def test_a_last_call_that_was_refused_may_be_made_again(tmp_path: Path) -> None:
    allowed = agent(hand_back_tokens=5)
    plane = Plane(agents=[allowed], prices=[PRICE])
    engine = FakeEngine(kind="vllm")
    async with stack(tmp_path, engine=engine, plane=plane, grant_timeout=0.3) as world:
        await world.post(chat(max_tokens=1))
        plane.change_policy(
            agents=[replace(allowed, state=AgentState.PAUSED)], budgets=[budget(5, Unit.TOKENS)]
        )
        await asyncio.sleep(0.2)
        first = await world.post(chat())
        plane.change_policy(budgets=[])
        await asyncio.sleep(0.2)
        second = await world.post(chat())
        third = await world.post(chat())
    assert (first[0], second[0], third[0]) == (402, 200, 403)


@in_loop
async def test_concurrent_calls_of_a_paused_session_get_one_last_call(tmp_path: Path) -> None:
    plane, engine = slow_world(hand_back_tokens=5)
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        await world.post(chat(max_tokens=1))
        plane.order(OrderKind.PAUSE, AGENT)
        await asyncio.sleep(0.2)
        answers = await asyncio.gather(*(world.post(chat()) for _ in range(20)))
    assert sorted(status for status, _, _ in answers) == [200, *[403] * 19]
    assert engine.calls == 2


@in_loop
async def test_only_recent_sessions_may_make_a_last_call(tmp_path: Path) -> None:
    plane, engine = slow_world(hand_back_tokens=5)
    engine.delay = 0.0
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        for n in range(MAX_RECENT_SESSIONS + 1):
            await world.post(chat(max_tokens=1), x_comptroller_session=f"s{n}")
        plane.order(OrderKind.PAUSE, AGENT)
        await asyncio.sleep(0.2)
        oldest, _, _ = await world.post(chat(), x_comptroller_session="s0")
        newest, _, _ = await world.post(chat(), x_comptroller_session=f"s{n}")
    assert (oldest, newest) == (403, 200)


@in_loop
async def test_a_kill_ends_the_last_call_too(tmp_path: Path) -> None:
    plane, engine = slow_world(hand_back_tokens=500)
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        await world.post(chat(max_tokens=1))
        plane.order(OrderKind.PAUSE, AGENT)
        await asyncio.sleep(0.2)
        last = stream(world, tokens=900)
        await until(lambda: engine.output_tokens > 5)
        order = plane.order(OrderKind.KILL, AGENT)
        answer = await last
    assert ending(answer)["order"] == order.id
    assert "hand_back_tokens" not in ending(answer)


@in_loop
async def test_a_budget_that_waits_for_people_leaves_a_last_call(tmp_path: Path) -> None:
    """The rest of the limit above the threshold is the slice that is reserved for it."""
    cap = budget(1_000, Unit.TOKENS)
    paused = Measure(cap.id, "", "pause", 90)
    plane = Plane(agents=[agent(hand_back_tokens=9)], budgets=[cap], prices=[PRICE])
    engine = FakeEngine(kind="vllm")
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        await world.post(chat(max_tokens=1))
        plane.change_policy(measures=[paused])
        await asyncio.sleep(0.2)
        first = await world.post(chat())
        second = await world.post(chat())
        plane.change_policy(measures=[])
        await asyncio.sleep(0.2)
        free = await world.post(chat(max_tokens=1))
        plane.change_policy(measures=[paused])
        await asyncio.sleep(0.2)
        later = await world.post(chat())
    assert (first[0], second[0], free[0], later[0]) == (200, 403, 200, 200)
    assert json.loads(second[2])["error"]["reason"] == "budget_paused"
    assert engine.requests[1]["max_tokens"] == 9
