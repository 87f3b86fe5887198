"""Ollama: lines of JSON, counts that may be left out, options that hold the limit."""

import json
from typing import Any

import pytest

from enforcement.rules.dialects import DIALECTS, Engine
from enforcement.rules.money import TokenUsage
from enforcement.rules.requests import Endpoint, ParsedRequest, RequestError
from enforcement.rules.verdicts import Refuse
from tests.rules.dialects.samples import BODIES, ollama

CHAT = DIALECTS[Endpoint.OLLAMA_CHAT]
GENERATE = DIALECTS[Endpoint.OLLAMA_GENERATE]


def parse(endpoint: Endpoint = Endpoint.OLLAMA_CHAT, **fields: Any) -> ParsedRequest:
    return DIALECTS[endpoint].parse(json.dumps(BODIES[endpoint] | fields).encode())


def test_a_stream_is_the_default_and_is_counted() -> None:
    parsed = parse()
    meter = CHAT.meter(parsed)
    stream = b"".join(ollama())
    assert (parsed.stream, meter.feed(stream)) == (True, stream)
    assert meter.usage == TokenUsage(input_tokens=27, cached_input_tokens=22, output_tokens=3)
    assert (meter.events, meter.finish_reason, meter.input_missing) == (3, "stop", False)


def test_a_count_of_the_prompt_that_is_left_out_is_missed() -> None:
    meter = CHAT.meter(parse())
    meter.feed(b"".join(ollama(prompt_eval_count=None, prompt_eval_cached_count=None)))
    assert (meter.input_missing, meter.produced) == (True, 3)
    body = {"model": "m", "done": True, "done_reason": "stop", "eval_count": 3}
    answer = CHAT.read_answer(json.dumps(body).encode())
    assert (answer.input_missing, answer.usage) == (True, TokenUsage(output_tokens=3))


def test_loading_a_model_costs_nothing() -> None:
    loaded = {"model": "m", "done": True, "done_reason": "load"}
    answer = CHAT.read_answer(json.dumps(loaded).encode())
    assert (answer.usage, answer.input_missing) == (TokenUsage(), False)


def test_the_limit_is_written_into_the_options() -> None:
    for options in ({}, {"num_predict": -1}, {"num_predict": 80, "seed": 1}):
        parsed = parse(options=options)
        body = CHAT.forward_body(parsed, output_limit=7, engine=Engine.OLLAMA)
        assert json.loads(body)["options"] == options | {"num_predict": 7}
    assert parse(options={"num_predict": 80}).output_limit == 80


def test_a_cut_is_a_last_line() -> None:
    meter = CHAT.meter(parse())
    meter.feed(b"".join(ollama()[:2]))
    said = json.loads(meter.cut_ending({"outcome": "cut"}, request_id="r", input_tokens=27))
    assert (said["done"], said["done_reason"], said["eval_count"]) == (True, "length", 2)
    assert (said["message"]["content"], said["comptroller"]) == ("", {"outcome": "cut"})
    assert (said["model"], said["prompt_eval_count"]) == ("m", 27)


def test_tools_are_named_and_their_calls_counted() -> None:
    tools = [{"type": "function", "function": {"name": "search"}}]
    assert parse(tools=tools).tools == ("search",)
    meter = CHAT.meter(parse())
    call = {"function": {"name": "search", "arguments": {}}}
    line = {"message": {"role": "assistant", "content": "", "tool_calls": [call, call]}}
    meter.feed(json.dumps(line).encode() + b"\n")
    assert (meter.tool_calls, meter.events) == (2, 1)


@pytest.mark.parametrize(
    ("endpoint", "fields"),
    [
        (Endpoint.OLLAMA_CHAT, {"messages": [{"role": "user", "images": ["aaaa"]}]}),
        (Endpoint.OLLAMA_GENERATE, {"images": ["aaaa"]}),
        (Endpoint.OLLAMA_GENERATE, {"context": [1, 2]}),
    ],
)
def test_content_from_elsewhere_is_seen(endpoint: Endpoint, fields: dict[str, Any]) -> None:
    assert parse(endpoint, **fields).unseen


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"options": {"surprise": 1}}, "options.surprise"),
        ({"options": []}, "options"),
        ({"options": {"num_predict": -3}}, "num_predict"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"tools": [{"type": "function"}]}, "tools"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as error:
        parse(**fields)
    assert error.value.param == param


def test_a_refusal_is_a_sentence_with_our_fields_beside_it() -> None:
    refusal = Refuse(402, "insufficient_quota", "Budget 'x' is exhausted")
    body = GENERATE.refusal_body(refusal, request_id="r")
    assert (body["error"], body["code"]) == ("Budget 'x' is exhausted", "insufficient_quota")
