"""OpenAI's own client on the Responses API: answers, streams, tools, refusals, cuts, kills."""

from pathlib import Path
from typing import Any

import openai
import pytest

from enforcement.rules.policy import HoldMode, OrderKind, Unit
from enforcement.rules.wire import Outcome
from tests.sidecar.engine import PROMPT_TOKENS
from tests.sidecar.plane import Plane
from tests.sidecar.polyglot import CACHED, CALL, Responses
from tests.sidecar.stack import AGENT, PRICE, agent, budget, in_loop, stack

DIALECTS = frozenset(["responses"])
TOOL: Any = {
    "type": "function",
    "name": "search",
    "parameters": {"type": "object"},
    "strict": False,
}


def plane(*budgets: Any, **fields: Any) -> Plane:
    return Plane(agents=[agent(**fields)], budgets=list(budgets), prices=[PRICE])


def world_of(tmp_path: Path, engine: Responses, plane: Plane, **settings: Any) -> Any:
    return stack(tmp_path, engine=engine, plane=plane, dialects=DIALECTS, **settings)


@in_loop
async def test_a_whole_answer(tmp_path: Path) -> None:
    told = plane(budget(10**6))
    async with world_of(tmp_path, Responses(), told) as world, world.openai() as client:
        answer = await client.responses.create(model="toy", input="hi", max_output_tokens=20)
        await world.quiet()
    assert (answer.output_text, answer.status) == ("word " * 20, "incomplete")
    (event,) = told.events.values()
    assert (event.endpoint, event.input_tokens, event.output_tokens) == ("responses", 7, 20)
    assert (event.cached_input_tokens, event.finish_reason) == (CACHED, "max_output_tokens")
    assert told.balance("budget-usd").spent == event.charge_nanos


@in_loop
async def test_a_stream(tmp_path: Path) -> None:
    told, engine = plane(budget(10**6, Unit.TOKENS)), Responses()
    engine.natural_length = 9
    async with world_of(tmp_path, engine, told) as world, world.openai() as client:
        async with client.responses.stream(model="toy", input="hi") as stream:
            text = [e.delta async for e in stream if e.type == "response.output_text.delta"]
            final = await stream.get_final_response()
        await world.quiet()
    assert ("".join(text), final.status) == ("word " * 9, "completed")
    assert told.tokens == (PROMPT_TOKENS, 9)


@in_loop
async def test_tools_are_called_and_counted(tmp_path: Path) -> None:
    told, engine = plane(budget(5, Unit.TOOL_CALLS)), Responses()
    engine.natural_length = 3
    async with world_of(tmp_path, engine, told, max_tool_calls=2) as world:
        async with world.openai() as client:
            whole = await client.responses.create(model="toy", input="hi", tools=[TOOL])
            async with client.responses.stream(model="toy", input="hi", tools=[TOOL]) as stream:
                final = await stream.get_final_response()
        await world.quiet()
    assert [answer.output[1].name for answer in (whole, final)] == [CALL["name"]] * 2
    assert told.balance("budget-tool_calls").spent == 2


@in_loop
async def test_refusals(tmp_path: Path) -> None:
    told = plane(budget(10))
    async with world_of(tmp_path, Responses(), told) as world:
        async with world.openai(max_retries=2) as client:
            with pytest.raises(openai.APIStatusError) as spent:
                await client.responses.create(model="toy", input="hi")
            with pytest.raises(openai.PermissionDeniedError) as hosted:
                await client.responses.create(
                    model="toy", input="hi", tools=[{"type": "web_search"}]
                )
            with pytest.raises(openai.BadRequestError) as hidden:
                await client.responses.create(model="toy", input="hi", background=True)
        assert world.engine.calls == 0
    assert (spent.value.status_code, spent.value.type) == (402, "insufficient_quota")
    assert (hosted.value.code, hidden.value.code) == ("unbounded_request", "not_metered")
    assert told.refusals["budget_exhausted"] == 1  # never retried


@in_loop
async def test_an_engine_that_runs_no_tools_may_be_offered_them(tmp_path: Path) -> None:
    told, engine = plane(budget(10**6)), Responses(kind="llamacpp")
    engine.natural_length = 3
    async with stack(tmp_path, engine=engine, plane=told) as world, world.openai() as client:
        answer = await client.responses.create(
            model="toy", input="hi", tools=[{"type": "web_search"}], max_output_tokens=9
        )
        await world.quiet()
    assert answer.output_text == "word " * 3
    assert told.balance("budget-usd").spent == PROMPT_TOKENS - CACHED + 2 * 3


@in_loop
async def test_an_earlier_answer_takes_the_whole_window(tmp_path: Path) -> None:
    told = plane(budget(10**6, Unit.TOKENS))
    async with world_of(tmp_path, Responses(delay=0.01), told) as world, world.openai() as client:
        stream = await client.responses.create(
            model="toy", previous_response_id="resp_0", input="hi", stream=True, max_output_tokens=9
        )
        async for _ in stream:
            (call,) = world.service.desk.live
            assert call.presumed_event()[1].input_tokens == 1000 - 9
            break
        await stream.close()
        await world.quiet()


@in_loop
async def test_a_cut_ends_the_response_and_says_why(tmp_path: Path) -> None:
    told = plane(budget(60, Unit.OUTPUT_TOKENS, hold_mode=HoldMode.METERED))
    engine = Responses(delay=0.001)
    slices = {"metered_slice_tokens": 16, "metered_margin_tokens": 8}
    async with world_of(tmp_path, engine, told, **slices) as world, world.openai() as client:
        async with client.responses.stream(
            model="toy", input="hi", max_output_tokens=400
        ) as stream:
            events = [event async for event in stream]
        await world.quiet()
    last: Any = events[-1]
    assert [event.type for event in events[-4:]] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert last.response.incomplete_details.reason == "max_output_tokens"
    assert last.response.output_text.startswith("word word ")
    assert last.response.model_extra["comptroller"]["budget"] == "cap in output_tokens"
    (event,) = told.events.values()
    assert event.outcome is Outcome.CUT
    assert engine.output_tokens <= told.balance("budget-output_tokens").spent <= 60


@in_loop
async def test_a_kill_ends_the_response(tmp_path: Path) -> None:
    told, engine = plane(budget(10**9)), Responses(delay=0.005)
    async with world_of(tmp_path, engine, told) as world, world.openai() as client:
        stream = await client.responses.create(
            model="toy", input="hi", max_output_tokens=900, stream=True
        )
        last: Any = None
        async for event in stream:
            last = event
            if engine.output_tokens == 20:
                told.order(OrderKind.KILL, AGENT)
        with pytest.raises(openai.PermissionDeniedError):
            await client.responses.create(model="toy", input="hi")
        await world.quiet()
    assert (last.type, last.comptroller["reason"]) == ("response.incomplete", "agent_killed")
    assert next(iter(told.events.values())).outcome is Outcome.KILLED
    assert engine.output_tokens < 900
