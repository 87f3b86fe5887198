"""The walk along an answer's bytes that every dialect shares.

Rules of this file:

1. How the bytes of a stream are split into reads changes nothing: neither counts nor usage nor
   the forwarded bytes. Only whole frames leave `feed`; an unfinished one waits.
2. Counts of the engine are watermarks: they never fall. A count that is no plain integer in
   range is a lie: it is dropped and the stream is `disputed`.
3. Without counts from the engine, every event that carries text counts as one token.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from enforcement.rules.money import TokenUsage

MAX_FRAME_BYTES = 8 * 1024 * 1024
MAX_TOKENS = 100_000_000
MAX_OPEN = 1024  # parts of an answer that are kept in mind: blocks, items, calls
DONE = b"data: [DONE]\n\n"

encode = msgspec.json.Encoder().encode


class StreamError(ValueError):
    """The stream is not what it says it is: a frame has no end."""


class Answer(Struct):
    """What a whole answer says of itself. Not `valid`: it is none.

    `input_missing`: the engine told what it made, not what it read. `limited`: the output limit
    ended it.
    """

    valid: bool = False
    usage: TokenUsage | None = None
    disputed: bool = False
    finish_reason: str = ""
    limited: bool = False
    id: str = ""
    tool_calls: int = 0
    input_missing: bool = False


def is_object(body: bytes) -> bool:
    """Whether a body is one JSON object."""
    try:
        return isinstance(msgspec.json.decode(body), dict)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False


def plausible(usage: TokenUsage) -> bool:
    """Whether counts can be true: in range, and no part more than its whole."""
    if not 0 <= usage.input_tokens <= MAX_TOKENS or not 0 <= usage.output_tokens <= MAX_TOKENS:
        return False
    return usage.consistent


def sse(event: str, data: dict[str, Any]) -> bytes:
    """One event with a name."""
    return b"event: %b\ndata: %b\n\n" % (event.encode("ascii"), encode(data))


class Meter(ABC):
    """Walks a stream beside its bytes: counts, finds usage, knows how to end it well."""

    __slots__ = (
        "_cr",
        "_tail",
        "counted",
        "disputed",
        "done",
        "events",
        "input_missing",
        "running",
        "tool_calls",
        "usage",
    )

    border: ClassVar[bytes] = b"\n\n"  # what ends a frame

    def __init__(self) -> None:
        self._tail = bytearray()
        self._cr = False
        self.done = False  # the engine has said its last word
        self.events = 0  # that carried something
        self.usage: TokenUsage | None = None
        self.running: int | None = None  # output tokens so far, as the engine counts them
        self.disputed = False
        self.counted = False  # the output in `usage` is our own count
        self.input_missing = False  # the input in `usage` was not told
        self.tool_calls = 0  # begun so far

    # ------------------------------------------------------------------ reading

    def feed(self, data: bytes) -> bytes:
        """Take bytes in; what may go to the client comes out, whole frames only.

        Raises:
            StreamError: a frame is longer than any real one.
        """
        if self._cr or b"\r" in data:
            data = self._plain_line_ends(data)
        if self._tail:
            if not self._ends_a_frame(data):
                return self._await_border(data)
            data, self._tail = bytes(self._tail) + data, bytearray()
        end = data.rfind(self.border)
        if end < 0:
            return self._await_border(data)
        end += len(self.border)
        if end == len(data):
            return self._take(data)
        self._tail += data[end:]
        return self._take(data[:end])

    def _await_border(self, data: bytes) -> bytes:
        """Wait for more of a frame. In place: a long one may come in many reads."""
        self._tail += data
        if len(self._tail) > MAX_FRAME_BYTES:
            raise StreamError("a frame of the stream has no end")
        return b""

    def end(self) -> bytes:
        """The upstream has ended: an unfinished last frame counts if its line is whole."""
        rest, self._tail = bytes(self._tail), bytearray()
        if self._cr:
            rest, self._cr = rest + b"\n", False
        if not rest.strip() or not rest.endswith((b"}", b"]", b"\n")):
            return b""
        return self._take(rest.rstrip(b"\n") + self.border)

    def _ends_a_frame(self, data: bytes) -> bool:
        """Whether a border is in these bytes, or begins in the last one before them."""
        return self.border in data or self.border in bytes(self._tail[-1:]) + data[:1]

    def _plain_line_ends(self, data: bytes) -> bytes:
        if self._cr:
            data = b"\r" + data
        self._cr = data.endswith(b"\r")
        if self._cr:
            data = data[:-1]
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    @abstractmethod
    def _take(self, frames: bytes) -> bytes:
        """Read whole frames; what of them goes on."""

    # ------------------------------------------------------------------ results

    @property
    def produced(self) -> int:
        """Output tokens so far: the engine's running count, else one for each event."""
        return self.events if self.running is None else self.running

    @property
    def most_made(self) -> int | None:
        """The most tokens that what was seen can be: a token has a byte at least.

        None: the engine may have made some that it does not show.
        """
        return None

    @property
    def pending(self) -> bool:
        """Whether an unfinished frame waits."""
        return bool(self._tail)

    @property
    def whole(self) -> bool:
        """Whether an upstream that has ended here has said all."""
        return self.done

    @property
    @abstractmethod
    def finish_reason(self) -> str:
        """Why the engine ended, in its own word; empty before."""

    @property
    @abstractmethod
    def limited(self) -> bool:
        """Whether the output limit ended the answer."""

    @property
    @abstractmethod
    def id(self) -> str:
        """The engine's name for the answer."""

    # ------------------------------------------------------------------ ends of our own

    def missing_end(self) -> bytes:
        """What clients wait for behind a whole stream, if the engine has not said it."""
        return b""

    @abstractmethod
    def cut_ending(
        self, note: dict[str, Any], *, request_id: str, input_tokens: int | None
    ) -> bytes:
        """A well-formed end in the middle, with the note on why.

        `input_tokens`: known if the client is to see usage.
        """

    @abstractmethod
    def error_ending(self, body: dict[str, Any]) -> bytes:
        """The end of a stream whose upstream failed; `body` is the dialect's error."""


class FrameMeter(Meter):
    """A meter that looks at each frame by itself."""

    __slots__ = ("_name", "_note", "_stop")

    limit_word: ClassVar[str]  # how the engine says that the limit ended it

    def __init__(self, *, clamp_note: bytes = b"") -> None:
        super().__init__()
        self._note = clamp_note  # JSON object for the event that ends by our limit
        self._name = ""
        self._stop = ""

    def _take(self, frames: bytes) -> bytes:
        border, kept = self.border, []
        for frame in frames.split(border):
            if not frame.strip(b"\n"):
                continue
            kept.append(self._frame(frame.strip(b"\n")))
        return b"".join(kept)

    def _frame(self, frame: bytes) -> bytes:
        """Read one frame, without its border; what goes on, with it."""
        data = b"\n".join(
            line[5:].lstrip(b" ") for line in frame.split(b"\n") if line.startswith(b"data:")
        )
        if data and data != b"[DONE]":
            self._event(data)
            if self._note and self.limited:
                frame, self._note = with_note(frame, self._note), b""
        return frame + self.border

    @abstractmethod
    def _event(self, data: bytes) -> None:
        """Read the JSON text of one event."""

    @property
    def finish_reason(self) -> str:
        return self._stop

    @property
    def limited(self) -> bool:
        return self._stop == self.limit_word

    @property
    def id(self) -> str:
        return self._name

    def _learn(self, said: TokenUsage) -> None:
        """Take up a usage of the engine, which may only rise."""
        known = self.usage
        if not plausible(said) or (
            known is not None
            and (said.input_tokens < known.input_tokens or said.output_tokens < known.output_tokens)
        ):
            self.disputed = True
            return
        self.usage = said


def with_note(body: bytes, note: bytes) -> bytes:
    """A JSON object with a `comptroller` field behind its own."""
    end = body.rstrip()
    if not end.endswith(b"}"):
        return body
    comma = b"" if end.endswith(b"{}") else b","
    return b'%b%b"comptroller":%b}' % (end[:-1], comma, note)
