"""Calls from end to end: what clients see, what engines get, what the ledger books."""

from pathlib import Path

from enforcement.rules.policy import Unit
from tests.sidecar.engine import PROMPT_TOKENS, FakeEngine
from tests.sidecar.plane import Plane
from tests.sidecar.stack import AGENT, PRICE, agent, budget, chat, events_of, in_loop, stack


@in_loop
async def test_a_whole_answer_is_charged_by_the_engines_usage(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(10_000)], prices=[PRICE])
    async with stack(tmp_path, engine=FakeEngine(kind="llamacpp"), plane=plane) as world:
        status, headers, body = await world.post(chat(max_tokens=20))
        await world.quiet()
    assert status == 200
    assert b'"completion_tokens": 20' in body
    (event,) = plane.events.values()
    assert (event.agent, event.input_tokens, event.output_tokens) == (AGENT, PROMPT_TOKENS, 20)
    assert event.charge_nanos == PROMPT_TOKENS + 2 * 20
    assert (event.presumed, event.estimated, event.id) == (False, False, headers["x-request-id"])
    assert plane.balance("budget-usd").spent == 47
    assert plane.balance("budget-usd").held == 0


@in_loop
async def test_a_stream_passes_and_is_charged(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(10_000, Unit.TOKENS)], prices=[PRICE])
    async with stack(tmp_path, engine=FakeEngine(kind="vllm"), plane=plane) as world:
        status, _, body = await world.post(chat(max_tokens=20, stream=True))
        await world.quiet()
    events = events_of(body)
    assert status == 200
    assert [e["choices"][0]["delta"].get("content") for e in events[1:-1]] == ["word "] * 20
    assert all("usage" not in e for e in events)
    assert plane.tokens == (PROMPT_TOKENS, 20)
    assert plane.balance("budget-tokens").spent == PROMPT_TOKENS + 20


@in_loop
async def test_the_official_client_works_without_budgets(tmp_path: Path) -> None:
    async with stack(tmp_path) as world, world.openai() as client:
        answer = await client.chat.completions.create(
            model="toy", messages=[{"role": "user", "content": "hi"}], max_tokens=5
        )
        stream = await client.chat.completions.create(
            model="toy",
            messages=[{"role": "user", "content": "hi"}],
            max_tokens=5,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        models = await client.models.list()
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5
    assert [model.id for model in models.data] == ["toy"]
