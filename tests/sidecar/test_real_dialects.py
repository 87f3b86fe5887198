"""Every dialect of the real model server: our meter agrees with the engine's own counters."""

import asyncio
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest

from controlplane.demo.engine import read_counters
from enforcement.rules.policy import HoldMode, PricePolicy, Rates, Unit
from enforcement.rules.wire import Outcome, UsageEvent
from enforcement.sidecar.engines import ABORT_TOKENS, Engine
from tests.collectors.modelserver import model_server
from tests.sidecar.plane import Plane
from tests.sidecar.stack import KEY, agent, budget, in_loop, stack
from tests.sidecar.test_real_engine import RealEngine

pytestmark = pytest.mark.model

slowly = partial(in_loop, within=200)  # a busy machine makes two tokens a second
UNSEEN = ABORT_TOKENS[Engine.LLAMA_CPP]
ASKED = [{"role": "user", "content": "Tell a long story."}]
CALLS: dict[str, tuple[dict[str, Any], str]] = {  # path: body, name of the limit
    "/v1/chat/completions": ({"messages": ASKED}, "max_tokens"),
    "/v1/completions": ({"prompt": "Once upon a time"}, "max_tokens"),
    "/v1/responses": ({"input": "Tell a long story."}, "max_output_tokens"),
    "/v1/messages": ({"messages": ASKED}, "max_tokens"),
    "/completion": ({"prompt": "Once upon a time"}, "n_predict"),
    "/api/chat": ({"messages": ASKED}, "num_predict"),  # translated
    "/api/generate": ({"prompt": "Tell a long story."}, "num_predict"),
}
BODIES = {path: body for path, (body, _) in CALLS.items()}
BODIES["/v1/messages/count_tokens"] = {"messages": ASKED}
LAST = {  # what a stream that was cut ends with
    "/v1/chat/completions": b'"finish_reason":"length"',
    "/v1/completions": b'"finish_reason":"length"',
    "/v1/responses": b'"reason":"max_output_tokens"',
    "/v1/messages": b'"type":"message_stop"',
    "/completion": b'"stop":true',
    "/api/chat": b'"done_reason":"length"',
    "/api/generate": b'"done_reason":"length"',
}


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    pytest.importorskip("xllamacpp", reason="the extra 'demo' is not installed")
    with model_server() as url:
        yield url


def limited(path: str, tokens: int) -> dict[str, Any]:
    """The output limit, where the dialect has it."""
    limit = {CALLS[path][1]: tokens}
    return {"options": limit} if path.startswith("/api/") else limit


def plane_with(limit: int, **fields: Any) -> Plane:
    rates = Rates(input=1_000_000, cached_input=1_000_000, output=4_000_000)
    price = PricePolicy(id="p", model="", match="prefix", rates=rates)
    return Plane(agents=[agent()], budgets=[budget(limit, **fields)], prices=[price])


async def call(
    tmp_path: Path, url: str, plane: Plane, path: str, **fields: Any
) -> tuple[int, bytes, tuple[int, int], UsageEvent]:
    """One call of a route: status, answer, what the engine counted, what was booked."""
    before = read_counters(url)
    engine = RealEngine(url)
    async with stack(tmp_path, engine=engine, plane=plane, context_window=None) as world:
        (node,) = world.service.desk.router.upstreams
        body = {"model": node.models[0]} | BODIES[path] | fields
        status, _, answer = await world.post(body, path=path)
        await world.quiet()
    await asyncio.sleep(0.5)
    (event,) = plane.events.values()
    return status, answer, tuple(read_counters(url).since(before)), event


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", CALLS)
def test_a_call_agrees_to_the_token(tmp_path: Path, model: str, path: str, stream: bool) -> None:
    @slowly
    async def test() -> None:
        plane = plane_with(10**9)
        limit = limited(path, 6) | {"stream": stream}
        status, answer, made, event = await call(tmp_path, model, plane, path, **limit)
        assert status == 200, answer
        assert (event.input_tokens, event.output_tokens) == made
        assert (event.estimated, event.presumed) == (False, False)
        assert plane.balance("budget-usd").spent == made[0] + 4 * made[1]

    test()


@pytest.mark.parametrize("path", CALLS)
def test_a_metered_cap_cuts_and_ends_well(tmp_path: Path, model: str, path: str) -> None:
    @slowly
    async def test() -> None:
        plane = plane_with(170, unit=Unit.TOKENS, hold_mode=HoldMode.METERED)
        limit = limited(path, 900) | {"stream": True}
        status, answer, made, event = await call(tmp_path, model, plane, path, **limit)
        assert status == 200
        if event.outcome is Outcome.COMPLETED:
            pytest.skip("the model ended by itself")
        assert event.outcome is Outcome.CUT
        assert b'"comptroller":' in answer
        assert LAST[path] in answer[-1500:]
        assert sum(made) <= plane.balance("budget-tokens").spent <= min(sum(made) + UNSEEN, 170)

    test()


def test_tokens_are_counted_for_nothing(tmp_path: Path, model: str) -> None:
    @slowly
    async def test() -> None:
        plane = Plane(agents=[agent()], budgets=[budget(5, Unit.REQUESTS)])
        path = "/v1/messages/count_tokens"
        status, answer, made, event = await call(tmp_path, model, plane, path)
        assert (status, made) == (200, (0, 0))
        assert json.loads(answer)["input_tokens"] > 0
        assert (event.endpoint, event.input_tokens) == ("messages/count_tokens", 0)
        assert plane.balance("budget-requests").spent == 1

    test()


def test_the_real_clients_agree_with_the_real_engine(tmp_path: Path, model: str) -> None:
    @slowly
    async def test() -> None:
        before, plane = read_counters(model), plane_with(10**9)
        engine = RealEngine(model)
        async with stack(tmp_path, engine=engine, plane=plane, context_window=None) as world:
            name = world.service.desk.router.upstreams[0].models[0]
            said = await told_to_anthropic(world.url, name)
            said += await told_to_openai(world.url, name)
            said += await told_to_ollama(world.url, name)
            await world.quiet()
        await asyncio.sleep(0.5)
        made = read_counters(model).since(before)
        assert plane.tokens == (made.input_tokens, made.output_tokens)
        assert sum(said) == made.output_tokens

    test()


async def told_to_anthropic(url: str, name: str) -> list[int]:
    """Output tokens of a whole answer and a stream, as the client was told."""
    asked: Any = {"model": name, "max_tokens": 5, "messages": ASKED}
    async with anthropic.AsyncAnthropic(base_url=url, api_key=KEY) as client:
        whole = await client.messages.create(**asked)
        async with client.messages.stream(**asked) as stream:
            streamed = await stream.get_final_message()
    return [whole.usage.output_tokens, streamed.usage.output_tokens]


async def told_to_openai(url: str, name: str) -> list[int]:
    """The events one by one: llama.cpp leaves out places that the client's accumulator wants."""
    asked: Any = {"model": name, "max_output_tokens": 5, "input": "Tell a long story."}
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY) as client:
        whole = await client.responses.create(**asked)
        stream = await client.responses.create(**asked, stream=True)
        last: Any = [event async for event in stream][-1]
    assert whole.usage is not None
    return [whole.usage.output_tokens, last.response.usage.output_tokens]


async def told_to_ollama(url: str, name: str) -> list[int]:
    """Translated: the engine itself has no such routes."""
    async with ollama.AsyncClient(url, headers={"authorization": f"Bearer {KEY}"}) as client:
        whole = await client.chat(name, ASKED, options={"num_predict": 5})
        stream = await client.chat(name, ASKED, options={"num_predict": 5}, stream=True)
        last = [part async for part in stream][-1]
    return [whole.eval_count or 0, last.eval_count or 0]
