"""OpenAI's Responses: what they bring, what they cost, how they end."""

import json
from typing import Any

import pytest

from enforcement.rules.dialects import DIALECTS
from enforcement.rules.dialects.responses import MAX_KEPT_BYTES
from enforcement.rules.money import TokenUsage
from enforcement.rules.requests import Endpoint, ParsedRequest, RequestError
from tests.rules.dialects.samples import BODIES, event, responses

RESPONSES = DIALECTS[Endpoint.RESPONSES]
USAGE = TokenUsage(input_tokens=27, cached_input_tokens=22, output_tokens=3, reasoning_tokens=1)


def parse(**fields: Any) -> ParsedRequest:
    return RESPONSES.parse(json.dumps(BODIES[Endpoint.RESPONSES] | fields).encode())


def test_a_stream_is_counted() -> None:
    meter = RESPONSES.meter(parse(stream=True))
    stream = b"".join(responses())
    assert meter.feed(stream) == stream
    assert (meter.usage, meter.events, meter.done) == (USAGE, 3, True)
    assert (meter.finish_reason, meter.limited, meter.id) == ("completed", False, "resp_1")


def test_a_limit_of_ours_is_noted() -> None:
    meter = RESPONSES.meter(parse(stream=True), clamp_note=b'{"outcome":"clamped"}')
    details = {"incomplete_details": {"reason": "max_output_tokens"}}
    out = meter.feed(b"".join(responses(status="incomplete", **details)))
    assert meter.limited
    assert out.endswith(b'"comptroller":{"outcome":"clamped"}}\n\n')


def test_a_whole_answer_is_read() -> None:
    body = {
        "id": "resp_1",
        "status": "incomplete",
        "incomplete_details": {"reason": "max_output_tokens"},
        "output": [{"type": "message"}, {"type": "function_call", "name": "f"}],
        "service_tier": "flex",
        "usage": {"input_tokens": 27, "output_tokens": 3},
    }
    answer = RESPONSES.read_answer(json.dumps(body).encode())
    assert answer.usage == TokenUsage(input_tokens=27, output_tokens=3, tier="flex")
    assert (answer.limited, answer.tool_calls, answer.id) == (True, 1, "resp_1")


def test_calls_are_counted_when_they_begin() -> None:
    meter = RESPONSES.meter(parse(stream=True))
    item = {"type": "function_call", "id": "fc_1", "name": "f", "arguments": ""}
    added = {"type": "response.output_item.added", "output_index": 1, "item": item}
    meter.feed(b"data: " + json.dumps(added).encode() + b"\n\n")
    assert meter.tool_calls == 1


def test_a_cut_ends_every_open_part_and_says_why() -> None:
    meter = RESPONSES.meter(parse(stream=True))
    meter.feed(b"".join(responses()[:4]))
    ending = meter.cut_ending({"outcome": "cut"}, request_id="r", input_tokens=27)
    events = [json.loads(part.split(b"\ndata: ")[1]) for part in ending.split(b"\n\n")[:-1]]
    assert [event["type"] for event in events] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert [event["sequence_number"] for event in events] == [4, 5, 6, 7]
    last = events[-1]["response"]
    assert last["incomplete_details"] == {"reason": "max_output_tokens"}
    assert last["output"][0]["content"][0]["text"] == "a a "
    assert last["usage"]["total_tokens"] == 29
    assert (last["comptroller"], last["id"]) == ({"outcome": "cut"}, "resp_1")


def test_a_long_answer_is_not_kept_for_its_end() -> None:
    meter = RESPONSES.meter(parse(stream=True))
    for n in range(40):
        text = "x" * 100_000
        item = {"type": "message", "id": f"msg_{n}", "content": [{"text": text}]}
        meter.feed(event({"type": "response.output_item.done", "item": item}))
    ending = meter.cut_ending({}, request_id="r", input_tokens=1)
    assert 900_000 < len(ending) < MAX_KEPT_BYTES + 10_000


@pytest.mark.parametrize(
    "fields",
    [
        {"previous_response_id": "resp_0"},
        {"conversation": "conv_1"},
        {"prompt": {"id": "p"}},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "u"}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
        {"input": [{"type": "item_reference", "id": "x"}]},
    ],
)
def test_content_from_elsewhere_is_seen(fields: dict[str, Any]) -> None:
    assert parse(**fields).unseen


@pytest.mark.parametrize("kind", ["web_search", "file_search", "code_interpreter", "mcp"])
def test_tools_that_openai_runs_are_seen(kind: str) -> None:
    parsed = parse(tools=[{"type": kind}, {"type": "function", "name": "f"}])
    assert (parsed.hosted, parsed.tools) == (True, (kind, "f"))


def test_the_tools_of_a_namespace_are_named_with_it() -> None:
    inner = [{"type": "function", "name": "spawn"}, {"type": "custom", "name": "wait"}]
    parsed = parse(tools=[{"type": "namespace", "name": "agents", "tools": inner}])
    assert (parsed.hosted, parsed.unseen) == (False, False)
    assert parsed.tools == ("agents.spawn", "agents.wait")
    nested = {"type": "namespace", "name": "outer", "tools": [{"type": "namespace", "name": "n"}]}
    assert parse(tools=[nested]).hosted
    assert parse(tools=[nested | {"tools": [{"type": "web_search"}]}]).hosted


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"background": True}, "background"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"n": 2}, "n"),
        ({"stream_options": {"include_usage": True}}, "stream_options.include_usage"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"tools": [{"type": "function"}]}, "tools"),
    ],
)
def test_what_cannot_be_bounded_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as error:
        parse(**fields)
    assert error.value.param == param


def test_what_codex_sends_is_understood() -> None:
    said = [{"type": "input_text", "text": "hi"}]
    parsed = parse(
        instructions="be good",
        input=[
            {"type": "message", "role": "developer", "content": said},
            {"type": "reasoning", "summary": [], "content": None, "encrypted_content": "x"},
            {"type": "function_call", "name": "shell", "arguments": "{}", "call_id": "c"},
            {"type": "function_call_output", "call_id": "c", "output": "done"},
        ],
        tools=[{"type": "function", "name": "shell", "parameters": {}, "strict": False}],
        tool_choice="auto",
        parallel_tool_calls=False,
        reasoning={"summary": "auto"},
        store=False,
        stream=True,
        include=["reasoning.encrypted_content"],
        prompt_cache_key="thread",
        client_metadata={"session_id": "s"},
    )
    assert (parsed.tools, parsed.unseen, parsed.hosted) == (("shell",), False, False)
    assert (parsed.parallel_tools, parsed.stream) == (False, True)
