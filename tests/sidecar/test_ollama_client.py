"""Ollama's own client through the sidecar, in front of a stand-in that speaks its API."""

import json
from pathlib import Path
from typing import Any

import ollama
import pytest

from enforcement.rules.policy import HoldMode, OrderKind, Unit
from enforcement.rules.wire import Outcome
from enforcement.sidecar.engines import Engine
from tests.sidecar.engine import PROMPT_TOKENS, FakeEngine
from tests.sidecar.plane import Plane
from tests.sidecar.polyglot import CACHED, CALL, Ollama
from tests.sidecar.stack import AGENT, KEY, PRICE, Stack, agent, budget, in_loop, stack

HELLO: Any = [{"role": "user", "content": "hello"}]
TOOL: Any = {"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}


def client(world: Stack) -> ollama.AsyncClient:
    return ollama.AsyncClient(world.url, headers={"authorization": f"Bearer {KEY}"})


def plane(*budgets: Any, **fields: Any) -> Plane:
    return Plane(agents=[agent(**fields)], budgets=list(budgets), prices=[PRICE])


@in_loop
async def test_whole_answers(tmp_path: Path) -> None:
    told = plane(budget(10**6))
    async with (
        stack(tmp_path, engine=Ollama(), plane=told, context_window=None) as world,
        client(world) as asker,
    ):
        said = await asker.chat("toy", HELLO, options={"num_predict": 20})
        made = await asker.generate("toy", "hello", options={"num_predict": 5})
        embedded = await asker.embed("toy", "hello")
        await world.quiet()
        (node,) = world.service.desk.router.upstreams
    assert (node.engine, node.version, node.context_window) == (Engine.OLLAMA, "0.30.1", 1000)
    assert (said.message.content, said.done_reason, said.eval_count) == ("word " * 20, "length", 20)
    assert (made.response, embedded.embeddings) == ("word " * 5, [[0.5]])
    events = {event.endpoint: event for event in told.events.values()}
    chat = events["api/chat"]
    assert (chat.input_tokens, chat.cached_input_tokens) == (PROMPT_TOKENS, CACHED)
    assert (chat.output_tokens, events["api/generate"].output_tokens) == (20, 5)
    assert events["api/embed"].input_tokens == PROMPT_TOKENS
    assert told.balance("budget-usd").spent == sum(e.charge_nanos for e in events.values())


@in_loop
async def test_streams(tmp_path: Path) -> None:
    told = plane(budget(10**6, Unit.TOKENS))
    async with stack(tmp_path, engine=Ollama(), plane=told) as world, client(world) as asker:
        stream = await asker.chat("toy", HELLO, options={"num_predict": 9}, stream=True)
        parts = [part async for part in stream]
        await world.quiet()
    assert "".join(part.message.content or "" for part in parts) == "word " * 9
    assert (parts[-1].done, parts[-1].eval_count) == (True, 9)
    assert told.tokens == (PROMPT_TOKENS, 9)
    assert not any(event.estimated for event in told.events.values())


@in_loop
async def test_a_prompt_that_an_old_version_does_not_count_is_estimated(tmp_path: Path) -> None:
    told, engine = plane(budget(10**6, Unit.TOKENS)), Ollama()
    engine.old = True
    async with stack(tmp_path, engine=engine, plane=told) as world:
        for stream in (True, False):
            body = {"model": "toy", "messages": HELLO, "options": {"num_predict": 9}}
            await world.post(body | {"stream": stream}, path="/api/chat")
        await world.quiet()
    for event in told.events.values():
        assert (event.estimated, event.presumed, event.output_tokens) == (True, False, 9)
        assert event.input_tokens > 0


@in_loop
async def test_tools_are_called_and_counted(tmp_path: Path) -> None:
    told = plane(budget(5, Unit.TOOL_CALLS))
    async with (
        stack(tmp_path, engine=Ollama(), plane=told, max_tool_calls=2) as world,
        client(world) as asker,
    ):
        said = await asker.chat("toy", HELLO, tools=[TOOL], options={"num_predict": 3})
        await world.quiet()
    assert said.message.tool_calls is not None
    assert said.message.tool_calls[0].function.name == CALL["name"]
    assert told.balance("budget-tool_calls").spent == 1


@in_loop
async def test_refusals_are_the_clients_own_errors(tmp_path: Path) -> None:
    told = plane(budget(10))
    async with stack(tmp_path, engine=Ollama(), plane=told) as world, client(world) as asker:
        with pytest.raises(ollama.ResponseError) as spent:
            await asker.chat("toy", HELLO)
        with pytest.raises(ollama.ResponseError) as unknown:
            async with ollama.AsyncClient(world.url) as nobody:
                await nobody.chat("toy", HELLO)
        _, _, body = await world.post({"model": "toy", "messages": HELLO}, path="/api/chat")
        assert world.engine.calls == 0
    assert (spent.value.status_code, spent.value.error) == (402, "Budget 'cap in usd' is exhausted")
    assert (unknown.value.status_code, unknown.value.error) == (401, "An agent key is needed")
    assert b'"budget":"cap in usd"' in body


@in_loop
async def test_a_throttle_says_when_to_come_again(tmp_path: Path) -> None:
    told = plane(requests_per_minute=1)
    async with stack(tmp_path, engine=Ollama(), plane=told, grant_timeout=0.1) as world:
        body = {"model": "toy", "messages": HELLO, "options": {"num_predict": 1}}
        await world.post(body, path="/api/chat")
        status, headers, answer = await world.post(body, path="/api/chat")
    assert (status, 0 < int(headers["retry-after"]) <= 60) == (429, True)
    assert b'"code":"rate_limit_exceeded"' in answer


@in_loop
async def test_a_cut_is_a_last_line_that_says_why(tmp_path: Path) -> None:
    told = plane(budget(60, Unit.OUTPUT_TOKENS, hold_mode=HoldMode.METERED))
    engine = Ollama(delay=0.001)
    slices = {"metered_slice_tokens": 16, "metered_margin_tokens": 8}
    async with (
        stack(tmp_path, engine=engine, plane=told, **slices) as world,
        client(world) as asker,
    ):
        stream = await asker.chat("toy", HELLO, options={"num_predict": 400}, stream=True)
        parts = [part async for part in stream]
        await world.quiet()
    assert (parts[-1].done, parts[-1].done_reason) == (True, "length")
    (event,) = told.events.values()
    assert event.outcome is Outcome.CUT
    assert engine.output_tokens <= told.balance("budget-output_tokens").spent <= 60


@in_loop
async def test_the_last_line_of_a_cut_names_the_budget(tmp_path: Path) -> None:
    told = plane(budget(60, Unit.OUTPUT_TOKENS, hold_mode=HoldMode.METERED))
    slices = {"metered_slice_tokens": 16, "metered_margin_tokens": 8}
    async with stack(tmp_path, engine=Ollama(delay=0.001), plane=told, **slices) as world:
        body = {"model": "toy", "prompt": "hello", "options": {"num_predict": 400}}
        _, headers, answer = await world.post(body, path="/api/generate")
        await world.quiet()
    last = json.loads(answer.splitlines()[-1])
    assert headers["content-type"] == "application/x-ndjson; charset=utf-8"
    assert (last["response"], last["done_reason"]) == ("", "length")
    assert last["comptroller"]["budget"] == "cap in output_tokens"


@in_loop
async def test_a_kill_ends_the_stream(tmp_path: Path) -> None:
    told, engine = plane(budget(10**9)), Ollama(delay=0.005)
    async with stack(tmp_path, engine=engine, plane=told) as world, client(world) as asker:
        stream = await asker.chat("toy", HELLO, options={"num_predict": 900}, stream=True)
        last = None
        async for part in stream:
            last = part
            if engine.output_tokens == 20:
                told.order(OrderKind.KILL, AGENT)
        with pytest.raises(ollama.ResponseError) as killed:
            await asker.chat("toy", HELLO)
        await world.quiet()
    assert last is not None
    assert (last.done, last.done_reason, killed.value.status_code) == (True, "length", 403)
    assert next(iter(told.events.values())).outcome is Outcome.KILLED
    assert engine.output_tokens < 900


@in_loop
async def test_what_clients_read_before_they_call(tmp_path: Path) -> None:
    async with stack(tmp_path, engine=Ollama(), plane=plane()) as world, client(world) as asker:
        listed = await asker.list()
        shown = await asker.show("toy")
        with pytest.raises(ollama.ResponseError) as unknown:
            await asker.show("other")
        with pytest.raises(ollama.ResponseError) as pulled:
            await asker.pull("toy")
    assert [model.model for model in listed.models] == ["toy"]
    assert shown.modelinfo == {"general.architecture": "model", "model.context_length": 1000}
    assert (unknown.value.status_code, pulled.value.status_code) == (404, 404)


# ---------------------------------------------------------------------- on OpenAI's dialect


class Caller(FakeEngine):
    """llama.cpp that calls a tool when it is offered one."""

    def answer(self, n: int, reason: str) -> dict[str, Any]:
        said = super().answer(n, reason)
        if self.requests[-1].get("tools"):
            text = json.dumps(CALL["arguments"])
            call = {"id": "c", "type": "function", "function": CALL | {"arguments": text}}
            said["choices"][0]["message"]["tool_calls"] = [call]
        return said


@in_loop
async def test_a_node_that_speaks_only_openai_is_spoken_to_in_its_words(tmp_path: Path) -> None:
    told, engine = plane(budget(10**6)), Caller(kind="llamacpp")
    async with stack(tmp_path, engine=engine, plane=told) as world, client(world) as asker:
        said = await asker.chat("toy", HELLO, tools=[TOOL], options={"num_predict": 20})
        made = await asker.generate("toy", "hello", options={"num_predict": 5, "top_k": 3})
        embedded = await asker.embed("toy", "hello")
        stream = await asker.chat("toy", HELLO, options={"num_predict": 9}, stream=True)
        parts = [part async for part in stream]
        with pytest.raises(ollama.ResponseError) as raw:
            await asker.generate("toy", "hello", raw=True)
        await world.quiet()
    assert (said.message.content, said.done_reason, said.eval_count) == ("word " * 20, "length", 20)
    assert said.message.tool_calls is not None
    assert said.message.tool_calls[0].function.arguments == CALL["arguments"]
    assert (made.response, embedded.prompt_eval_count) == ("word " * 5, PROMPT_TOKENS)
    assert "".join(part.message.content or "" for part in parts) == "word " * 9
    assert (parts[-1].done, parts[-1].prompt_eval_count, parts[-1].eval_count) == (True, 7, 9)
    assert (raw.value.status_code, "'raw'" in raw.value.error) == (400, True)
    assert [request.get("max_tokens") for request in engine.requests] == [20, 5, None, 9]
    events = sorted(told.events.values(), key=lambda event: event.endpoint)
    assert [(e.endpoint, e.output_tokens) for e in events[2:]] == [
        ("api/embed", 0),
        ("api/generate", 5),
    ]
    assert not any(event.estimated for event in events)
    assert told.balance("budget-usd").spent == sum(event.charge_nanos for event in events)


@in_loop
async def test_a_cut_is_translated_too(tmp_path: Path) -> None:
    told = plane(budget(60, Unit.OUTPUT_TOKENS, hold_mode=HoldMode.METERED))
    engine = FakeEngine(kind="vllm", delay=0.001)
    slices = {"metered_slice_tokens": 16, "metered_margin_tokens": 8}
    async with stack(tmp_path, engine=engine, plane=told, **slices) as world:
        body = {"model": "toy", "messages": HELLO, "options": {"num_predict": 400}}
        _, _, answer = await world.post(body, path="/api/chat")
        await world.quiet()
    last = json.loads(answer.splitlines()[-1])
    assert (last["done"], last["done_reason"]) == (True, "length")
    assert last["comptroller"]["outcome"] == "cut"
    assert engine.output_tokens <= told.balance("budget-output_tokens").spent <= 60
