"""Anthropic's Messages and count_tokens, as Anthropic, vLLM, llama.cpp and Ollama speak them.

Source: the Anthropic API reference (Messages, streaming, prompt caching, thinking, errors).

1. `input_tokens` excludes what was read from and written to the cache; here it is added again.
2. The thinking budget is a part of `max_tokens`: where the limit is lowered, so is the budget.
3. What makes more output than `max_tokens` (compaction), costs more than the rates say (fast
   `speed`, `inference_geo`) or runs at the provider (containers, MCP servers) is refused by name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from enforcement.rules.dialects.base import Dialect, Engine, Family, Question
from enforcement.rules.frames import (
    MAX_OPEN,
    Answer,
    FrameMeter,
    Meter,
    is_object,
    plausible,
    sse,
)
from enforcement.rules.money import TokenUsage
from enforcement.rules.requests import (
    MAX_NAME,
    MAX_OUTPUT_TOKENS,
    Body,
    Endpoint,
    ParsedRequest,
    RequestError,
    bad,
    check_known,
    count_of,
    flag_of,
    name_of,
    object_in,
    object_of,
    objects_in,
    rewritten,
    tool_name,
    words,
)
from enforcement.rules.verdicts import Refuse, refusal_facts

VERSION = b"2023-06-01"  # of the API, for callers that name none
MIN_THINKING_TOKENS = 1024  # Anthropic's least budget
_COUNTED = words(
    "model messages system tools tool_choice thinking output_config output_format"
    " context_management cache_control"
)
_KNOWN = _COUNTED | words(
    "max_tokens stream metadata stop_sequences temperature top_k top_p service_tier speed"
    " diagnostics"
)
_PLAIN_BLOCKS = frozenset(["text", "tool_use", "tool_result", "thinking"])
# Tools that Anthropic describes and the agent runs: their descriptions are not in the body.
_AGENTS_TOOLS = ("bash_", "text_editor_", "computer_", "memory_")
_CHOICES = {"service_tier": ("auto", "standard_only"), "speed": ("standard",)}
# Betas whose effect on cost is known: none, or told by a body field that is read here.
_BETAS = (
    b"claude-code-",
    b"interleaved-thinking-",
    b"thinking-token-count-",
    b"context-management-",
    b"prompt-caching-",
    b"extended-cache-ttl-",
    b"mid-conversation-system-",
    b"effort-",
    b"token-counting-",
    b"token-efficient-tools-",
    b"fine-grained-tool-streaming-",
    b"structured-outputs-",
    b"output-128k-",
    b"computer-use-",
    b"oauth-",
)
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def refusal_body_of(refusal: Refuse, *, request_id: str) -> dict[str, Any]:
    """A refusal as Anthropic's clients read it."""
    return {
        "type": "error",
        "error": {"type": _TYPES.get(refusal.status, "api_error")}
        | refusal_facts(refusal, request_id=request_id),
        "request_id": request_id,
    }


# ---------------------------------------------------------------------- what engines say


class _CacheCreation(Struct, gc=False):
    ephemeral_5m_input_tokens: int | None = None
    ephemeral_1h_input_tokens: int | None = None


class _OutputDetails(Struct, gc=False):
    thinking_tokens: int | None = None


class _Usage(Struct, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation: _CacheCreation | None = None
    output_tokens_details: _OutputDetails | None = None
    service_tier: str | None = None


class _Block(Struct, gc=False):
    type: str = ""


class _Message(Struct, gc=False):
    id: str = ""
    model: str = ""
    content: list[_Block] = []
    stop_reason: str | None = None
    usage: _Usage | None = None


class _Delta(Struct, gc=False):
    type: str = ""
    stop_reason: str | None = None
    text: str = ""
    partial_json: str = ""


class _Event(Struct, gc=False):
    type: str = ""
    index: int = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_message = msgspec.json.Decoder(_Message).decode
_WRONG = (msgspec.MsgspecError, ValueError, RecursionError)


def _usage_of(said: _Usage) -> TokenUsage:
    read, written = said.cache_read_input_tokens or 0, said.cache_creation_input_tokens or 0
    details = said.output_tokens_details
    tier = said.service_tier or ""
    return TokenUsage(
        input_tokens=(said.input_tokens or 0) + read + written,
        cached_input_tokens=read,
        cache_write_tokens=written,
        cache_write_long_tokens=(
            said.cache_creation.ephemeral_1h_input_tokens or 0 if said.cache_creation else 0
        ),
        output_tokens=said.output_tokens or 0,
        reasoning_tokens=details.thinking_tokens or 0 if details else 0,
        tier="" if tier == "standard" else tier[:32],
    )


def _later(known: _Usage, said: _Usage) -> _Usage:
    """A usage in which later figures stand in place of earlier ones."""
    changes = {
        name: value for name in said.__struct_fields__ if (value := getattr(said, name)) is not None
    }
    return msgspec.structs.replace(known, **changes)


class MessagesMeter(FrameMeter):
    """The meter of a stream of Messages: every delta of a content block counts as a token."""

    __slots__ = ("_bytes", "_model", "_open", "_said", "_thinks")

    limit_word = "max_tokens"

    def __init__(self, *, clamp_note: bytes = b"") -> None:
        super().__init__(clamp_note=clamp_note)
        self._model = ""
        self._open: dict[int, str] = {}  # blocks that have begun and not ended
        self._said = _Usage()  # the latest of each figure
        self._bytes = 0  # of text and of arguments
        self._thinks = False  # thoughts are shown summarized, or not at all

    def _event(self, data: bytes) -> None:
        try:
            event = _decode_event(data)
        except _WRONG:
            self.disputed = True
            return
        if event.type == "content_block_delta":
            self._hear_words(event.delta)
        elif event.type == "content_block_start" and event.content_block is not None:
            if len(self._open) < MAX_OPEN:
                self._open[event.index] = event.content_block.type
            self.tool_calls += event.content_block.type == "tool_use"
            self._thinks |= event.content_block.type not in ("text", "tool_use")
        elif event.type == "content_block_stop":
            self._open.pop(event.index, None)
        elif event.type == "message_start" and event.message is not None:
            self._name, self._model = event.message.id[:128], event.message.model
            self._hear(event.message.usage)
        elif event.type == "message_delta":
            told = event.usage is not None and event.usage.output_tokens is not None
            self._hear(event.usage, final=told)
            if event.delta is not None:
                self._stop = event.delta.stop_reason or self._stop
        elif event.type == "message_stop":
            self.done = True
        self._count()

    def _hear_words(self, said: _Delta | None) -> None:
        if said is not None and said.type != "signature_delta":
            self.events += 1
            self._bytes += len(said.text.encode()) + len(said.partial_json.encode())

    @property
    def most_made(self) -> int | None:
        return None if self._thinks else max(self._bytes, self.events)

    def _hear(self, said: _Usage | None, *, final: bool = False) -> None:
        """Take up what the engine says. `final`: it has counted its output."""
        if said is None:
            return
        merged = _later(self._said, said)
        usage = _usage_of(merged)
        known = _usage_of(self._said)
        fallen = (
            usage.output_tokens < known.output_tokens or usage.input_tokens < known.input_tokens
        )
        if fallen or not plausible(usage):
            self.disputed = True
            return
        self._said, self.usage = merged, usage
        self.input_missing = merged.input_tokens is None
        if final:
            self.running = usage.output_tokens

    def _count(self) -> None:
        """Until the engine tells its output, it is what was seen."""
        self.counted = self.running is None
        if self.usage is not None and self.counted:
            seen = max(self.events, self.usage.output_tokens)
            self.usage = msgspec.structs.replace(self.usage, output_tokens=seen)

    def cut_ending(
        self, note: dict[str, Any], *, request_id: str, input_tokens: int | None
    ) -> bytes:
        parts = []
        if not self._name:  # clients want a message before its end
            usage = {"input_tokens": input_tokens or 0, "output_tokens": 0}
            message: dict[str, Any] = {
                "id": f"msg_{request_id}",
                "type": "message",
                "role": "assistant",
                "content": [],
                "model": self._model,
                "stop_reason": None,
                "stop_sequence": None,
                "usage": usage,
            }
            parts.append(sse("message_start", {"type": "message_start", "message": message}))
        parts += [
            sse("content_block_stop", {"type": "content_block_stop", "index": index})
            for index in self._open
        ]
        # LangChain shows these details, and no field that it does not know.
        why = {
            "type": "comptroller",
            "category": note.get("reason"),
            "explanation": note.get("message"),
        }
        last = {
            "type": "message_delta",
            "delta": {"stop_reason": "max_tokens", "stop_sequence": None, "stop_details": why},
            "usage": {"output_tokens": self.produced},
            "comptroller": note,
        }
        parts.append(sse("message_delta", last))
        parts.append(sse("message_stop", {"type": "message_stop"}))
        return b"".join(parts)

    def error_ending(self, body: dict[str, Any]) -> bytes:
        return sse("error", body)


# ---------------------------------------------------------------------- what clients ask


class Messages(Dialect):
    """`POST /v1/messages`."""

    endpoint = Endpoint.MESSAGES
    path = "/v1/messages"
    family = Family.ANTHROPIC

    def parse(self, body: Body) -> ParsedRequest:
        parsed = _parse(self.endpoint, body, known=_KNOWN)
        fields = parsed.fields
        parsed.stream = flag_of(fields, "stream")
        parsed.output_limit = count_of(fields, "max_tokens", most=MAX_OUTPUT_TOKENS)
        parsed.user = name_of(object_in(fields, "metadata"), "user_id")
        for name, allowed in _CHOICES.items():
            if fields.get(name) not in (None, *allowed):
                bad(name, f"must be one of {', '.join(allowed)}")
        parsed.wants_usage = True
        return parsed

    def forward_body(
        self, parsed: ParsedRequest, *, output_limit: int | None, engine: Engine
    ) -> bytes:
        changes: dict[str, Any] = {} if output_limit is None else {"max_tokens": output_limit}
        thinking = object_in(parsed.fields, "thinking")
        budget = thinking.get("budget_tokens")
        if output_limit is None or budget is None or budget < output_limit:
            return rewritten(parsed, changes)
        if output_limit <= MIN_THINKING_TOKENS:
            return rewritten(parsed, changes, dropped=["thinking"])
        less = thinking | {"budget_tokens": output_limit - 1}
        return rewritten(parsed, changes | {"thinking": less})

    def questions(self, parsed: ParsedRequest, engine: Engine) -> Sequence[Question]:
        fields = {name: value for name, value in parsed.fields.items() if name in _COUNTED}
        return [(CountTokens.path, fields)]

    def passed_lines(self, headers: Mapping[bytes, bytes]) -> bytes:
        version = headers.get(b"anthropic-version", VERSION)
        betas = known_betas(headers.get(b"anthropic-beta", b""))
        line = b"anthropic-version: %b\r\n" % version
        return line + b"anthropic-beta: %b\r\n" % betas if betas else line

    def meter(self, parsed: ParsedRequest, *, clamp_note: bytes = b"") -> Meter:
        return MessagesMeter(clamp_note=clamp_note)

    def read_answer(self, body: bytes) -> Answer:
        try:
            said = _decode_message(body)
        except _WRONG:
            return Answer(valid=is_object(body), disputed=True)
        usage = None if said.usage is None else _usage_of(said.usage)
        believed = usage if usage is not None and plausible(usage) else None
        return Answer(
            valid=is_object(body),
            usage=believed,
            disputed=believed is None and usage is not None,
            finish_reason=said.stop_reason or "",
            limited=said.stop_reason == "max_tokens",
            id=said.id[:128],
            tool_calls=sum(block.type == "tool_use" for block in said.content),
            input_missing=said.usage is not None and said.usage.input_tokens is None,
        )

    def refusal_body(self, refusal: Refuse, *, request_id: str) -> dict[str, Any]:
        return refusal_body_of(refusal, request_id=request_id)


class CountTokens(Messages):
    """`POST /v1/messages/count_tokens`: makes nothing, and is a request all the same."""

    endpoint = Endpoint.COUNT_TOKENS
    path = "/v1/messages/count_tokens"
    generates = False

    def parse(self, body: Body) -> ParsedRequest:
        parsed = _parse(self.endpoint, body, known=_COUNTED)
        parsed.prompt_tokens, parsed.tools = 0, ()
        parsed.unseen = parsed.hosted = False
        return parsed

    def forward_body(
        self, parsed: ParsedRequest, *, output_limit: int | None, engine: Engine
    ) -> bytes:
        return parsed.encoded

    def read_answer(self, body: bytes) -> Answer:
        return Answer(valid=is_object(body), usage=TokenUsage())


def known_betas(value: bytes) -> bytes:
    """The betas of a list that do not make a call cost what its body does not say."""
    names = [name.strip() for name in value.split(b",")]
    return b",".join(name for name in names if name.startswith(_BETAS))


def _parse(endpoint: Endpoint, body: Body, *, known: frozenset[str]) -> ParsedRequest:
    fields, encoded = object_of(body)
    check_known(fields, known)
    parsed = ParsedRequest(endpoint, name_of(fields, "model"), fields, encoded)
    if not parsed.model:
        bad("model", "is required")
    messages = objects_in(fields, "messages")
    if not messages:
        bad("messages", "must be a list with at least one message")
    for message in messages:
        _look(parsed, message.get("content"), "messages.content")
    _look(parsed, fields.get("system"), "system")
    _read_tools(parsed)
    _read_thinking(fields)
    _read_edits(fields)
    return parsed


def _look(parsed: ParsedRequest, content: object, field: str) -> None:
    """Note content that the engine takes from elsewhere."""
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list):
        bad(field, "must be a string or a list of blocks")
    for block in content:
        kind = block.get("type") if isinstance(block, dict) else None
        if not isinstance(kind, str):
            bad(field, "must hold blocks with a 'type'")
        if kind not in _PLAIN_BLOCKS:
            parsed.unseen = True
        elif kind == "tool_result":
            _look(parsed, block.get("content"), field)


def _read_tools(parsed: ParsedRequest) -> None:
    names = []
    for tool in objects_in(parsed.fields, "tools"):
        kind = tool.get("type")
        if kind in (None, "custom"):
            names.append(tool_name(tool, "tools"))
            continue
        if not isinstance(kind, str) or len(kind) > MAX_NAME:
            bad("tools", "must hold objects with a 'type'")
        parsed.unseen = True
        parsed.hosted |= not kind.startswith(_AGENTS_TOOLS)
        names.append(name_of(tool, "name") or kind)
    parsed.tools = tuple(names)
    choice = object_in(parsed.fields, "tool_choice")
    parsed.parallel_tools = not flag_of(choice, "disable_parallel_tool_use")


def _read_thinking(fields: dict[str, Any]) -> None:
    thinking = object_in(fields, "thinking")
    count_of(thinking, "budget_tokens", most=MAX_OUTPUT_TOKENS)


def _read_edits(fields: dict[str, Any]) -> None:
    """Edits that only drop old content cost nothing; others make the model write."""
    for edit in objects_in(object_in(fields, "context_management"), "edits"):
        kind = edit.get("type")
        if not isinstance(kind, str) or not kind.startswith("clear_"):
            raise RequestError(
                f"Unknown edit: {str(kind)[:64]!r}",
                param="context_management.edits",
                code="unknown_field",
            )


def model_list(names: Sequence[str]) -> dict[str, Any]:
    """The list of models as Anthropic's clients read it."""
    models = [
        {
            "type": "model",
            "id": name,
            "display_name": name,
            "created_at": "1970-01-01T00:00:00Z",
        }
        for name in names
    ]
    return {
        "data": models,
        "has_more": False,
        "first_id": names[0] if names else None,
        "last_id": names[-1] if names else None,
    }
