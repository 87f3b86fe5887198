"""OpenTelemetry spans of model calls, in every generation of names, as reported calls.

| generation | says |
|---|---|
| first (vLLM, OpenLLMetry) | `gen_ai.usage.prompt_tokens`, `.completion_tokens`; `gen_ai.system` |
| second (semantic-conventions 1.27 to 1.36) | `gen_ai.usage.input_tokens`, `.output_tokens` |
| third (semantic-conventions-genai 0.1) | also `.cache_read.input_tokens`, `.cache_write.input_tokens`, `.reasoning.output_tokens`; `gen_ai.provider.name` |
| OpenInference | `llm.token_count.prompt`, `.completion`, `llm.model_name`, `llm.provider`, `session.id` |

A newer name wins over an older one. Spans of agents, chains, tools and workflows repeat the sums of
the calls below them: only spans of one model call are taken. Everything else has no usage.
"""  # noqa: E501 -- a table

import re
from collections.abc import Iterable, Mapping

from enforcement.rules.reports.call import (
    MAX_NAME,
    MAX_TAGS,
    ReportedCall,
    ReportError,
    Source,
    count_of,
    duration_ms,
    milliseconds_of,
    provider_of,
    text_of,
    token_usage,
)
from enforcement.rules.reports.spans import Span, Value
from enforcement.rules.wire import Outcome

INPUT = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt")
OUTPUT = (
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.token_count.completion",
)
CACHED = (
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_read_input_tokens",
    "gen_ai.usage.input_tokens.cached",
    "llm.token_count.prompt_details.cache_read",
)
WRITTEN = (
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_creation_input_tokens",
    "llm.token_count.prompt_details.cache_write",
)
REASONING = (
    "gen_ai.usage.reasoning.output_tokens",
    "gen_ai.usage.reasoning_tokens",
    "gen_ai.usage.output_tokens.reasoning",
    "llm.token_count.completion_details.reasoning",
)
MODEL = ("gen_ai.response.model", "gen_ai.request.model", "llm.model_name")
PROVIDER = ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system")
TIER = ("openai.response.service_tier", "gen_ai.openai.response.service_tier")
AGENT = ("comptroller.agent", "gen_ai.agent.id", "gen_ai.agent.name", "agent.name")
SESSION = ("gen_ai.conversation.id", "session.id")
USER = ("user.id", "enduser.id")
NODE = ("comptroller.node",)
RESPONSE = ("gen_ai.response.id", "gen_ai.request.id")
OPERATION = ("gen_ai.operation.name", "llm.request.type")
FINISH = ("gen_ai.response.finish_reasons",)
STREAM = ("gen_ai.request.stream", "llm.is_streaming")
FIRST_S = ("gen_ai.response.time_to_first_chunk", "gen_ai.latency.time_to_first_token")
KINDS = ("openinference.span.kind", "traceloop.span.kind")
EVENT = ("comptroller.request_id",)
HOST, PORT = ("server.address",), ("server.port",)
SERVICE = ("service.name",)
TAG = "comptroller.tag."

_NAMES = frozenset(
    name
    for names in (
        INPUT, OUTPUT, CACHED, WRITTEN, REASONING, MODEL, PROVIDER, TIER, AGENT, SESSION, USER,
        NODE, RESPONSE, OPERATION, FINISH, STREAM, FIRST_S, KINDS, EVENT, HOST, PORT, SERVICE,
    )
    for name in names
)  # fmt: skip
_MODEL_CALLS = frozenset({
    "chat", "text_completion", "completion", "generate_content", "embeddings", "embedding",
    "rerank",
})  # fmt: skip
_MODEL_KINDS = frozenset({"llm", "embedding", "reranker"})
_TRACE_ID, _SPAN_ID = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{16}")
_NS_PER_MS = 1_000_000


def wanted(name: str) -> bool:
    """Whether an attribute is read at all. Prompts and answers are not."""
    return name in _NAMES or name.startswith(TAG)


def call_of(span: Span) -> ReportedCall | None:
    """The model call that a span tells of; None if it tells of none, or of no tokens.

    Raises:
        ReportError: it tells of tokens that cannot be true, of no model, or has no id.
    """
    said = span.attributes
    if not _is_model_call(said) or not any(name in said for name in (*INPUT, *OUTPUT)):
        return None
    model = _text(said, MODEL)
    if not model:
        raise ReportError("a span with tokens names no model")
    if not _TRACE_ID.fullmatch(span.trace_id) or not _SPAN_ID.fullmatch(span.span_id):
        raise ReportError("a span with tokens has no trace and span id")
    usage = token_usage(
        input_tokens=_count(said, INPUT),
        output_tokens=_count(said, OUTPUT),
        cached=_count(said, CACHED),
        written=_count(said, WRITTEN),
        reasoning=_count(said, REASONING),
        tier=_text(said, TIER),
    )
    return ReportedCall(
        source=Source.OTLP,
        key=f"{span.trace_id}:{span.span_id}",
        model=model,
        started_at_ms=span.started_ns // _NS_PER_MS,
        usage=usage,
        agents=_agents(span),
        provider=provider_of(_text(said, PROVIDER)),
        endpoint=_text(said, OPERATION)[:64],
        session=_text(said, SESSION),
        user=_text(said, USER),
        node=_text(said, NODE) or _text(span.resource, NODE),
        outcome=Outcome.UPSTREAM_FAILED if span.failed else Outcome.COMPLETED,
        stream=_first(said, STREAM) is True,
        duration_ms=duration_ms(span.started_ns, span.ended_ns),
        ttft_ms=milliseconds_of(_first(said, FIRST_S)) or None,
        finish_reason=_reason(said),
        response_id=_text(said, RESPONSE),
        address=_address(said),
        sidecar_event=_text(said, EVENT),
        tags=_tags(said, span.resource),
    )


def _is_model_call(said: Mapping[str, Value]) -> bool:
    """By its operation or kind; a span that names neither is one if it has tokens."""
    operation, kind = _text(said, OPERATION).lower(), _text(said, KINDS).lower()
    if kind and kind not in _MODEL_KINDS:
        return False
    return not operation or operation in _MODEL_CALLS


def _agents(span: Span) -> tuple[str, ...]:
    names = [
        text_of(given[name])
        for given in (span.attributes, span.resource)
        for name in (*AGENT, *SERVICE)
        if name in given
    ]
    return tuple(dict.fromkeys(name for name in names if name))


def _first(said: Mapping[str, Value], names: Iterable[str]) -> Value | None:
    return next((said[name] for name in names if name in said), None)


def _text(said: Mapping[str, Value], names: Iterable[str]) -> str:
    return next((text for name in names if (text := text_of(said.get(name)))), "")


def _count(said: Mapping[str, Value], names: Iterable[str]) -> int:
    return next((count_of(said[name], name) for name in names if name in said), 0)


def _reason(said: Mapping[str, Value]) -> str:
    reasons = _first(said, FINISH)
    return text_of(reasons[0] if isinstance(reasons, tuple) and reasons else reasons)[:64]


def _address(said: Mapping[str, Value]) -> str:
    host, port = _text(said, HOST), _text(said, PORT)
    return f"{host.lower()}:{port or 443}" if host else ""


def _tags(*places: Mapping[str, Value]) -> dict[str, str]:
    tags: dict[str, str] = {}
    for place in places:
        for name, value in place.items():
            if name.startswith(TAG) and len(tags) < MAX_TAGS:
                tags.setdefault(name.removeprefix(TAG)[:MAX_NAME], text_of(value))
    return tags
