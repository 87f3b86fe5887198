"""Hard budgets at the sidecar: hold, clamp, refuse, extend, cut; never a nano-dollar too much."""

import asyncio
import json
from pathlib import Path

import openai
import pytest

from enforcement.rules.policy import HoldMode, PricePolicy, Rates, Unit
from enforcement.rules.wire import Outcome
from tests.sidecar.engine import PROMPT_TOKENS, FakeEngine
from tests.sidecar.plane import Plane
from tests.sidecar.stack import PRICE, agent, budget, chat, events_of, in_loop, stack


def error_of(body: bytes) -> dict[str, object]:
    error: dict[str, object] = json.loads(body)["error"]
    return error


@in_loop
async def test_an_answer_is_clamped_to_what_is_left_then_402(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(107)], prices=[PRICE])
    async with stack(tmp_path, engine=FakeEngine(kind="llamacpp"), plane=plane) as world:
        status, _, body = await world.post(chat(max_tokens=80))
        await world.quiet()
        second, headers, refusal = await world.post(chat(max_tokens=80))
        await world.quiet()
    assert status == 200
    note = json.loads(body)["comptroller"]
    assert (note["outcome"], note["max_output_tokens"], note["budget"]) == (
        "clamped",
        50,
        "cap in usd",
    )
    assert plane.balance("budget-usd").spent == 107
    (event,) = plane.events.values()
    assert (event.outcome, event.output_tokens, event.stopped_by) == (
        Outcome.CLAMPED,
        50,
        "budget-usd",
    )
    assert (second, headers["x-should-retry"]) == (402, "false")
    error = error_of(refusal)
    assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
    assert (error["limit"], error["spent"], error["unit"]) == ("0.000000107", "0.000000107", "usd")
    assert plane.refusals == {"budget_exhausted": 1}
    assert world.engine.calls == 1


@in_loop
async def test_a_clamped_stream_says_so_in_its_last_event(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(57, Unit.TOKENS)])
    async with stack(tmp_path, engine=FakeEngine(kind="vllm"), plane=plane) as world:
        _, _, body = await world.post(chat(max_tokens=80, stream=True))
        await world.quiet()
    last = events_of(body)[-1]
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["comptroller"]["max_output_tokens"] == 50
    assert plane.balance("budget-tokens").spent == 57


@in_loop
async def test_concurrent_calls_never_spend_more_than_the_cap(tmp_path: Path) -> None:
    limit = 2_000
    plane = Plane(agents=[agent()], budgets=[budget(limit)], prices=[PRICE])
    engine = FakeEngine(kind="llamacpp", delay=0.001)
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        answers = await asyncio.gather(
            *(world.post(chat(max_tokens=60, stream=True)) for _ in range(40))
        )
        await world.quiet()
    truth = engine.prompt_tokens + 2 * engine.output_tokens
    assert truth <= limit
    assert plane.balance("budget-usd").spent == truth
    assert {status for status, _, _ in answers} <= {200, 402, 429}
    assert limit - truth < PROMPT_TOKENS + 2 * 60
    assert plane.balance("budget-usd").overrun == 0


@in_loop
async def test_holds_of_others_are_429_with_a_short_wait(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(1, Unit.REQUESTS)])
    engine = FakeEngine(kind="llamacpp", delay=0.05)
    async with stack(tmp_path, engine=engine, plane=plane, grant_timeout=0.3) as world:
        first = asyncio.create_task(world.post(chat(max_tokens=40, stream=True)))
        await asyncio.sleep(0.2)
        status, headers, body = await world.post(chat(max_tokens=40))
        assert (await first)[0] == 200
    assert (status, headers["retry-after"]) == (429, "1")
    assert error_of(body)["type"] == "rate_limit_exceeded"
    assert "x-should-retry" not in headers


@in_loop
async def test_all_budgets_of_a_call_are_held_and_charged(tmp_path: Path) -> None:
    budgets = [
        budget(10_000),
        budget(10_000, Unit.TOKENS),
        budget(10, Unit.REQUESTS),
        budget(10_000, Unit.TOKENS, id="per-session", per="session"),
    ]
    plane = Plane(agents=[agent()], budgets=budgets, prices=[PRICE])
    async with stack(tmp_path, engine=FakeEngine(kind="vllm"), plane=plane) as world:
        await world.post(chat(max_tokens=3), x_comptroller_session="run-1")
        await world.quiet()
    assert plane.balance("budget-usd").spent == 13
    assert plane.balance("budget-tokens").spent == 10
    assert plane.balance("budget-requests").spent == 1
    assert plane.balance("per-session", "run-1").spent == 10
    (event,) = plane.events.values()
    assert event.session == "run-1"
    assert sorted((p.budget, p.amount) for p in event.parts) == [
        ("budget-requests", 1),
        ("budget-tokens", 10),
        ("budget-usd", 13),
        ("per-session", 10),
    ]


@in_loop
async def test_without_a_known_prompt_the_window_is_held(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(999, Unit.TOKENS)])
    async with stack(tmp_path, engine=FakeEngine(), plane=plane, context_window=1000) as world:
        status, _, body = await world.post(chat(max_tokens=10))
    assert (status, error_of(body)["reason"]) == (402, "budget_exhausted")
    assert world.engine.calls == 0


@in_loop
async def test_a_metered_stream_is_extended_until_it_ends(tmp_path: Path) -> None:
    cap = budget(10_000, Unit.TOKENS, hold_mode=HoldMode.METERED)
    plane = Plane(agents=[agent()], budgets=[cap])
    engine = FakeEngine(kind="vllm", delay=0.001)
    engine.natural_length = 300
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        _, _, body = await world.post(chat(max_tokens=900, stream=True))
        await world.quiet()
    assert events_of(body)[-1]["choices"][0]["finish_reason"] == "stop"
    assert plane.balance("budget-tokens").spent == PROMPT_TOKENS + 300


@in_loop
async def test_a_metered_stream_is_cut_within_the_cap(tmp_path: Path) -> None:
    cap = budget(300, Unit.TOKENS, hold_mode=HoldMode.METERED)
    plane = Plane(agents=[agent()], budgets=[cap])
    engine = FakeEngine(kind="vllm", delay=0.002)
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        _, _, body = await world.post(chat(max_tokens=900, stream=True))
        await world.quiet()
    last = events_of(body)[-1]
    assert last["choices"][0]["finish_reason"] == "length"
    assert (last["comptroller"]["outcome"], last["comptroller"]["budget"]) == (
        "cut",
        "cap in tokens",
    )
    produced = engine.prompt_tokens + engine.output_tokens
    assert 200 <= produced <= 300
    balance = plane.balance("budget-tokens")
    assert (balance.overrun, balance.held) == (0, 0)
    assert produced - 5 <= balance.spent <= 300
    (event,) = plane.events.values()
    assert (event.outcome, event.stopped_by) == (Outcome.CUT, "budget-tokens")


@in_loop
async def test_an_unpriced_model_is_refused_under_a_dollar_cap(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(1_000_000)])
    async with stack(tmp_path, plane=plane) as world:
        status, headers, body = await world.post(chat(max_tokens=10))
    assert (status, headers["x-should-retry"]) == (403, "false")
    assert error_of(body)["code"] == "unpriced_model"


@in_loop
async def test_soft_budgets_hold_nothing(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(1, Unit.TOKENS, mode="soft")])
    async with stack(tmp_path, plane=plane) as world:
        status, _, _ = await world.post(chat(max_tokens=10))
        await world.quiet()
    assert status == 200
    assert plane.ledger.balances == {}
    assert plane.tokens == (PROMPT_TOKENS, 10)


@in_loop
async def test_images_take_the_context_window(tmp_path: Path) -> None:
    image = {"type": "image_url", "image_url": {"url": "http://x/y.png"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "see"}, image]}]
    plane = Plane(agents=[agent()], budgets=[budget(500, Unit.TOKENS)])
    async with stack(tmp_path, engine=FakeEngine(kind="vllm"), plane=plane) as world:
        status, _, _ = await world.post(chat(max_tokens=10, messages=messages))
    assert status == 402


@in_loop
async def test_several_answers_are_all_held(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(100, Unit.TOKENS)])
    async with stack(tmp_path, engine=FakeEngine(kind="vllm"), plane=plane) as world:
        fits, _, _ = await world.post(chat(max_tokens=17, n=4))
        status, _, _ = await world.post(chat(max_tokens=60, n=4))
    assert world.engine.requests[0]["max_tokens"] == 17
    assert fits == 200
    assert status == 402


@in_loop
async def test_the_official_client_maps_refusals(tmp_path: Path) -> None:
    free = PricePolicy(id="p", model="toy", rates=Rates(output=1_000_000))
    plane = Plane(agents=[agent()], budgets=[budget(15)], prices=[free])
    async with stack(tmp_path, engine=FakeEngine(kind="vllm"), plane=plane) as world:
        async with world.openai(max_retries=2) as client:
            with pytest.raises(openai.APIStatusError) as refused:
                await client.chat.completions.create(**chat(max_tokens=50))
        async with world.openai(key="cmp_live_nobody_x") as client:
            with pytest.raises(openai.AuthenticationError):
                await client.chat.completions.create(**chat())
    assert (refused.value.status_code, refused.value.code) == (402, "insufficient_quota")
    assert plane.refusals == {"budget_exhausted": 1}
