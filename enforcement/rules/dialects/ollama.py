"""Ollama's `/api/chat`, `/api/generate` and `/api/embed`.

Source: Ollama's API documentation and the types of its server.

1. A stream is a JSON object on each line; the last one says `done` and the counts. A count of zero
   is left out.
2. `prompt_eval_count` is the whole prompt in versions that drive llama-server; older ones leave it
   out where all of the prompt was cached. Then the prompt is counted here and the row `estimated`.
3. `num_predict` of -1 and -2 is no limit: ours is written.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from enforcement.rules.dialects.base import JSON_LINES, Dialect, Engine, Family
from enforcement.rules.frames import Answer, FrameMeter, Meter, encode, plausible, with_note
from enforcement.rules.money import TokenUsage
from enforcement.rules.requests import (
    MAX_OUTPUT_TOKENS,
    Body,
    Endpoint,
    ParsedRequest,
    bad,
    check_known,
    count_of,
    flag_of,
    name_of,
    object_in,
    object_of,
    objects_in,
    read_prompt,
    rewritten,
    tool_name,
    words,
)
from enforcement.rules.verdicts import Refuse, refusal_facts

NO_TIME = "1970-01-01T00:00:00Z"
LOADED = ("load", "unload")  # reasons of answers for which nothing was read or made
_COMMON = frozenset(["model", "stream", "format", "options", "keep_alive", "think"])
_COMMON |= frozenset(["logprobs", "top_logprobs"])
_CHAT = _COMMON | frozenset(["messages", "tools"])
_GENERATE = _COMMON | frozenset(
    ["prompt", "suffix", "images", "system", "template", "raw", "context"]
)
_EMBED = frozenset(["model", "input", "truncate", "dimensions", "options", "keep_alive"])
OPTIONS = words(
    "num_keep seed num_predict top_k top_p min_p typical_p repeat_last_n temperature"
    " repeat_penalty presence_penalty frequency_penalty mirostat mirostat_tau mirostat_eta"
    " penalize_newline stop num_ctx num_batch num_gpu main_gpu use_mmap num_thread tfs_z"
    " low_vram numa draft_num_predict"
)
_WRONG = (msgspec.MsgspecError, ValueError, RecursionError)


class _Message(Struct, gc=False):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[Any] | None = None


class _Line(Struct, gc=False):
    model: str = ""
    message: _Message | None = None
    response: str | None = None
    thinking: str | None = None
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    prompt_eval_cached_count: int | None = None
    eval_count: int | None = None

    @property
    def calls(self) -> int:
        return len(self.message.tool_calls or ()) if self.message is not None else 0

    @property
    def says(self) -> bool:
        """Whether the line carries anything that was generated."""
        said = self.message
        return bool(
            self.response
            or self.thinking
            or (said is not None and (said.content or said.thinking or said.tool_calls))
        )


_decode_line = msgspec.json.Decoder(_Line).decode


def _usage_of(line: _Line) -> TokenUsage:
    return TokenUsage(
        input_tokens=line.prompt_eval_count or 0,
        cached_input_tokens=line.prompt_eval_cached_count or 0,
        output_tokens=line.eval_count or 0,
    )


class LinesMeter(FrameMeter):
    """The meter of a stream of lines: each that says something counts as a token."""

    __slots__ = ("_chat", "_model")

    border = b"\n"
    limit_word = "length"

    def __init__(self, *, chat: bool, clamp_note: bytes = b"") -> None:
        super().__init__(clamp_note=clamp_note)
        self._chat = chat
        self._model = ""

    def _frame(self, frame: bytes) -> bytes:
        self._event(frame)
        if self._note and self.limited:
            frame, self._note = with_note(frame, self._note), b""
        return frame + self.border

    def _event(self, data: bytes) -> None:
        try:
            line = _decode_line(data)
        except _WRONG:
            self.disputed = True
            return
        self._model = line.model or self._model
        self.events += line.says
        self.tool_calls += line.calls
        if not line.done:
            return
        self.done, self._stop = True, line.done_reason or "stop"
        if self._stop in LOADED:
            self.usage, self.running = TokenUsage(), 0
            return
        usage = _usage_of(line)
        if not plausible(usage):
            self.disputed = True
            return
        self.input_missing = line.prompt_eval_count is None
        self.usage, self.running = usage, usage.output_tokens

    def cut_ending(
        self, note: dict[str, Any], *, request_id: str, input_tokens: int | None
    ) -> bytes:
        return cut_line(self, self._model, note, chat=self._chat, input_tokens=input_tokens)

    def error_ending(self, body: dict[str, Any]) -> bytes:
        return bytes(encode(body)) + b"\n"


def last_line(
    model: str, *, chat: bool, reason: str, input_tokens: int, output_tokens: int, **more: Any
) -> bytes:
    """The line that ends a stream."""
    said = {"message": {"role": "assistant", "content": ""}} if chat else {"response": ""}
    line: dict[str, Any] = {"model": model, "created_at": NO_TIME} | said
    line |= {
        "done": True,
        "done_reason": reason,
        "prompt_eval_count": input_tokens,
        "eval_count": output_tokens,
    }
    return bytes(encode(line | more)) + b"\n"


def cut_line(
    meter: Meter, model: str, note: dict[str, Any], *, chat: bool, input_tokens: int | None
) -> bytes:
    """The line that ends a stream in the middle, with the note on why."""
    return last_line(
        model,
        chat=chat,
        reason="length",
        input_tokens=input_tokens or 0,
        output_tokens=meter.produced,
        comptroller=note,
    )


class Ollama(Dialect):
    """What the three routes share."""

    family = Family.OLLAMA
    stream_type = JSON_LINES
    known: frozenset[str]

    def parse(self, body: Body) -> ParsedRequest:
        fields, encoded = object_of(body)
        check_known(fields, self.known)
        parsed = ParsedRequest(self.endpoint, name_of(fields, "model"), fields, encoded)
        if not parsed.model:
            bad("model", "is required")
        options = object_in(fields, "options")
        check_known(options, OPTIONS, inside="options")
        count_of(options, "num_ctx", most=MAX_OUTPUT_TOKENS)
        if options.get("num_predict") not in (-1, -2):
            parsed.output_limit = count_of(options, "num_predict", most=MAX_OUTPUT_TOKENS)
        parsed.wants_usage = True
        self._read(parsed)
        return parsed

    def _read(self, parsed: ParsedRequest) -> None:
        raise NotImplementedError

    def forward_body(
        self, parsed: ParsedRequest, *, output_limit: int | None, engine: Engine
    ) -> bytes:
        if output_limit is None:
            return parsed.encoded
        options = object_in(parsed.fields, "options") | {"num_predict": output_limit}
        return rewritten(parsed, {"options": options})

    def meter(self, parsed: ParsedRequest, *, clamp_note: bytes = b"") -> Meter:
        return LinesMeter(chat=self.endpoint is Endpoint.OLLAMA_CHAT, clamp_note=clamp_note)

    def read_answer(self, body: bytes) -> Answer:
        try:
            line = _decode_line(body)
        except _WRONG:
            return Answer()
        usage = _usage_of(line)
        believed = plausible(usage)
        loaded = line.done_reason in LOADED
        return Answer(
            valid=True,
            usage=usage if believed else None,
            disputed=not believed,
            finish_reason=line.done_reason or "",
            limited=line.done_reason == "length",
            tool_calls=line.calls,
            input_missing=line.prompt_eval_count is None and not loaded,
        )

    def refusal_body(self, refusal: Refuse, *, request_id: str) -> dict[str, Any]:
        facts = refusal_facts(refusal, request_id=request_id)
        return {"error": facts["message"]} | facts | {"type": refusal.type}


class OllamaChat(Ollama):
    """`POST /api/chat`."""

    endpoint = Endpoint.OLLAMA_CHAT
    path = "/api/chat"
    known = _CHAT

    def _read(self, parsed: ParsedRequest) -> None:
        parsed.stream = flag_of(parsed.fields, "stream", default=True)
        for message in objects_in(parsed.fields, "messages"):
            if not isinstance(message.get("content", ""), str | None):
                bad("messages.content", "must be a string")
            parsed.unseen |= bool(message.get("images"))
            for call in objects_in(message, "tool_calls"):
                tool_name(call.get("function"), "messages.tool_calls")
        tools = objects_in(parsed.fields, "tools")
        parsed.tools = tuple(tool_name(tool.get("function"), "tools") for tool in tools)


class OllamaGenerate(Ollama):
    """`POST /api/generate`."""

    endpoint = Endpoint.OLLAMA_GENERATE
    path = "/api/generate"
    known = _GENERATE

    def _read(self, parsed: ParsedRequest) -> None:
        parsed.stream = flag_of(parsed.fields, "stream", default=True)
        if not isinstance(parsed.fields.get("prompt", ""), str):
            bad("prompt", "must be a string")
        parsed.unseen = any(parsed.fields.get(name) for name in ("images", "context", "suffix"))


class OllamaEmbed(Ollama):
    """`POST /api/embed`."""

    endpoint = Endpoint.OLLAMA_EMBED
    path = "/api/embed"
    known = _EMBED
    generates = False

    def _read(self, parsed: ParsedRequest) -> None:
        read_prompt(parsed, "input")
        if parsed.prompt_tokens is not None:
            bad("input", "must be a string or a list of strings")


def tag_list(names: Sequence[str]) -> dict[str, Any]:
    """`GET /api/tags`: the models that may be asked for."""
    details = {"format": "", "family": "", "families": [], "parameter_size": ""}
    return {
        "models": [
            {
                "name": name,
                "model": name,
                "modified_at": NO_TIME,
                "size": 0,
                "digest": "",
                "details": details | {"quantization_level": ""},
            }
            for name in names
        ]
    }


def model_page(context_window: int | None) -> dict[str, Any]:
    """`POST /api/show`: what a client may need to know of a model."""
    return {
        "details": {"format": "", "family": "", "families": []},
        "model_info": {"general.architecture": "model", "model.context_length": context_window},
        "capabilities": ["completion", "tools"],
        "modified_at": NO_TIME,
    }
