"""Spans of model calls: every generation of names, and what is no call."""

from dataclasses import dataclass
from typing import Any

import pytest

from enforcement.rules.reports.call import ReportedCall, ReportError
from enforcement.rules.reports.genai import call_of, wanted
from enforcement.rules.reports.spans import Span, Value
from enforcement.rules.wire import Outcome

CHAT: dict[str, Value] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "toy",
    "gen_ai.usage.input_tokens": 10,
    "gen_ai.usage.output_tokens": 4,
}


def span(attributes: dict[str, Value], **more: Any) -> Span:
    said: dict[str, Any] = {
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": "b7ad6b7169203331",
        "name": "chat toy",
        "started_ns": 1_795_456_441_304_605_000,
        "ended_ns": 1_795_456_441_798_223_000,
        "failed": False,
        "resource": {},
    }
    return Span(attributes=attributes, **said | more)


def told(attributes: dict[str, Value], **more: Any) -> ReportedCall:
    call = call_of(span(attributes, **more))
    assert call is not None
    return call


@dataclass(frozen=True)
class Generation:
    """Names of one age for 10 tokens in, of them 6 cached and 2 written, and 4 out, 3 reasoned."""

    said: dict[str, Value]
    parts: tuple[int, int, int] = (6, 2, 3)


GENERATIONS = {
    "first": Generation(
        {
            "gen_ai.system": "openai",
            "gen_ai.request.model": "toy",
            "gen_ai.usage.prompt_tokens": 10,
            "gen_ai.usage.completion_tokens": 4,
            "gen_ai.usage.cache_read_input_tokens": 6,
            "gen_ai.usage.cache_creation_input_tokens": 2,
            "gen_ai.usage.reasoning_tokens": 3,
        }
    ),
    "second": Generation(CHAT | {"gen_ai.system": "openai"}, (0, 0, 0)),
    "third": Generation(
        CHAT
        | {
            "gen_ai.provider.name": "openai",
            "gen_ai.usage.cache_read.input_tokens": 6,
            "gen_ai.usage.cache_write.input_tokens": 2,
            "gen_ai.usage.reasoning.output_tokens": 3,
        }
    ),
    "third as it was first named": Generation(
        CHAT
        | {
            "gen_ai.provider.name": "openai",
            "gen_ai.usage.cache_read.input_tokens": 6,
            "gen_ai.usage.cache_creation.input_tokens": 2,
            "gen_ai.usage.reasoning.output_tokens": 3,
        }
    ),
    "OpenInference": Generation(
        {
            "openinference.span.kind": "LLM",
            "llm.model_name": "toy",
            "llm.system": "openai",
            "llm.token_count.prompt": 10,
            "llm.token_count.completion": 4,
            "llm.token_count.prompt_details.cache_read": 6,
            "llm.token_count.prompt_details.cache_write": 2,
            "llm.token_count.completion_details.reasoning": 3,
        }
    ),
}


@pytest.mark.parametrize("name", GENERATIONS)
def test_every_generation_says_the_same(name: str) -> None:
    generation = GENERATIONS[name]
    assert all(wanted(attribute) for attribute in generation.said)
    call = told(generation.said)
    usage = call.usage
    assert (call.model, call.provider) == ("toy", "openai")
    assert (usage.input_tokens, usage.output_tokens) == (10, 4)
    parts = (usage.cached_input_tokens, usage.cache_write_tokens, usage.reasoning_tokens)
    assert parts == generation.parts


def test_the_newest_name_wins() -> None:
    usage = told(CHAT | {"gen_ai.usage.prompt_tokens": 99, "llm.token_count.prompt": 98}).usage
    assert usage.input_tokens == 10
    assert told(CHAT | {"gen_ai.response.model": "toy-2026"}).model == "toy-2026"


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"http.method": "GET"},
        {"gen_ai.operation.name": "chat", "gen_ai.request.model": "toy"},
        CHAT | {"gen_ai.operation.name": "invoke_agent"},
        CHAT | {"gen_ai.operation.name": "execute_tool"},
        CHAT | {"openinference.span.kind": "CHAIN"},
        CHAT | {"openinference.span.kind": "AGENT"},
        CHAT | {"traceloop.span.kind": "workflow"},
    ],
)
def test_sums_and_other_spans_are_no_calls(attributes: dict[str, Value]) -> None:
    assert call_of(span(attributes)) is None


@pytest.mark.parametrize("operation", ["chat", "embeddings", "text_completion", "generate_content"])
def test_every_operation_of_a_model_is_a_call(operation: str) -> None:
    assert told(CHAT | {"gen_ai.operation.name": operation}).endpoint == operation


@pytest.mark.parametrize(
    ("attributes", "more", "reason"),
    [
        ({"gen_ai.usage.input_tokens": 1}, {}, "a span with tokens names no model"),
        (CHAT, {"trace_id": ""}, "a span with tokens has no trace and span id"),
        (CHAT, {"span_id": "xyz"}, "a span with tokens has no trace and span id"),
        (
            CHAT | {"gen_ai.usage.input_tokens": -1},
            {},
            "gen_ai.usage.input_tokens is negative or more than 100,000,000",
        ),
        (
            CHAT | {"gen_ai.usage.output_tokens": "many"},
            {},
            "gen_ai.usage.output_tokens is no whole number",
        ),
    ],
)
def test_what_cannot_be_true_says_why(
    attributes: dict[str, Value], more: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ReportError) as caught:
        call_of(span(attributes, **more))
    assert str(caught.value) == reason


def test_agents_are_looked_for_from_the_surest_name_to_the_service() -> None:
    said = CHAT | {"gen_ai.agent.name": "Seven", "gen_ai.agent.id": "a-7", "comptroller.agent": "a"}
    call = told(said, resource={"service.name": "shop", "gen_ai.agent.id": "a-7"})
    assert call.agents == ("a", "a-7", "Seven", "shop")


def test_all_that_is_said_of_a_call_is_kept() -> None:
    call = told(
        CHAT
        | {
            "gen_ai.conversation.id": "s",
            "user.id": "u",
            "gen_ai.response.id": "chatcmpl-0123456789",
            "gen_ai.response.finish_reasons": ("length", "stop"),
            "gen_ai.response.time_to_first_chunk": 0.25,
            "gen_ai.request.stream": True,
            "server.address": "API.example",
            "server.port": 8443,
            "comptroller.request_id": "e-1",
            "comptroller.tag.team": "red",
        },
        failed=True,
        resource={"comptroller.node": "n-1", "comptroller.tag.team": "blue"},
    )
    assert (call.session, call.user, call.node) == ("s", "u", "n-1")
    assert (call.response_id, call.finish_reason) == ("chatcmpl-0123456789", "length")
    assert (call.stream, call.ttft_ms, call.duration_ms) == (True, 250, 493)
    assert (call.address, call.sidecar_event) == ("api.example:8443", "e-1")
    assert (call.outcome, call.tags) == (Outcome.UPSTREAM_FAILED, {"team": "red"})


@pytest.mark.parametrize(
    "name",
    ["gen_ai.input.messages", "gen_ai.prompt.0.content", "llm.input_messages", "input.value"],
)
def test_prompts_are_not_read(name: str) -> None:
    assert not wanted(name)
