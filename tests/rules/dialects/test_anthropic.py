"""Anthropic's Messages: what they bring, what they cost, how they end."""

import json
from typing import Any

import pytest

from enforcement.rules.dialects import DIALECTS, Engine
from enforcement.rules.dialects.anthropic import known_betas
from enforcement.rules.money import TokenUsage
from enforcement.rules.requests import Endpoint, ParsedRequest, RequestError
from enforcement.rules.verdicts import Refuse
from tests.rules.dialects.samples import BODIES, messages

MESSAGES = DIALECTS[Endpoint.MESSAGES]
USAGE = TokenUsage(
    input_tokens=37,
    cached_input_tokens=22,
    cache_write_tokens=10,
    cache_write_long_tokens=6,
    output_tokens=3,
)


def parse(**fields: Any) -> ParsedRequest:
    return MESSAGES.parse(json.dumps(BODIES[Endpoint.MESSAGES] | fields).encode())


def content(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


def test_a_stream_is_counted_with_its_cache() -> None:
    meter = MESSAGES.meter(parse(stream=True))
    stream = b"".join(messages())
    assert meter.feed(stream) == stream
    assert (meter.usage, meter.counted, meter.done) == (USAGE, False, True)
    assert (meter.events, meter.finish_reason, meter.id) == (3, "end_turn", "msg_1")


def test_until_the_engine_counts_we_do() -> None:
    meter = MESSAGES.meter(parse(stream=True))
    meter.feed(b"".join(messages(words=5)[:6]))
    assert meter.usage is not None
    assert (meter.usage.input_tokens, meter.usage.output_tokens) == (37, 3)
    assert (meter.produced, meter.counted) == (3, True)


def test_a_whole_answer_is_counted_with_its_cache() -> None:
    usage = {
        "input_tokens": 5,
        "cache_read_input_tokens": 22,
        "cache_creation_input_tokens": 10,
        "cache_creation": {"ephemeral_1h_input_tokens": 6},
        "output_tokens": 3,
        "service_tier": "priority",
    }
    calls = [{"type": "text", "text": "x"}, {"type": "tool_use", "id": "t", "name": "n"}]
    body = {"id": "msg_1", "content": calls, "stop_reason": "max_tokens", "usage": usage}
    answer = MESSAGES.read_answer(json.dumps(body).encode())
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.tier) == (37, "priority")
    assert (answer.limited, answer.tool_calls, answer.id) == (True, 1, "msg_1")


@pytest.mark.parametrize("usage", [{"input_tokens": -1}, {"output_tokens": 10**12}])
def test_counts_that_cannot_be_true_are_not_believed(usage: dict[str, int]) -> None:
    body = {"usage": {"input_tokens": 1, "output_tokens": 1} | usage}
    answer = MESSAGES.read_answer(json.dumps(body).encode())
    assert (answer.usage, answer.disputed) == (None, True)
    meter = MESSAGES.meter(parse(stream=True))
    meter.feed(b"".join(messages(**usage)))
    assert meter.disputed


@pytest.mark.parametrize(
    "fields",
    [
        content({"type": "image", "source": {"type": "url", "url": "http://x"}}),
        content({"type": "document", "source": {"type": "file", "file_id": "f"}}),
        content({"type": "tool_result", "content": [{"type": "image", "source": {}}]}),
        {"tools": [{"type": "bash_20250124", "name": "bash"}]},
    ],
)
def test_content_from_elsewhere_is_seen(fields: dict[str, Any]) -> None:
    assert parse(**fields).unseen


def test_tools_that_anthropic_runs_are_seen() -> None:
    parsed = parse(tools=[{"type": "web_search_20250305", "name": "web_search"}])
    assert (parsed.hosted, parsed.tools) == (True, ("web_search",))


def test_offered_tools_are_named() -> None:
    tools = [{"name": "search", "input_schema": {}}, {"type": "custom", "name": "shell"}]
    parsed = parse(tools=tools, tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    assert (parsed.tools, parsed.parallel_tools, parsed.unseen) == (
        ("search", "shell"),
        False,
        False,
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"speed": "fast"}, "speed"),
        ({"inference_geo": "us"}, "inference_geo"),
        ({"container": "c"}, "container"),
        ({"mcp_servers": []}, "mcp_servers"),
        ({"service_tier": "batch"}, "service_tier"),
        ({"thinking": {"type": "enabled", "budget_tokens": -1}}, "budget_tokens"),
        (
            {"context_management": {"edits": [{"type": "compact_20260112"}]}},
            "context_management.edits",
        ),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.content"),
        ({"system": [{"text": "x"}]}, "system"),
        ({"tools": [{"input_schema": {}}]}, "tools"),
        ({"model": ""}, "model"),
    ],
)
def test_what_could_cost_more_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as error:
        parse(**fields)
    assert error.value.param == param


@pytest.mark.parametrize(("limit", "budget"), [(9000, 8000), (4000, 3999), (1024, None), (5, None)])
def test_thinking_stays_within_the_limit(limit: int, budget: int | None) -> None:
    parsed = parse(max_tokens=9000, thinking={"type": "enabled", "budget_tokens": 8000})
    body = MESSAGES.forward_body(parsed, output_limit=limit, engine=Engine.ANTHROPIC)
    written = json.loads(body)
    assert written["max_tokens"] == limit
    assert written.get("thinking", {}).get("budget_tokens") == budget


def test_betas_that_are_not_known_stay_here() -> None:
    said = b"interleaved-thinking-2025-05-14, context-1m-2025-08-07,effort-2025-11-24"
    assert known_betas(said) == b"interleaved-thinking-2025-05-14,effort-2025-11-24"


def test_a_cut_ends_open_blocks_and_the_message() -> None:
    meter = MESSAGES.meter(parse(stream=True))
    meter.feed(b"".join(messages()[:5]))
    ending = meter.cut_ending({"outcome": "cut"}, request_id="r", input_tokens=37)
    kinds = [part.split(b"\n")[0] for part in ending.split(b"\n\n")[:-1]]
    assert kinds == [
        b"event: content_block_stop",
        b"event: message_delta",
        b"event: message_stop",
    ]
    assert b'"stop_reason":"max_tokens"' in ending
    assert b'"comptroller":{"outcome":"cut"}' in ending


def test_a_limit_of_ours_is_noted() -> None:
    meter = MESSAGES.meter(parse(stream=True), clamp_note=b'{"outcome":"clamped"}')
    out = meter.feed(b"".join(messages(stop="max_tokens")))
    assert out.count(b'"comptroller":{"outcome":"clamped"}}\n\n') == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (402, "billing_error"),
        (403, "permission_error"),
        (429, "rate_limit_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
    ],
)
def test_refusals_have_anthropics_types(status: int, kind: str) -> None:
    body = MESSAGES.refusal_body(Refuse(status, "t", "No"), request_id="r")
    assert (body["type"], body["error"]["type"]) == ("error", kind)


def test_what_claude_code_sends_is_understood() -> None:
    parsed = parse(
        system=[{"type": "text", "text": "be good", "cache_control": {"type": "ephemeral"}}],
        metadata={"user_id": '{"device_id":"d","session_id":"s"}'},
        thinking={"type": "adaptive"},
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        output_config={"effort": "high"},
        tools=[{"name": "Bash", "description": "run", "input_schema": {"type": "object"}}],
        stream=True,
        max_tokens=32_000,
    )
    assert (parsed.tools, parsed.unseen, parsed.hosted) == (("Bash",), False, False)
    assert (parsed.stream, parsed.output_limit) == (True, 32_000)
