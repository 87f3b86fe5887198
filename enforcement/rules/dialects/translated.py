"""Ollama's API on nodes that only speak OpenAI's: llama.cpp, vLLM, paid APIs.

1. What has a counterpart is translated; what has none and could change the answer (`raw`,
   `template`, `suffix`, `context`) is refused by name; what only concerns Ollama's own engine
   (`keep_alive`, `num_ctx`, `num_thread` …) is left out.
2. A stream of events becomes a stream of lines. Fragments of a tool call become the one whole call
   that Ollama's clients expect, before the last line, which carries the counts.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from enforcement.rules.dialects.base import EVENT_STREAM, Engine, Family, Question
from enforcement.rules.dialects.ollama import (
    NO_TIME,
    Ollama,
    OllamaChat,
    OllamaEmbed,
    OllamaGenerate,
    cut_line,
    last_line,
)
from enforcement.rules.dialects.openai import Chat, Embeddings, OpenAI
from enforcement.rules.frames import MAX_OPEN, Answer, Meter, encode
from enforcement.rules.requests import Endpoint, ParsedRequest
from enforcement.rules.stream import StreamMeter

_OPTIONS = ("temperature", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty")
_LOCAL_OPTIONS = ("top_k", "min_p", "typical_p", "repeat_penalty", "repeat_last_n")
_PASSED = ("logprobs", "top_logprobs", "tools", "priority")
_UNTRANSLATABLE = ("raw", "template", "suffix", "context")
_LOCAL = (Engine.LLAMA_CPP, Engine.VLLM)
_WRONG = (msgspec.MsgspecError, ValueError, RecursionError)
_decode = msgspec.json.Decoder().decode


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None


class _Event(msgspec.Struct, gc=False):
    model: str = ""
    choices: list[_Choice] = []
    error: Any = None


class _Row(msgspec.Struct, gc=False):
    embedding: msgspec.Raw = msgspec.Raw(b"[]")


class _Vectors(msgspec.Struct, gc=False):
    model: str = ""
    data: list[_Row] = []


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_vectors = msgspec.json.Decoder(_Vectors).decode


# ---------------------------------------------------------------------- requests


def _messages(fields: dict[str, Any]) -> list[dict[str, Any]]:
    """Ollama's messages as OpenAI's: calls get the ids that their results refer to."""
    told: list[dict[str, Any]] = []
    waiting: list[str] = []
    for message in fields.get("messages") or ():
        said = {name: message[name] for name in ("role", "content") if name in message}
        if message.get("images"):
            said["content"] = _with_images(message)
        if calls := message.get("tool_calls"):
            said["tool_calls"] = [_call(call, len(told), n) for n, call in enumerate(calls)]
            waiting = [call["id"] for call in said["tool_calls"]]
        if message.get("role") == "tool":
            said["tool_call_id"] = waiting.pop(0) if waiting else "call"
        told.append(said)
    return told


def _with_images(message: dict[str, Any]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": message.get("content") or ""}]
    for image in message["images"]:
        url = {"url": f"data:image/png;base64,{image}"}
        parts.append({"type": "image_url", "image_url": url})
    return parts


def _call(call: dict[str, Any], turn: int, place: int) -> dict[str, Any]:
    described = call["function"]
    arguments = described.get("arguments") or {}
    text = arguments if isinstance(arguments, str) else encode(arguments).decode()
    function = {"name": described.get("name", ""), "arguments": text}
    return {"id": f"call_{turn}_{place}", "type": "function", "function": function}


def _shared(fields: dict[str, Any], engine: Engine) -> dict[str, Any]:
    """What both ways to ask have in common."""
    options = fields.get("options") or {}
    names = (*_OPTIONS, *_LOCAL_OPTIONS) if engine in _LOCAL else _OPTIONS
    told = {name: options[name] for name in names if options.get(name) is not None}
    told |= {name: fields[name] for name in _PASSED if fields.get(name) is not None}
    wanted = fields.get("format")
    if wanted == "json":
        told["response_format"] = {"type": "json_object"}
    elif isinstance(wanted, dict):
        schema = {"name": "answer", "schema": wanted}
        told["response_format"] = {"type": "json_schema", "json_schema": schema}
    think = fields.get("think")
    if isinstance(think, str):
        told["reasoning_effort"] = think
    elif think is not None and engine in _LOCAL:
        told["chat_template_kwargs"] = {"enable_thinking": think}
    return told


def _asked(parsed: ParsedRequest, told: dict[str, Any]) -> ParsedRequest:
    """The same request in OpenAI's words."""
    fields = {"model": parsed.model, "stream": parsed.stream} | told
    return ParsedRequest(
        Endpoint.CHAT, parsed.model, fields, bytes(encode(fields)), stream=parsed.stream
    )


# ---------------------------------------------------------------------- answers


class LinesOfEvents(StreamMeter):
    """Meters OpenAI's events and gives Ollama's lines."""

    __slots__ = ("_called", "_is_chat", "_named", "_note", "_over")

    def __init__(self, *, chat: bool, clamp_note: bytes = b"") -> None:
        super().__init__()
        self._is_chat = chat
        self._note = clamp_note
        self._called: dict[int, tuple[list[str], list[str]]] = {}  # names, arguments so far
        self._named = ""
        self._over = False

    def _take(self, frames: bytes) -> bytes:
        kept = super()._take(frames)
        lines = [self._line(frame) for frame in kept.split(b"\n\n")]
        if self.done:
            lines.append(self._last())
        return b"".join(lines)

    def _line(self, frame: bytes) -> bytes:
        data = b"".join(x[5:].strip() for x in frame.split(b"\n") if x.startswith(b"data:"))
        if not data or data == b"[DONE]":
            return b""
        try:
            event = _decode_event(data)
        except _WRONG:
            self.disputed = True
            return b""
        if event.error is not None:
            return bytes(encode({"error": _message_of(event.error)})) + b"\n"
        self._named = event.model or self._named
        said = event.choices[0].delta if event.choices else None
        return self._words(said) if said is not None else b""

    def _words(self, said: _Delta) -> bytes:
        for part in said.tool_calls or ():
            self._add_call(part)
        text, thought = said.content or "", said.reasoning_content or said.reasoning or ""
        if not text and not thought:
            return b""
        return _written(self._named, text, thought, (), chat=self._is_chat)

    def _add_call(self, part: dict[str, Any]) -> None:
        function = part.get("function")
        index = part.get("index", 0)
        if not isinstance(function, dict) or not isinstance(index, int):
            return
        if len(self._called) >= MAX_OPEN and index not in self._called:
            return
        names, arguments = self._called.setdefault(index, ([], []))
        names.append(str(function.get("name") or ""))
        arguments.append(str(function.get("arguments") or ""))

    def _last(self) -> bytes:
        """The calls, whole now, and the end with its counts; once."""
        if self._over:
            return b""
        self._over = True
        calls = b""
        if self._called:
            whole = [
                _whole_call("".join(names), "".join(arguments))
                for _, (names, arguments) in sorted(self._called.items())
            ]
            calls = _written(self._named, "", "", whole, chat=self._is_chat)
        more: dict[str, Any] = {}
        if self._note and self.limited:
            more["comptroller"] = msgspec.Raw(self._note)
        return calls + last_line(
            self._named,
            chat=self._is_chat,
            reason="length" if self.limited else "stop",
            input_tokens=self.usage.input_tokens if self.usage else 0,
            output_tokens=self.produced,
            **more,
        )

    def missing_end(self) -> bytes:
        return self._last()

    def cut_ending(
        self, note: dict[str, Any], *, request_id: str, input_tokens: int | None
    ) -> bytes:
        return cut_line(self, self._named, note, chat=self._is_chat, input_tokens=input_tokens)

    def error_ending(self, body: dict[str, Any]) -> bytes:
        return bytes(encode(body)) + b"\n"


def _written(
    model: str, text: str, thought: str, calls: Sequence[dict[str, Any]], *, chat: bool
) -> bytes:
    """One line of a stream."""
    line = {"model": model, "created_at": NO_TIME} | _said(text, thought, calls, chat=chat)
    return bytes(encode(line | {"done": False})) + b"\n"


def _said(
    text: str, thought: str, calls: Sequence[dict[str, Any]], *, chat: bool
) -> dict[str, Any]:
    thinking = {"thinking": thought} if thought else {}
    if not chat:
        return {"response": text} | thinking
    message: dict[str, Any] = {"role": "assistant", "content": text} | thinking
    return {"message": message | ({"tool_calls": list(calls)} if calls else {})}


def _whole_call(name: str, text: str) -> dict[str, Any]:
    try:
        arguments = _decode(text or "{}")
    except _WRONG:
        arguments = {"arguments": text}
    return {"function": {"name": name, "arguments": arguments}}


def _message_of(error: object) -> str:
    said = error.get("message") if isinstance(error, dict) else error
    return str(said)


class _Translated(Ollama):
    """What the translated routes share: `asks` is the way in which the engine is asked."""

    asks: OpenAI

    @property
    def upstream_family(self) -> str:
        return Family.OPENAI

    @property
    def upstream_path(self) -> str:
        return self.asks.path

    @property
    def upstream_stream_type(self) -> bytes:
        return EVENT_STREAM

    def untranslatable(self, parsed: ParsedRequest) -> str:
        return next((name for name in _UNTRANSLATABLE if parsed.fields.get(name)), "")

    def told(self, parsed: ParsedRequest, engine: Engine) -> ParsedRequest:
        """The request in the engine's words."""
        raise NotImplementedError

    def forward_body(
        self, parsed: ParsedRequest, *, output_limit: int | None, engine: Engine
    ) -> bytes:
        told = self.told(parsed, engine)
        return self.asks.forward_body(told, output_limit=output_limit, engine=engine)

    def questions(self, parsed: ParsedRequest, engine: Engine) -> Sequence[Question]:
        return self.asks.questions(self.told(parsed, engine), engine)

    def meter(self, parsed: ParsedRequest, *, clamp_note: bytes = b"") -> Meter:
        chat = self.endpoint is Endpoint.OLLAMA_CHAT
        return LinesOfEvents(chat=chat, clamp_note=clamp_note)

    def read_answer(self, body: bytes) -> Answer:
        return self.asks.read_answer(body)

    def answer_body(self, body: bytes) -> bytes:
        answer = self.asks.read_answer(body)
        try:
            event = _decode_event(body)
        except _WRONG:
            event = _Event()
        said = (event.choices[0].message if event.choices else None) or _Delta()
        chat = self.endpoint is Endpoint.OLLAMA_CHAT
        calls = [_whole_call(*_function_of(call)) for call in said.tool_calls or ()]
        thought = said.reasoning_content or said.reasoning or ""
        line = {"model": event.model, "created_at": NO_TIME}
        line |= _said(said.content or "", thought, calls, chat=chat)
        return bytes(
            encode(
                line
                | {
                    "done": True,
                    "done_reason": "length" if answer.limited else "stop",
                    "prompt_eval_count": answer.usage.input_tokens if answer.usage else 0,
                    "eval_count": answer.usage.output_tokens if answer.usage else 0,
                }
            )
        )

    def error_body(self, body: bytes) -> bytes:
        try:
            error = _decode_event(body).error
        except _WRONG:
            return body
        return bytes(encode({"error": _message_of(error)}))


def _function_of(call: dict[str, Any]) -> tuple[str, str]:
    """Name and arguments of a call, as far as it has them."""
    function = call.get("function")
    said = function if isinstance(function, dict) else {}
    return str(said.get("name") or ""), str(said.get("arguments") or "")


class ChatOverOpenAI(_Translated, OllamaChat):
    """`/api/chat` on Chat Completions."""

    asks = Chat()

    def told(self, parsed: ParsedRequest, engine: Engine) -> ParsedRequest:
        shared = _shared(parsed.fields, engine)
        return _asked(parsed, {"messages": _messages(parsed.fields)} | shared)


class GenerateOverOpenAI(_Translated, OllamaGenerate):
    """`/api/generate` on Chat Completions: Ollama puts the prompt into the model's template too."""

    asks = Chat()

    def told(self, parsed: ParsedRequest, engine: Engine) -> ParsedRequest:
        fields = parsed.fields
        said = {"role": "user", "content": fields.get("prompt", "")}
        messages = [said | {"images": fields.get("images")}]
        if fields.get("system"):
            messages.insert(0, {"role": "system", "content": fields["system"]})
        told = {"messages": _messages({"messages": messages})}
        return _asked(parsed, told | _shared(fields, engine))


class EmbedOverOpenAI(_Translated, OllamaEmbed):
    """`/api/embed` on Embeddings."""

    asks = Embeddings()

    def told(self, parsed: ParsedRequest, engine: Engine) -> ParsedRequest:
        kept = ("model", "input", "dimensions")
        fields = {name: parsed.fields[name] for name in kept if name in parsed.fields}
        return ParsedRequest(Endpoint.EMBEDDINGS, parsed.model, fields, bytes(encode(fields)))

    def answer_body(self, body: bytes) -> bytes:
        try:
            said = _decode_vectors(body)
        except _WRONG:
            said = _Vectors()
        usage = self.read_answer(body).usage
        rows = [row.embedding for row in said.data]
        counted = {"prompt_eval_count": usage.input_tokens if usage is not None else 0}
        return bytes(encode({"model": said.model, "embeddings": rows} | counted))
