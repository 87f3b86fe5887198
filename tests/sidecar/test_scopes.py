"""Budgets of some calls only: filters, splits, and units beside tokens and dollars."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from enforcement.rules.policy import Overflow, Unit
from enforcement.rules.wire import Outcome
from tests.sidecar.engine import FakeEngine, Writer, end_chunks, send_chunk, send_json, start_stream
from tests.sidecar.plane import Plane
from tests.sidecar.stack import agent, budget, chat, events_of, in_loop, stack

TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {}}}]


@in_loop
async def test_a_filtered_budget_holds_only_for_the_calls_it_names(tmp_path: Path) -> None:
    budgets = [
        budget(1, Unit.REQUESTS, id="toys", filters={"model": ["to*"], "tag:env": ["prod"]}),
        budget(1, Unit.REQUESTS, id="others", filters={"model": ["big"]}),
    ]
    plane = Plane(agents=[agent()], budgets=budgets)
    async with stack(tmp_path, plane=plane) as world:
        statuses = [
            (await world.post(chat(max_tokens=4), x_comptroller_tags=tags))[0]
            for tags in ("env=test", "env=prod", "env=prod", "env=test")
        ]
        await world.quiet()
    assert statuses == [200, 200, 402, 200]
    assert plane.balance("toys").spent == 1
    assert list(plane.ledger.balances) == ["toys/"]


@in_loop
async def test_each_user_has_an_own_balance(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(1, Unit.REQUESTS, per="user")])
    async with stack(tmp_path, plane=plane) as world:
        users = ("ann", "bob", "ann", "")
        statuses = [
            (await world.post(chat(max_tokens=4, user=user) if user else chat(max_tokens=4)))[0]
            for user in users
        ]
        await world.quiet()
    assert statuses == [200, 200, 402, 200]
    assert {key: b.spent for key, b in plane.ledger.balances.items()} == {
        "budget-requests/ann": 1,
        "budget-requests/bob": 1,
        "budget-requests/": 1,
    }


@pytest.mark.parametrize(
    ("overflow", "expected"),
    [(Overflow.REFUSE, [200, 200, 403, 200]), (Overflow.SHARE, [200, 200, 200, 402])],
)
def test_what_a_full_split_does(tmp_path: Path, overflow: Overflow, expected: list[int]) -> None:
    @in_loop
    async def run() -> None:
        cap = budget(1, Unit.REQUESTS, per="tag:task", max_values=2, overflow=overflow)
        plane = Plane(agents=[agent()], budgets=[cap])
        async with stack(tmp_path, plane=plane) as world:
            tags = ("task=a", "task=b", "task=c", "task=d")
            if overflow is Overflow.REFUSE:
                tags = ("task=a", "task=b", "task=c", "other=d")
            statuses = [
                (await world.post(chat(max_tokens=4), x_comptroller_tags=tag))[0] for tag in tags
            ]
            await world.quiet()
        assert statuses == expected
        if overflow is Overflow.SHARE:
            assert plane.balance("budget-requests", "*").spent == 1

    run()


@in_loop
async def test_token_kinds_are_counted_apart(tmp_path: Path) -> None:
    units = (Unit.INPUT_TOKENS, Unit.OUTPUT_TOKENS, Unit.CACHED_TOKENS, Unit.REASONING_TOKENS)
    plane = Plane(agents=[agent()], budgets=[budget(1_000, unit) for unit in units])

    async def script(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
        answer = engine.answer(9, "stop")
        answer["usage"] |= {
            "prompt_tokens_details": {"cached_tokens": 5},
            "completion_tokens_details": {"reasoning_tokens": 6},
        }
        send_json(writer, answer)

    engine = FakeEngine(kind="llamacpp", script=script)
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        status, _, _ = await world.post(chat(max_tokens=9))
        await world.quiet()
    assert status == 200
    assert [plane.balance(f"budget-{unit}").spent for unit in units] == [7, 9, 5, 6]
    assert [plane.balance(f"budget-{unit}").held for unit in units] == [
        b.held for b in (plane.balance(f"budget-{unit}") for unit in units)
    ]


@in_loop
async def test_an_output_budget_clamps_without_knowing_the_prompt(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(30, Unit.OUTPUT_TOKENS)])
    engine = FakeEngine()  # counts no prompts, tells no window
    async with stack(tmp_path, engine=engine, plane=plane, context_window=None) as world:
        status, _, body = await world.post(chat(max_tokens=80))
        await world.quiet()
    assert (status, json.loads(body)["comptroller"]["max_output_tokens"]) == (200, 30)
    assert plane.balance("budget-output_tokens").spent == 30


@in_loop
async def test_engine_time_is_held_by_deadline_and_settled_by_the_clock(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(100_000, Unit.GPU_MS)])
    engine = FakeEngine(kind="vllm", delay=0.05)
    async with stack(tmp_path, engine=engine, plane=plane, accelerators=2) as world:
        status, _, _ = await world.post(
            chat(max_tokens=4, stream=True), x_comptroller_timeout_ms="20000"
        )
        await world.quiet()
    assert status == 200
    (event,) = plane.events.values()
    assert 2 * 200 <= event.gpu_ms == plane.balance("budget-gpu_ms").spent < 2 * 2_000


@in_loop
async def test_a_call_runs_no_longer_than_its_engine_time(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(2_100, Unit.GPU_MS)])
    engine = FakeEngine(kind="vllm", delay=0.05)
    async with stack(tmp_path, engine=engine, plane=plane, context_window=9_000) as world:
        status, _, body = await world.post(chat(max_tokens=900, stream=True))
        await world.quiet()
        second, _, _ = await world.post(chat(max_tokens=900))
    assert (status, second) == (200, 402)
    assert events_of(body)[-1]["comptroller"]["reason"] == "request_timeout"
    balance = plane.balance("budget-gpu_ms")
    assert 1_000 <= balance.spent <= 2_100
    assert balance.overrun == 0


async def three_tool_calls(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
    calls = [
        {"index": n, "id": f"call-{n}", "function": {"name": "look", "arguments": "{}"}}
        for n in range(3)
    ]
    if not body.get("stream"):
        answer = engine.answer(9, "tool_calls")
        answer["choices"][0]["message"] = {"role": "assistant", "tool_calls": calls}
        send_json(writer, answer)
        return
    start_stream(writer)
    for n, call in enumerate(calls, start=1):
        engine.send(writer, engine.event({"tool_calls": [call]}, n, body))
        rest = {"index": n - 1, "function": {"arguments": " "}}
        engine.send(writer, engine.event({"tool_calls": [rest]}, n, body))
        await writer.drain()
        await asyncio.sleep(0.02)
    engine.send(writer, engine.event({}, 3, body, reason="tool_calls"))
    send_chunk(writer, b"data: [DONE]\n\n")
    end_chunks(writer)


@in_loop
async def test_a_stream_is_cut_before_a_tool_call_too_many_passes(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(2, Unit.TOOL_CALLS)])
    engine = FakeEngine(kind="vllm", script=three_tool_calls)
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        status, _, body = await world.post(chat(max_tokens=50, tools=TOOLS, stream=True))
        await world.quiet()
        second, _, _ = await world.post(chat(max_tokens=50, tools=TOOLS))
    assert (status, second) == (200, 402)
    assert body.count(b"call-") == 2
    assert events_of(body)[-1]["comptroller"]["reason"] == "tool_calls"
    assert plane.balance("budget-tool_calls").spent == 2
    first = next(iter(plane.events.values()))
    assert (first.tool_calls, first.outcome) == (2, Outcome.CUT)


@in_loop
async def test_a_whole_answer_with_too_many_tool_calls_is_kept_back(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(2, Unit.TOOL_CALLS)])
    engine = FakeEngine(kind="vllm", script=three_tool_calls)
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        status, _, body = await world.post(chat(max_tokens=50, tools=TOOLS))
        await world.quiet()
    assert (status, json.loads(body)["error"]["reason"]) == (402, "tool_calls")
    assert plane.balance("budget-tool_calls").spent == 0


@in_loop
async def test_tool_calls_that_fit_are_settled_by_what_was_made(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(50, Unit.TOOL_CALLS)])
    engine = FakeEngine(kind="vllm", script=three_tool_calls)
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        for stream in (True, False):
            status, _, _ = await world.post(chat(max_tokens=50, tools=TOOLS, stream=stream))
            assert status == 200
        await world.quiet()
    assert plane.balance("budget-tool_calls").spent == 6


@in_loop
async def test_permits_bound_what_runs_at_once_and_come_back(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(2, Unit.CONCURRENCY)])
    engine = FakeEngine(kind="vllm", delay=0.01)
    running = most = 0
    generate = FakeEngine.generate

    async def counted(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await generate(engine, body, writer)
        running -= 1

    engine.script = counted
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        answers = await asyncio.gather(
            *(world.post(chat(max_tokens=10, stream=True)) for _ in range(6))
        )
        await world.quiet()
    assert [status for status, _, _ in answers] == [200] * 6
    assert most == 2
    balance = plane.balance("budget-concurrency")
    assert (balance.spent, balance.overrun) == (0, 0)


@in_loop
async def test_a_call_without_a_permit_is_told_to_wait(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(1, Unit.CONCURRENCY)])
    engine = FakeEngine(kind="vllm", delay=0.05)
    async with stack(tmp_path, engine=engine, plane=plane, grant_timeout=0.3) as world:
        long = asyncio.create_task(world.post(chat(max_tokens=40, stream=True)))
        await asyncio.sleep(0.2)
        status, headers, body = await world.post(chat(max_tokens=4))
        first, _, _ = await long
        await world.quiet()
    assert (first, status) == (200, 429)
    assert 1 <= int(headers["retry-after"]) <= 5
    assert json.loads(body)["error"]["reason"] == "budget_held"


@in_loop
async def test_the_skill_that_a_call_names_is_a_fact(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(1, Unit.REQUESTS, filters={"skill": ["pdf"]})])
    async with stack(tmp_path, plane=plane) as world:
        statuses = [
            (await world.post(chat(max_tokens=4), x_comptroller_skill=skill))[0]
            for skill in ("pdf", "pdf", "csv", "no such; name")
        ]
        await world.quiet()
    assert statuses == [200, 402, 200, 400]
    assert sorted(event.skill for event in plane.events.values()) == ["csv", "pdf"]
