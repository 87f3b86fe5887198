r"""Metering of answers: streams of server-sent events, and whole JSON bodies.

Rules of this file:

1. How the bytes of a stream are split into reads changes nothing: neither counts nor usage nor
   the forwarded bytes. Only whole frames leave `feed`; an unfinished one waits.
2. JSON text holds no raw line break and no unescaped quote, so `\ndata:` is always the start of
   an event and `,"usage":` always a key: most frames are counted without being decoded.
3. Counts of the engine are watermarks: they never fall. A count that is no plain integer in
   range is a lie: it is dropped and the stream is `disputed`.
4. Without counts from the engine, every event counts as one token: at least what was produced
   by engines that send token by token.
"""

import re
from typing import Any

import msgspec
from msgspec import Struct

from enforcement.rules.money import TokenUsage

MAX_FRAME_BYTES = 8 * 1024 * 1024
MAX_TOKENS = 100_000_000
_RECENT = 4096

_TIMINGS = re.compile(rb',"timings":\{[^{}]*\}')
_USAGE = re.compile(rb', ?"usage": ?(?:null|\{(?:[^{}]|\{[^{}]*\})*\})')
_FINISH = re.compile(rb'"finish_reason": ?"([a-z_]{1,32})"')
_NO_CHOICES = re.compile(rb'"choices": ?\[\]')
_CLAMPED = re.compile(rb'"finish_reason": ?"length"[^\n]*?(\}\s*)\n\n')
_CALLS = (b'"tool_calls"', b'"function_call"')
_BLANKS = re.compile(rb"\n{3,}")
_DONE = b"data: [DONE]"


class StreamError(ValueError):
    """The stream is not server-sent events: a frame has no end."""


class _Details(Struct, gc=False):
    cached_tokens: int | None = None
    created_cache_tokens: int | None = None
    reasoning_tokens: int | None = None


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
    usage: msgspec.Raw = msgspec.Raw(b"null")
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
_decode_deltas = msgspec.json.Decoder(_Deltas).decode
_decode_named = msgspec.json.Decoder(_Named).decode


def read_usage(text: bytes | msgspec.Raw) -> TokenUsage | None:
    """The tokens of a usage object of the OpenAI dialect; None when it cannot be true."""
    try:
        said = _decode_usage(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    prompt = said.prompt_tokens_details or _Details()
    completion = said.completion_tokens_details or _Details()
    usage = TokenUsage(
        input_tokens=said.prompt_tokens,
        cached_input_tokens=prompt.cached_tokens or 0,
        cache_write_tokens=prompt.created_cache_tokens or 0,
        output_tokens=said.completion_tokens or 0,
        reasoning_tokens=completion.reasoning_tokens or 0,
    )
    return usage if _plausible(usage) else None


def _plausible(usage: TokenUsage) -> bool:
    counts = (
        usage.input_tokens,
        usage.cached_input_tokens,
        usage.cache_write_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
    )
    if min(counts) < 0 or max(counts) > MAX_TOKENS:
        return False
    if usage.reasoning_tokens > usage.output_tokens:
        return False
    return usage.cached_input_tokens + usage.cache_write_tokens <= usage.input_tokens


class Answer(Struct):
    """What a whole JSON answer says of itself. Not `valid`: it is no JSON object."""

    valid: bool = False
    usage: TokenUsage | None = None
    disputed: bool = False
    finish_reason: str = ""
    id: str = ""
    tool_calls: int = 0


def read_answer(body: bytes) -> Answer:
    """Read a non-streaming answer, believing nothing that cannot be true."""
    try:
        said = _decode_answer(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _read_odd_answer(body)
    missing = bytes(said.usage) == b"null"
    usage = None if missing else read_usage(said.usage)
    reason = said.choices[0].finish_reason if said.choices else None
    return Answer(
        valid=True,
        usage=usage,
        disputed=usage is None and not missing,
        finish_reason=reason or "",
        id=said.id[:128],
        tool_calls=sum(_calls_in(choice.message) for choice in said.choices),
    )


def _calls_in(said: _Said | None) -> int:
    if said is None:
        return 0
    return len(said.tool_calls or ()) + (said.function_call is not None)


def _read_odd_answer(body: bytes) -> Answer:
    """An object whose fields are not of the usual types is still an answer, without usage."""
    try:
        value: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Answer()
    return Answer(valid=isinstance(value, dict), disputed=True)


class StreamMeter:
    """Walks a stream beside its bytes: counts, finds usage, strips what was not asked for."""

    __slots__ = (
        "_calls",
        "_clamp_note",
        "_cr",
        "_head",
        "_recent",
        "_strip_running",
        "_strip_timings",
        "_strip_usage",
        "_tail",
        "disputed",
        "done",
        "events",
        "running",
        "started",
        "tool_calls",
        "usage",
    )

    def __init__(
        self,
        *,
        strip_usage: bool = False,
        strip_running: bool = False,
        strip_timings: bool = False,
        clamp_note: bytes = b"",
    ) -> None:
        self._strip_usage = strip_usage  # the client asked for no usage at all
        self._strip_running = strip_running  # only for the final one
        self._strip_timings = strip_timings
        self._clamp_note = clamp_note  # JSON object for the event that ends by our limit
        self._tail = b""
        self._cr = False
        self._recent = b""
        self._head = b""
        self.started = False
        self.done = False
        self.events = 0
        self.usage: TokenUsage | None = None
        self.running: int | None = None
        self.disputed = False
        self.tool_calls = 0  # begun so far
        self._calls: dict[tuple[int, int], str] = {}

    # ------------------------------------------------------------------ reading

    def feed(self, data: bytes) -> bytes:
        """Take bytes in; what may go to the client comes out, whole frames only.

        Raises:
            StreamError: a frame is longer than any real one.
        """
        if self._cr or b"\r" in data:
            data = self._plain_line_ends(data)
        if self._tail:
            data = self._tail + data
        end = data.rfind(b"\n\n")
        if end < 0:
            self._tail = data
            if len(data) > MAX_FRAME_BYTES:
                raise StreamError("a frame of the stream has no end")
            return b""
        end += 2
        frames = data if end == len(data) else data[:end]
        self._tail = data[end:] if end < len(data) else b""
        return self._take(frames)

    def end(self) -> bytes:
        """The upstream has ended: an unfinished last frame counts if its line is whole."""
        rest, self._tail = self._tail, b""
        if self._cr:
            rest, self._cr = rest + b"\n", False
        if not rest.strip() or not rest.endswith((b"}", b"]", b"\n")):
            return b""
        return self._take(rest.rstrip(b"\n") + b"\n\n")

    def _plain_line_ends(self, data: bytes) -> bytes:
        if self._cr:
            data = b"\r" + data
        self._cr = data.endswith(b"\r")
        if self._cr:
            data = data[:-1]
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _take(self, frames: bytes) -> bytes:
        if b"\n\n\n" in frames or frames.startswith(b"\n"):
            frames = _BLANKS.sub(b"\n\n", frames).lstrip(b"\n")
            if not frames:
                return b""
        if not self.started:
            frames = frames.removeprefix(b"\xef\xbb\xbf")
            self.started = True
        if not self._head and b"data: {" in frames:
            self._head = frames[frames.index(b"data: {") :][:_RECENT]
        self.events += frames.count(b"\ndata:") + frames.startswith(b"data:")
        if not self.done and _DONE in frames:
            self.done = frames.startswith(_DONE) or b"\n" + _DONE in frames
            self.events -= self.done
        recent = self._recent + frames if len(frames) < _RECENT else frames
        self._recent = recent[-_RECENT:]
        if b'"usage"' in frames or b'"timings"' in frames:
            frames = self._with_counts(frames)
        if _CALLS[0] in frames or _CALLS[1] in frames:
            self._count_calls(frames)
        if self._clamp_note:
            frames = self._with_clamp_note(frames)
        return frames

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
                self._note_usage(read_usage(event.usage))
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
        match = _CLAMPED.search(frames)
        if match is None:
            return frames
        note, self._clamp_note = self._clamp_note, b""
        at = match.start(1)
        return frames[:at] + b',"comptroller":' + note + frames[at:]

    # ------------------------------------------------------------------ results

    @property
    def produced(self) -> int:
        """Output tokens so far: the engine's running count, else one for each event."""
        return self.events if self.running is None else self.running

    @property
    def finish_reason(self) -> str:
        found = _FINISH.findall(self._recent)
        return found[-1].decode() if found else ""

    @property
    def pending(self) -> bool:
        """Whether an unfinished frame waits."""
        return bool(self._tail)

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
