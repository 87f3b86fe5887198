"""LiteLLM's `StandardLoggingPayload`, as its generic API callback and custom loggers send it.

A body is one payload, a list of them, or one a line (the callback's `json_array`, `single` and
`ndjson`), each bare or under `standard_logging_object`. Seen with LiteLLM 1.106.2 and 1.110.2,
and with its proxy 1.108.7.

1. A call is named by `litellm_call_id` and the answer's `id`: attempts share the former.
2. `prompt_tokens` includes cached ones. Details stand in `metadata.usage_object`.
3. What LiteLLM answered from its own cache ran on no model, and a failure without tokens used
   none: neither is a call.
4. The agent is named by the caller (`agent_id` of the metadata, `x-agent-id`, the tag `agent:NAME`,
   which alone the SDK passes on), else by the key's alias, else as end user.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from enforcement.rules.reports.call import (
    MAX_DURATION_MS,
    MAX_NAME,
    MAX_TAGS,
    ReportedCall,
    ReportError,
    Source,
    address_of,
    count_of,
    milliseconds_of,
    provider_of,
    text_of,
    token_usage,
)
from enforcement.rules.wire import Outcome

WRAPPERS = ("standard_logging_object", "standard_logging_payload")
_FIELDS = ("litellm_call_id", "prompt_tokens", "completion_tokens")

Payload = Mapping[str, Any]


def documents_of(body: bytes) -> list[msgspec.Raw]:
    """The payloads of a body, still JSON: one that cannot be read does not spoil the others.

    Raises:
        ReportError: no JSON at all.
    """
    try:
        if body.lstrip()[:1] == b"[":
            return msgspec.json.decode(body, type=list[msgspec.Raw])
        if lines := [line for line in body.splitlines() if line.strip()]:
            return _by_line(body, lines)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ReportError(f"no JSON: {error}") from error
    return []


def _by_line(body: bytes, lines: list[bytes]) -> list[msgspec.Raw]:
    """One document a line, or one that was printed over several."""
    try:
        return [msgspec.json.decode(body, type=msgspec.Raw)]
    except (msgspec.MsgspecError, UnicodeDecodeError):
        if len(lines) == 1 or lines[0].strip() == b"{":
            raise
        return [msgspec.Raw(line) for line in lines]


def call_of(document: bytes) -> ReportedCall | None:
    """The call that a payload tells of; None if no model ran for it.

    Raises:
        ReportError: it cannot be read, or tells of what cannot be true.
    """
    payload = _payload(document)
    if payload.get("cache_hit") is True:
        return None
    details = _object(_object(payload, "metadata"), "usage_object")
    usage = token_usage(
        input_tokens=count_of(payload.get("prompt_tokens") or 0, "prompt_tokens"),
        output_tokens=count_of(payload.get("completion_tokens") or 0, "completion_tokens"),
        cached=_detail(details, "prompt_tokens_details", "cached_tokens")
        or _plain(details, "cache_read_input_tokens"),
        written=_detail(details, "prompt_tokens_details", "cache_creation_tokens")
        or _plain(details, "cache_creation_input_tokens"),
        reasoning=_detail(details, "completion_tokens_details", "reasoning_tokens"),
        tier=text_of(details.get("service_tier")),
    )
    if not usage.total_tokens:
        return None
    names = [text_of(payload.get(name)) for name in ("litellm_call_id", "id")]
    model, key = _model(payload), "/".join(name for name in names if name)
    if not key or not model:
        raise ReportError("a payload with tokens names no call, or no model")
    return _call(payload, key=key, model=model, usage=usage)


def _call(payload: Payload, *, key: str, model: str, usage: Any) -> ReportedCall:
    started_ms = milliseconds_of(payload.get("startTime"))
    ended_ms = milliseconds_of(payload.get("endTime"))
    first_ms = milliseconds_of(payload.get("completionStartTime"))
    stream = payload.get("stream") is True
    spent_ms, tags = ended_ms - started_ms, _tags(payload.get("request_tags"))
    return ReportedCall(
        source=Source.LITELLM,
        key=key,
        model=model,
        started_at_ms=started_ms,
        usage=usage,
        agents=_agents(payload, tags),
        provider=provider_of(text_of(payload.get("custom_llm_provider"))),
        endpoint=text_of(payload.get("call_type"))[:64],
        session=text_of(payload.get("session_id")) or text_of(payload.get("trace_id")),
        user=_user(payload),
        outcome=(
            Outcome.UPSTREAM_FAILED if payload.get("status") == "failure" else Outcome.COMPLETED
        ),
        stream=stream,
        duration_ms=spent_ms if 0 <= spent_ms <= MAX_DURATION_MS else 0,
        ttft_ms=first_ms - started_ms if stream and ended_ms >= first_ms > started_ms else None,
        response_id=text_of(payload.get("id")),
        address=address_of(text_of(payload.get("api_base"))),
        tags=tags,
    )


def _payload(document: bytes) -> Payload:
    try:
        payload = msgspec.json.decode(document, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ReportError(f"no JSON: {error}") from error
    for wrapper in WRAPPERS:
        if isinstance(payload.get(wrapper), dict):
            payload = payload[wrapper]
    if not any(name in payload for name in _FIELDS):
        raise ReportError("no StandardLoggingPayload: it has no call id and no token counts")
    return payload


def _model(payload: Payload) -> str:
    """Without the prefix by which LiteLLM names the provider."""
    model = text_of(payload.get("model"))
    return model.removeprefix(f"{text_of(payload.get('custom_llm_provider'))}/")


def _agents(payload: Payload, tags: Mapping[str, str]) -> tuple[str, ...]:
    metadata = _object(payload, "metadata")
    headers = _object(metadata, "requester_custom_headers")
    names = (
        _object(metadata, "requester_metadata").get("agent_id"),
        headers.get("x-agent-id"),
        tags.get("agent"),
        metadata.get("user_api_key_alias"),
        metadata.get("user_api_key_end_user_id"),
        _user(payload),
    )
    return tuple(dict.fromkeys(text for name in names if (text := text_of(name))))


def _user(payload: Payload) -> str:
    """The end user as the proxy has it, or the `user` that the SDK was called with."""
    parameters = _object(payload, "model_parameters")
    return text_of(payload.get("end_user")) or text_of(parameters.get("user"))


def _tags(given: Any) -> dict[str, str]:
    """`name:value` of LiteLLM's list; what it adds about the client's program is left out."""
    tags: dict[str, str] = {}
    for tag in given if isinstance(given, list) else ():
        name, _, value = text_of(tag).partition(":")
        if name and name != "User-Agent" and len(tags) < MAX_TAGS:
            tags.setdefault(name[:MAX_NAME], value.strip())
    return tags


def _object(given: Payload, name: str) -> Payload:
    value = given.get(name)
    return value if isinstance(value, dict) else {}


def _plain(details: Payload, name: str) -> int:
    return count_of(details.get(name) or 0, name)


def _detail(details: Payload, group: str, name: str) -> int:
    return _plain(_object(details, group), name)
