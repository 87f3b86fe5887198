"""LiteLLM's payloads: what is read of them, whoever sent them; whole bodies are at the receiver."""

from typing import Any

import msgspec
import pytest

from enforcement.rules.reports.call import ReportedCall, ReportError
from enforcement.rules.reports.litellm import call_of, documents_of
from enforcement.rules.wire import Outcome

# As the SDK of 1.110.2 sends it for a call with `user` and tags, cut to what is read.
SDK: dict[str, Any] = {
    "id": "chatcmpl-fast",
    "litellm_call_id": "f53b7699-9e42-4924-9fc1-f741e5381432",
    "trace_id": "292e8072-c4e9-48ce-9c95-202632a494f3",
    "call_type": "acompletion",
    "status": "success",
    "custom_llm_provider": "openai",
    "startTime": 1795935908.394163,
    "endTime": 1795935909.051165,
    "completionStartTime": 1795935908.894163,
    "model": "fast",
    "metadata": {"requester_metadata": None, "usage_object": {"prompt_tokens_details": None}},
    "prompt_tokens": 200,
    "completion_tokens": 110,
    "request_tags": ["agent:a1", "User-Agent: python"],
    "end_user": "",
    "api_base": "http://127.0.0.1:18998/v1",
    "model_parameters": {"max_tokens": 5, "user": "u-1"},
}


def told(**changes: Any) -> ReportedCall:
    call = call_of(msgspec.json.encode(SDK | changes))
    assert call is not None
    return call


def test_a_call_of_the_sdk_names_its_agent_by_a_tag_and_its_user_as_parameter() -> None:
    call = told()
    assert (call.agents, call.user, call.tags) == (("a1", "u-1"), "u-1", {"agent": "a1"})
    assert (call.model, call.provider, call.address) == ("fast", "openai", "127.0.0.1:18998")
    assert (call.usage.input_tokens, call.usage.output_tokens) == (200, 110)
    assert (call.started_at_ms, call.duration_ms, call.ttft_ms) == (1_795_935_908_394, 657, None)


def test_a_stream_has_a_first_token() -> None:
    assert told(stream=True).ttft_ms == 500
    assert told(stream=True, completionStartTime=0).ttft_ms is None


def test_the_surest_name_of_an_agent_comes_first() -> None:
    metadata = {
        "requester_metadata": {"agent_id": "by-metadata"},
        "requester_custom_headers": {"x-agent-id": "by-header"},
        "user_api_key_alias": "by-key",
        "user_api_key_end_user_id": "by-user",
    }
    assert told(metadata=metadata).agents == (
        "by-metadata",
        "by-header",
        "a1",
        "by-key",
        "by-user",
        "u-1",
    )


def test_anthropics_counts_stand_beside_the_prompt_or_in_it() -> None:
    """LiteLLM has both: details as OpenAI names them, and Anthropic's own names."""
    usage = {"cache_read_input_tokens": 60, "cache_creation_input_tokens": 40}
    inside = told(metadata={"usage_object": usage}).usage
    assert (inside.input_tokens, inside.cached_input_tokens, inside.cache_write_tokens) == (
        200,
        60,
        40,
    )
    apart = told(metadata={"usage_object": usage}, prompt_tokens=10).usage
    assert apart.input_tokens == 110


def test_a_failure_that_cost_tokens_is_a_call_that_failed() -> None:
    assert told(status="failure").outcome is Outcome.UPSTREAM_FAILED
    nothing = SDK | {"status": "failure", "prompt_tokens": 0, "completion_tokens": None}
    assert call_of(msgspec.json.encode(nothing)) is None


@pytest.mark.parametrize("change", [{"metadata": 7}, {"request_tags": "x"}, {"startTime": "soon"}])
def test_what_is_of_another_shape_is_not_there(change: dict[str, Any]) -> None:
    assert told(**change).usage.output_tokens == 110


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"7", "no JSON: "),
        (b'{"prompt_tokens":1,"\xd9":1}', "no JSON: "),
        (b"{}", "no StandardLoggingPayload"),
        (msgspec.json.encode(SDK | {"model": ""}), "names no call, or no model"),
        (msgspec.json.encode(SDK | {"prompt_tokens": "x"}), "prompt_tokens is no whole number"),
    ],
)
def test_what_cannot_be_true_says_why(document: bytes, reason: str) -> None:
    with pytest.raises(ReportError, match=reason):
        call_of(document)


def test_one_line_that_is_no_json_does_not_spoil_the_others() -> None:
    good = msgspec.json.encode(SDK)
    documents = documents_of(good + b"\n{broken\n" + good)
    assert len(documents) == 3
    with pytest.raises(ReportError):
        call_of(bytes(documents[1]))
