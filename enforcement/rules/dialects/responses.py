"""OpenAI's Responses, as OpenAI, vLLM, llama.cpp and Ollama speak them.

Source: the OpenAI API reference (Responses, streaming events).

1. A stream ends with `response.completed`, `.incomplete` or `.failed`, which carries the usage.
   A cut ends every open part and item, then says `response.incomplete` with the reason
   `max_output_tokens`.
2. Earlier answers, conversations and stored prompts are context that nobody sees here. What runs in
   the background could be neither metered nor ended, and is refused.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from enforcement.rules.dialects.base import Dialect, Engine, Family, Question
from enforcement.rules.dialects.openai import CACHE_OPTIONS
from enforcement.rules.frames import (
    MAX_OPEN,
    Answer,
    FrameMeter,
    Meter,
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
from enforcement.rules.stream import CacheWrites, long_writes
from enforcement.rules.verdicts import Refuse, refusal_body

MAX_KEPT_BYTES = 1024 * 1024  # of an answer, for the end of a stream that is cut
_KNOWN = words(
    "model input instructions max_output_tokens max_tool_calls stream stream_options"
    " temperature top_p top_logprobs tools tool_choice parallel_tool_calls text reasoning"
    " include store metadata user safety_identifier prompt_cache_key prompt_cache_retention"
    " service_tier truncation previous_response_id conversation prompt background"
    " client_metadata prompt_cache_options"
)
_STREAM_OPTIONS = frozenset(["include_obfuscation"])
_ELSEWHERE = ("previous_response_id", "conversation", "prompt")
_PLAIN_ITEMS = words(
    "message function_call function_call_output reasoning custom_tool_call"
    " custom_tool_call_output agent_message"
)
_PLAIN_PARTS = frozenset(
    ["input_text", "output_text", "refusal", "summary_text", "reasoning_text", "text"]
)
_PLAIN_TOOLS = frozenset(["function", "custom", "local_shell", "shell", "apply_patch"])
_CALLS = frozenset(["function_call", "custom_tool_call", "local_shell_call", "shell_call"])
_SHOWN = _CALLS | {"message"}
_ENDS = {
    "response.completed": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
}
_UNCOUNTED = "response.reasoning_summary_text.delta"  # a summary is not what was generated
_WRONG = (msgspec.MsgspecError, ValueError, RecursionError)


class _InputDetails(Struct, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_tokens_details: CacheWrites | None = None
    audio_tokens: int | None = None
    image_tokens: int | None = None


class _OutputDetails(Struct, gc=False):
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None


class _Usage(Struct, gc=False):
    input_tokens: int
    output_tokens: int
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Incomplete(Struct, gc=False):
    reason: str | None = None


class _Item(Struct, gc=False):
    type: str = ""


class _Response(Struct, gc=False):
    id: str = ""
    status: str = ""
    usage: msgspec.Raw = msgspec.Raw(b"null")
    incomplete_details: _Incomplete | None = None
    service_tier: str | None = None
    output: list[_Item] = []


class _Event(Struct, gc=False):
    type: str = ""
    sequence_number: int | None = None
    output_index: int | None = None
    content_index: int | None = None
    item_id: str = ""
    delta: Any = None
    item: dict[str, Any] | None = None
    part: dict[str, Any] | None = None
    response: msgspec.Raw = msgspec.Raw(b"null")


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_response = msgspec.json.Decoder(_Response).decode
_decode_usage = msgspec.json.Decoder(_Usage).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


def read_usage(text: msgspec.Raw, *, tier: str | None) -> TokenUsage | None:
    """The tokens of a usage object; None when it cannot be true."""
    try:
        said = _decode_usage(text)
    except _WRONG:
        return None
    read = said.input_tokens_details or _InputDetails()
    made = said.output_tokens_details or _OutputDetails()
    usage = TokenUsage(
        input_tokens=said.input_tokens,
        cached_input_tokens=read.cached_tokens or 0,
        cache_write_tokens=read.cache_write_tokens or 0,
        cache_write_long_tokens=long_writes(read.cache_write_tokens_details),
        output_tokens=said.output_tokens,
        reasoning_tokens=made.reasoning_tokens or 0,
        input_audio_tokens=read.audio_tokens or 0,
        input_image_tokens=read.image_tokens or 0,
        output_audio_tokens=made.audio_tokens or 0,
        tier=(tier or "")[:32],
    )
    return usage if plausible(usage) else None


def _reason_of(response: _Response) -> str:
    """Why an answer ended: the reason of its incompleteness, else its status."""
    details = response.incomplete_details
    return (details.reason if details is not None else None) or response.status


class _OpenItem:
    """An item of the answer that has begun: what its end must repeat."""

    __slots__ = ("index", "item", "parts")

    def __init__(self, item: dict[str, Any], index: int | None) -> None:
        self.item = item
        self.index = index
        self.parts: dict[int, list[str]] = {}  # text by content index


class ResponsesMeter(FrameMeter):
    """The meter of a stream of Responses: every delta counts as a token."""

    __slots__ = (
        "_bytes",
        "_created",
        "_finished",
        "_kept",
        "_open",
        "_sequence",
        "_thinks",
    )

    limit_word = "max_output_tokens"

    def __init__(self, *, clamp_note: bytes = b"") -> None:
        super().__init__(clamp_note=clamp_note)
        self._created: dict[str, Any] = {}  # the response as it was announced
        self._open: dict[str, _OpenItem] = {}
        self._finished: list[dict[str, Any]] = []
        self._kept = 0  # bytes of texts and items: what is beyond the most is left out of an end
        self._sequence: int | None = None
        self._bytes = 0  # of deltas
        self._thinks = False  # reasoning is shown summarized, or not at all

    def _event(self, data: bytes) -> None:
        try:
            event = _decode_event(data)
        except _WRONG:
            self.disputed = True
            return
        if event.sequence_number is not None:
            self._sequence = event.sequence_number
        if event.type.endswith(".delta"):
            self.events += event.type != _UNCOUNTED
            self._bytes += len(str(event.delta).encode())
            self._keep(event)
        elif event.type in _ENDS:
            self._end(event)
        elif event.type == "response.created":
            self._created = _object(event.response)
            self._name = str(self._created.get("id", ""))[:128]
        elif event.item is not None:
            self._turn_item(event, event.item, len(data))

    def _keep(self, event: _Event) -> None:
        found = self._open.get(event.item_id)
        if found is not None and isinstance(event.delta, str) and self._keeps(len(event.delta)):
            found.parts.setdefault(event.content_index or 0, []).append(event.delta)

    def _keeps(self, size: int) -> bool:
        self._kept += size
        return self._kept <= MAX_KEPT_BYTES

    def _turn_item(self, event: _Event, item: dict[str, Any], size: int) -> None:
        name = str(item.get("id", ""))
        if event.type == "response.output_item.added":
            if len(self._open) < MAX_OPEN and self._keeps(size):
                self._open[name] = _OpenItem(item, event.output_index)
            self.tool_calls += item.get("type") in _CALLS
            self._thinks |= item.get("type") not in _SHOWN
        elif event.type == "response.output_item.done":
            self._open.pop(name, None)
            if self._keeps(size):
                self._finished.append(item)

    def _end(self, event: _Event) -> None:
        self.done = True
        try:
            response = _decode_response(event.response)
        except _WRONG:
            self.disputed = True
            return
        self._stop = _reason_of(response)
        if bytes(response.usage) == b"null":
            return
        usage = read_usage(response.usage, tier=response.service_tier)
        if usage is None:
            self.disputed = True
            return
        self.usage, self.running = usage, usage.output_tokens

    @property
    def most_made(self) -> int | None:
        return None if self._thinks else max(self._bytes, self.events)

    # ------------------------------------------------------------------ ends of our own

    def _say(self, kind: str, **fields: Any) -> bytes:
        """An event of our own, in the stream's sequence if it has one."""
        event: dict[str, Any] = {"type": kind} | fields
        if self._sequence is not None:
            self._sequence += 1
            event["sequence_number"] = self._sequence
        return sse(kind, event)

    def cut_ending(
        self, note: dict[str, Any], *, request_id: str, input_tokens: int | None
    ) -> bytes:
        parts, output = [], list(self._finished)
        for found in self._open.values():
            item, said = self._end_item(found)
            parts += said
            output.append(item)
        response = self._created | {
            "id": self.id or f"resp_{request_id}",
            "object": "response",
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
            "output": output,
            "usage": {
                "input_tokens": input_tokens or 0,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": self.produced,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": (input_tokens or 0) + self.produced,
            },
            "comptroller": note,
        }
        parts.append(self._say("response.incomplete", response=response, comptroller=note))
        return b"".join(parts)

    def _end_item(self, found: _OpenItem) -> tuple[dict[str, Any], list[bytes]]:
        """An open item as it stands, and the events that end it."""
        item, parts = dict(found.item), []
        place: dict[str, Any] = {"item_id": item.get("id", "")}
        if found.index is not None:
            place["output_index"] = found.index
        if item.get("type") == "message":
            texts = {index: "".join(said) for index, said in sorted(found.parts.items())}
            content = [
                {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
                for text in texts.values()
            ]
            for (index, text), part in zip(texts.items(), content, strict=True):
                where = place | {"content_index": index}
                parts.append(
                    self._say("response.output_text.done", text=text, logprobs=[], **where)
                )
                parts.append(self._say("response.content_part.done", part=part, **where))
            item["content"] = content
        item["status"] = "incomplete"
        end = {name: value for name, value in place.items() if name != "item_id"}
        parts.append(self._say("response.output_item.done", item=item, **end))
        return item, parts

    def error_ending(self, body: dict[str, Any]) -> bytes:
        error = body["error"]
        return self._say("error", **(error | {"error": error, "type": "error"}))


class Responses(Dialect):
    """`POST /v1/responses`."""

    endpoint = Endpoint.RESPONSES
    path = "/v1/responses"
    family = Family.RESPONSES

    def parse(self, body: Body) -> ParsedRequest:
        fields, encoded = object_of(body)
        check_known(fields, _KNOWN)
        parsed = ParsedRequest(self.endpoint, name_of(fields, "model"), fields, encoded)
        if not parsed.model:
            bad("model", "is required")
        if flag_of(fields, "background"):
            raise RequestError(
                "'background' answers cannot be metered", param="background", code="not_metered"
            )
        options = object_in(fields, "stream_options")
        check_known(options, _STREAM_OPTIONS, inside="stream_options")
        check_known(
            object_in(fields, "prompt_cache_options"), CACHE_OPTIONS, inside="prompt_cache_options"
        )
        parsed.stream = flag_of(fields, "stream")
        parsed.output_limit = count_of(fields, "max_output_tokens", most=MAX_OUTPUT_TOKENS)
        parsed.user = name_of(fields, "user") or name_of(fields, "safety_identifier")
        parsed.wants_usage = True
        parsed.unseen = any(fields.get(name) is not None for name in _ELSEWHERE)
        _read_input(parsed)
        _read_tools(parsed)
        return parsed

    def forward_body(
        self, parsed: ParsedRequest, *, output_limit: int | None, engine: Engine
    ) -> bytes:
        changes = {} if output_limit is None else {"max_output_tokens": output_limit}
        return rewritten(parsed, changes)

    def questions(self, parsed: ParsedRequest, engine: Engine) -> Sequence[Question]:
        if engine is not Engine.LLAMA_CPP:
            return ()
        fields = {name: value for name, value in parsed.fields.items() if name != "stream"}
        fields.pop("stream_options", None)
        return [("/v1/responses/input_tokens", fields)]

    def meter(self, parsed: ParsedRequest, *, clamp_note: bytes = b"") -> Meter:
        return ResponsesMeter(clamp_note=clamp_note)

    def read_answer(self, body: bytes) -> Answer:
        try:
            said = _decode_response(body)
        except _WRONG:
            return Answer(valid=bool(_object(body)), disputed=True)
        missing = bytes(said.usage) == b"null"
        usage = None if missing else read_usage(said.usage, tier=said.service_tier)
        reason = _reason_of(said)
        return Answer(
            valid=True,
            usage=usage,
            disputed=usage is None and not missing,
            finish_reason=reason,
            limited=reason == "max_output_tokens",
            id=said.id[:128],
            tool_calls=sum(item.type in _CALLS for item in said.output),
        )

    def refusal_body(self, refusal: Refuse, *, request_id: str) -> dict[str, Any]:
        return refusal_body(refusal, request_id=request_id)


def _object(text: bytes | msgspec.Raw) -> dict[str, Any]:
    try:
        return _decode_object(text)
    except _WRONG:
        return {}


def _read_input(parsed: ParsedRequest) -> None:
    said = parsed.fields.get("input")
    if isinstance(said, str) or (said is None and parsed.unseen):
        return
    if not isinstance(said, list) or not said:
        bad("input", "must be a string or a list of items")
    for item in said:
        if not isinstance(item, dict):
            bad("input", "must hold objects")
        kind = item.get("type", "message")
        if not isinstance(kind, str) or kind not in _PLAIN_ITEMS:
            parsed.unseen = True
            continue
        for field in ("content", "output", "summary"):
            _look(parsed, item.get(field))


def _look(parsed: ParsedRequest, content: object) -> None:
    """Note parts that the engine takes from elsewhere."""
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list):
        bad("input.content", "must be a string or a list of parts")
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str):
            bad("input.content", "must hold parts with a 'type'")
        if kind not in _PLAIN_PARTS:
            parsed.unseen = True


def _read_tools(parsed: ParsedRequest) -> None:
    parsed.tools = tuple(_tool_names(parsed, parsed.fields))
    parsed.parallel_tools = parsed.fields.get("parallel_tool_calls") is not False


def _tool_names(parsed: ParsedRequest, fields: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The names of the tools on offer; those of a namespace are `namespace.name`."""
    for tool in objects_in(fields, "tools"):
        kind = tool.get("type")
        if not isinstance(kind, str) or not kind or len(kind) > MAX_NAME:
            bad("tools", "must hold objects with a 'type'")
        if kind in ("function", "custom"):
            yield prefix + tool_name(tool, "tools")
        elif kind == "namespace" and not prefix:
            yield from _tool_names(parsed, tool, f"{tool_name(tool, 'tools')}.")
        else:
            parsed.unseen = True
            parsed.hosted |= kind not in _PLAIN_TOOLS
            yield prefix + kind
