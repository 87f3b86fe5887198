r"""Metering of OpenAI's chat and text completions: streams of events, and whole JSON bodies.

Rules of this file, beside those of `enforcement.rules.frames`:

1. JSON text holds no raw line break and no unescaped quote, so `\ndata:` is always the start of
   an event and `,"usage":` always a key: most frames are counted without being decoded.
2. Without counts from the engine, every event counts as one token: at least what was produced
   by engines that send token by token.
"""

import re
from typing import Any

import msgspec
from msgspec import Struct

from enforcement.rules.frames import DONE, MAX_TOKENS, Answer, Meter, encode, plausible
from enforcement.rules.money import TokenUsage

_RECENT = 4096  # bytes before the end in which the reason for it is looked for
MAX_TIER = 32

# What an object may hold: braces inside of strings end nothing.
_FLAT = rb'(?:[^{}"]++|"[^"\\]*+")*+'
_TIMINGS = re.compile(rb',"timings":\{' + _FLAT + rb"\}")
_USAGE = re.compile(
    rb', ?"usage": ?(?:null|\{' + _FLAT + rb"(?:\{" + _FLAT + rb"\}" + _FLAT + rb")*+\})"
)
_FINISH = re.compile(rb'"finish_reason": ?"([a-z_]{1,32})"')
_NO_CHOICES = re.compile(rb'"choices": ?\[\]')
_CLAMPED = re.compile(rb'"finish_reason": ?"length"')
_CALLS = (b'"tool_calls"', b'"function_call"')
_IN_EACH = b"_call"  # of them: one search instead of two in the usual frame
_BLANKS = re.compile(rb"\n{3,}")
_DONE = b"data: [DONE]"


class CacheWrites(Struct, gc=False):
    """Tokens that OpenAI wrote to its cache, by how long they are kept."""

    ttl_12h_tokens: int | None = None


class _Details(Struct, gc=False):
    cached_tokens: int | None = None
    created_cache_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_tokens_details: CacheWrites | None = None
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None
    image_tokens: int | None = None
    multimodal_tokens: int | None = None  # vLLM's word


class _Usage(Struct, gc=False):
    prompt_tokens: int
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


class _Timings(Struct, gc=False):
    prompt_n: int = 0
    cache_n: int = 0
    predicted_n: int = 0


class _Event(Struct, gc=False):
    usage: msgspec.Raw = msgspec.Raw(b"null")
    timings: msgspec.Raw = msgspec.Raw(b"null")
    service_tier: str | None = None


class _ToolCall(Struct, gc=False):
    index: int = 0
    id: str | None = None


class _Said(Struct, gc=False):
    tool_calls: list[_ToolCall] | None = None
    function_call: dict[str, Any] | None = None


class _Choice(Struct, gc=False):
    finish_reason: str | None = None
    message: _Said | None = None


class _Delta(Struct, gc=False):
    index: int = 0
    delta: _Said | None = None


class _Deltas(Struct, gc=False):
    choices: list[_Delta] = []


class _Answer(Struct, gc=False):
    usage: _Usage | None = None
    choices: list[_Choice] = []
    id: str = ""
    service_tier: str | None = None


class _OddAnswer(Struct, gc=False):
    choices: list[_Choice] = []
    id: str = ""


class _Named(Struct, gc=False):
    id: str = ""
    model: str = ""
    created: int = 0


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_usage = msgspec.json.Decoder(_Usage).decode
_decode_timings = msgspec.json.Decoder(_Timings).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_odd_answer = msgspec.json.Decoder(_OddAnswer).decode
_NO_DETAILS = _Details()
_decode_deltas = msgspec.json.Decoder(_Deltas).decode
_decode_named = msgspec.json.Decoder(_Named).decode


def long_writes(said: CacheWrites | None) -> int:
    """Tokens that are kept longer than usual."""
    return said.ttl_12h_tokens or 0 if said is not None else 0


def read_usage(text: bytes | msgspec.Raw, *, tier: str | None = None) -> TokenUsage | None:
    """The tokens of a usage object of the OpenAI dialect; None when it cannot be true."""
    try:
        said = _decode_usage(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return _tokens_of(said, tier)


def _tokens_of(said: _Usage, tier: str | None) -> TokenUsage | None:
    prompt = said.prompt_tokens_details or _NO_DETAILS
    completion = said.completion_tokens_details or _NO_DETAILS
    usage = TokenUsage(
        input_tokens=said.prompt_tokens,
        cached_input_tokens=prompt.cached_tokens or 0,
        cache_write_tokens=prompt.created_cache_tokens or prompt.cache_write_tokens or 0,
        cache_write_long_tokens=long_writes(prompt.cache_write_tokens_details),
        output_tokens=said.completion_tokens or 0,
        reasoning_tokens=completion.reasoning_tokens or 0,
        input_audio_tokens=prompt.audio_tokens or 0,
        input_image_tokens=prompt.image_tokens or prompt.multimodal_tokens or 0,
        output_audio_tokens=completion.audio_tokens or 0,
        tier=(tier or "")[:MAX_TIER],
    )
    return usage if plausible(usage) else None


def read_answer(body: bytes) -> Answer:
    """Read a non-streaming answer, believing nothing that cannot be true."""
    try:
        said = _decode_answer(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _read_odd_answer(body)
    usage = None if said.usage is None else _tokens_of(said.usage, said.service_tier)
    disputed = usage is None and said.usage is not None
    return _answer_of(said, usage, disputed=disputed)


def _answer_of(said: "_Answer | _OddAnswer", usage: TokenUsage | None, *, disputed: bool) -> Answer:
    reason = said.choices[0].finish_reason if said.choices else None
    calls = 0
    for choice in said.choices:
        calls += _calls_in(choice.message)
    return Answer(
        valid=True,
        usage=usage,
        disputed=disputed,
        finish_reason=reason or "",
        limited=reason == "length",
        id=said.id[:128],
        tool_calls=calls,
    )


def _calls_in(said: _Said | None) -> int:
    if said is None:
        return 0
    return len(said.tool_calls or ()) + (said.function_call is not None)


def _read_odd_answer(body: bytes) -> Answer:
    """An object whose fields are not of the usual types is still an answer, without usage."""
    try:
        said = _decode_odd_answer(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    else:  # nothing but the usage is odd
        return _answer_of(said, None, disputed=True)
    try:
        value: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Answer()
    return Answer(valid=isinstance(value, dict), disputed=True)


class StreamMeter(Meter):
    """The meter of OpenAI's streams: strips what the client did not ask for."""

    __slots__ = (
        "_calls",
        "_chat",
        "_clamp_note",
        "_head",
        "_recent",
        "_strip_running",
        "_strip_timings",
        "_strip_usage",
        "_tier",
        "started",
    )

    def __init__(
        self,
        *,
        chat: bool = True,
        strip_usage: bool = False,
        strip_running: bool = False,
        strip_timings: bool = False,
        clamp_note: bytes = b"",
    ) -> None:
        super().__init__()
        self._chat = chat
        self._strip_usage = strip_usage  # the client asked for no usage at all
        self._strip_running = strip_running  # only for the final one
        self._strip_timings = strip_timings
        self._clamp_note = clamp_note  # JSON object for the event that ends by our limit
        self._recent = bytearray()
        self._head = b""
        self._tier = ""
        self.started = False
        self._calls: dict[tuple[int, int], str] = {}

    # ------------------------------------------------------------------ reading

    def _take(self, frames: bytes) -> bytes:
        if b"\n\n\n" in frames or frames.startswith(b"\n"):
            frames = _BLANKS.sub(b"\n\n", frames).lstrip(b"\n")
            if not frames:
                return b""
        if not self.started:
            frames = frames.removeprefix(b"\xef\xbb\xbf")
            self.started = True
        if self.done or _DONE in frames:
            frames = self._until_done(frames)
        if not self._head and b"data: {" in frames:
            self._head = frames[frames.index(b"data: {") :][:_RECENT]
        self.events += frames.count(b"\ndata:") + frames.startswith(b"data:")
        self._recent += frames
        if len(self._recent) > 2 * _RECENT:  # in place, and not for every chunk
            del self._recent[:-_RECENT]
        if b'"usage"' in frames or b'"timings"' in frames:
            frames = self._with_counts(frames)
        if _IN_EACH in frames and (_CALLS[0] in frames or _CALLS[1] in frames):
            self._count_calls(frames)
        if self._clamp_note:
            frames = self._with_clamp_note(frames)
        return frames

    def _until_done(self, frames: bytes) -> bytes:
        """What stands before the mark of the end, which is told apart from text that holds it."""
        if self.done:
            return b""
        found = 0 if frames.startswith(_DONE) else frames.find(b"\n" + _DONE) + 1
        if not found and not frames.startswith(_DONE):
            return frames
        self.done = True
        self.events -= 1
        return frames[: frames.index(b"\n\n", found) + 2]

    def _with_counts(self, frames: bytes) -> bytes:
        kept = []
        for frame in frames.split(b"\n\n")[:-1]:
            if b'"usage"' in frame or b'"timings"' in frame:
                self._read_counts(frame)
                if _NO_CHOICES.search(frame):
                    self.events -= 1  # the frame of the usage itself
                    if self._strip_usage:
                        continue
                elif self._strip_usage or self._strip_running:
                    frame = _USAGE.sub(b"", frame)  # noqa: PLW2901 -- same frame, less of it
                if self._strip_timings:
                    frame = _TIMINGS.sub(b"", frame)  # noqa: PLW2901 -- same frame, less of it
            kept.append(frame + b"\n\n")
        return b"".join(kept)

    def _read_counts(self, frame: bytes) -> None:
        for line in frame.split(b"\n"):
            if not line.startswith(b"data:"):
                continue
            try:
                event = _decode_event(line[5:])
            except (msgspec.MsgspecError, ValueError, RecursionError):
                continue
            if bytes(event.usage) != b"null":
                self._tier = event.service_tier or self._tier
                self._note_usage(read_usage(event.usage, tier=self._tier))
            if bytes(event.timings) != b"null":
                self._note_timings(event.timings)

    def _note_usage(self, said: TokenUsage | None) -> None:
        if said is None:
            self.disputed = True
            return
        known = self.usage
        if known is not None and (
            said.output_tokens < known.output_tokens or said.input_tokens < known.input_tokens
        ):
            self.disputed = True
            return
        self.usage = said
        self.running = max(self.running or 0, said.output_tokens)

    def _note_timings(self, raw: msgspec.Raw) -> None:
        try:
            timings = _decode_timings(raw)
        except (msgspec.MsgspecError, ValueError):
            return
        counts = (timings.prompt_n, timings.cache_n, timings.predicted_n)
        if min(counts) < 0 or max(counts) > MAX_TOKENS:
            self.disputed = True
            return
        self._note_usage(
            TokenUsage(
                input_tokens=max(
                    timings.prompt_n + timings.cache_n, self.usage.input_tokens if self.usage else 0
                ),
                cached_input_tokens=timings.cache_n,
                output_tokens=max(
                    timings.predicted_n, self.usage.output_tokens if self.usage else 0
                ),
            )
        )

    def _count_calls(self, frames: bytes) -> None:
        """Count the tool calls that begin here: a new place, or a new id at a known place."""
        for line in frames.split(b"\n"):
            if not line.startswith(b"data:") or not any(name in line for name in _CALLS):
                continue
            try:
                choices = _decode_deltas(line[5:]).choices
            except (msgspec.MsgspecError, ValueError, RecursionError):
                continue
            for choice in choices:
                said = choice.delta or _Said()
                for call in said.tool_calls or ():
                    self._note_call((choice.index, call.index), call.id or "")
                if said.function_call is not None:
                    self._note_call((choice.index, -1), "")

    def _note_call(self, place: tuple[int, int], call_id: str) -> None:
        known = self._calls.get(place)
        if known is None or (call_id and known and call_id != known):
            self.tool_calls += 1
        self._calls[place] = call_id or known or ""

    def _with_clamp_note(self, frames: bytes) -> bytes:
        """Put the note into the first event that says so and is a JSON object to its end."""
        start = 0
        while (match := _CLAMPED.search(frames, start)) is not None:
            start = frames.index(b"\n", match.end())
            rest = frames[match.end() : start].rstrip()
            if rest.endswith(b"}") and frames.startswith(b"\n\n", start):
                note, self._clamp_note = self._clamp_note, b""
                at = match.end() + len(rest) - 1
                return b'%b,"comptroller":%b%b' % (frames[:at], note, frames[at:])
        return frames

    # ------------------------------------------------------------------ results

    @property
    def whole(self) -> bool:
        """Some engines end without `[DONE]`."""
        return True

    @property
    def finish_reason(self) -> str:
        found = _FINISH.findall(self._recent[-_RECENT:])
        return found[-1].decode() if found else ""

    @property
    def limited(self) -> bool:
        return self.finish_reason == "length"

    @property
    def id(self) -> str:
        return self.named()[0]

    def named(self) -> tuple[str, str, int]:
        """Id, model and time of the stream, from its first event; for events of our own."""
        for line in self._head.split(b"\n"):
            if line.startswith(b"data: {"):
                try:
                    named = _decode_named(line[5:])
                except (msgspec.MsgspecError, ValueError):
                    break
                return named.id, named.model, named.created
        return "", "", 0

    # ------------------------------------------------------------------ ends of our own

    def missing_end(self) -> bytes:
        return b"" if self.done else DONE

    def cut_ending(
        self, note: dict[str, Any], *, request_id: str, input_tokens: int | None
    ) -> bytes:
        answer_id, model, created = self.named()
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
        if self._chat:
            choice["delta"] = {}
        else:
            choice |= {"text": "", "logprobs": None}
        event: dict[str, Any] = {
            "id": answer_id or f"chatcmpl-{request_id}",
            "object": "chat.completion.chunk" if self._chat else "text_completion",
            "created": created,
            "model": model,
            "choices": [choice],
            # LangChain shows this field of a last event, and none that it does not know.
            "system_fingerprint": f"comptroller:{note.get('reason', '')}",
            "comptroller": note,
        }
        if input_tokens is not None:
            event["usage"] = {
                "prompt_tokens": input_tokens,
                "completion_tokens": self.produced,
                "total_tokens": input_tokens + self.produced,
            }
        return b"data: %b\n\n%b" % (encode(event), DONE)

    def error_ending(self, body: dict[str, Any]) -> bytes:
        return b"data: %b\n\n%b" % (encode(body), DONE)
