"""Serving nodes that break HTTP, or lie about what they made. `Misdeed` says what must follow."""

import gzip
import json
from enum import StrEnum
from typing import Any, NamedTuple

from enforcement.sidecar.engines import ABORT_TOKENS, Engine
from tests.hostile.case import chunk
from tests.sidecar.engine import PROMPT_TOKENS


class Then(StrEnum):
    """What the node does behind its last byte."""

    STAY = "stays"
    CLOSE = "closes"
    RESET = "resets"


class Charge(NamedTuple):
    """What is booked. `presumed`: the whole hold, for nobody knows."""

    output_tokens: int
    presumed: bool = False
    estimated: bool = False
    input_tokens: int = PROMPT_TOKENS


class Misdeed(NamedTuple):
    """What a node answers, and what its caller gets: a status, and for a stream how it ends."""

    name: str
    why: str
    answer: tuple[bytes, ...]
    charge: Charge
    status: int = 200
    streamed: bool = False
    then: Then = Then.STAY
    ends: bytes = b""


MOST_TOKENS = 10
WHOLE = Charge(MOST_TOKENS, presumed=True)
NOTHING = Charge(0, input_tokens=0)
_DONE = b"data: [DONE]\n\n"
_FAILED = b'"code":"upstream_failed"'
_LAST = b"0\r\n\r\n"
_FRAMING = "RFC 9112 §6: the length of an answer is said once, and kept"
_GRAMMAR = "RFC 9112 §4: what is no head is not passed on"
_INTERIM = "RFC 9110 §15.2: a few interim answers are normal, a flood is not"
_BODILESS = "RFC 9110 §6.4.1: 204 and 304 have no body"
_USAGE = "counts that cannot be true are not believed"
_STREAM = "WHATWG HTML §9.2.6: a stream of events, to the letter and beyond"
_BROKEN = "a stream that breaks ends with an error and its mark, and costs what was seen"


def _json(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def _answer(usage: Any) -> bytes:
    """An answer of three words, with this usage: as JSON text if it is bytes."""
    message = b'{"index":0,"message":{"role":"assistant","content":"a b c"},"finish_reason":"stop"}'
    return b'{"id":"c","choices":[%b],"usage":%b}' % (message, _json(usage))


_HONEST = _answer({"prompt_tokens": PROMPT_TOKENS, "completion_tokens": 3})
_TOLD = Charge(3)


def _head(*lines: bytes, status: bytes = b"200 OK") -> bytes:
    joined = b"".join(line + b"\r\n" for line in lines)
    return b"HTTP/1.1 %b\r\n%b\r\n" % (status, joined)


def _whole(body: bytes = _HONEST, *lines: bytes) -> bytes:
    return _head(b"Content-Length: %d" % len(body), *lines) + body


def _refused(name: str, why: str, *answer: bytes, then: Then = Then.STAY) -> Misdeed:
    return Misdeed(name, why, answer, WHOLE, 502, then=then)


def _lie(name: str, usage: Any, charge: Charge = WHOLE) -> Misdeed:
    return Misdeed(f"usage {name}", _USAGE, (_whole(_answer(usage)),), charge)


def _event(text: str = "w", usage: bytes = b"", reason: bytes = b"null") -> bytes:
    told = b',"usage":' + usage if usage else b""
    choice = b'{"index":0,"delta":{"content":%b},"finish_reason":%b}' % (_json(text), reason)
    return b'data: {"id":"c","choices":[%b]%b}\n\n' % (choice, told)


_STREAM_HEAD = _head(b"Content-Type: text/event-stream", b"Transfer-Encoding: chunked")


def _stream(
    name: str,
    why: str,
    *pieces: bytes,
    charge: Charge,
    ends: bytes = _DONE,
    then: Then = Then.STAY,
    last: bytes = _LAST,
) -> Misdeed:
    answer = (_STREAM_HEAD, *(chunk(piece) for piece in pieces), last)
    return Misdeed(name, why, answer, charge, streamed=True, then=then, ends=ends)


def _stream_lie(name: str, usage: bytes, charge: Charge) -> Misdeed:
    pieces = (_event("a"), _event("b"), _event("c", usage, b'"stop"'), _DONE)
    return _stream(f"stream usage {name}", _USAGE, *pieces, charge=charge)


def _seen(tokens: int) -> Charge:
    """Counted by ourselves in a stream that broke, with what an engine makes before it stops."""
    return Charge(min(tokens + ABORT_TOKENS[Engine.VLLM], MOST_TOKENS), estimated=True)


_COUNTED = Charge(3, estimated=True)
_UNHEARD = Charge(MOST_TOKENS, estimated=True)  # we left it, and it may go on: all that was held
_THREE = (_event("a"), _event("b"), _event("c", reason=b'"stop"'))
_CUT_THREE = b"".join(_THREE)

CASES = (
    # ---------------------------------------------------------------- HTTP
    _refused("an answer behind the answer", _FRAMING, _whole() + _whole()),
    _refused("more body than was said", _FRAMING, _head(b"Content-Length: 2") + b"{}{}"),
    _refused(
        "less body than was said", _FRAMING, _head(b"Content-Length: 99") + b"{}", then=Then.CLOSE
    ),
    _refused(
        "a reset inside the body", _FRAMING, _head(b"Content-Length: 99") + b"{", then=Then.RESET
    ),
    _refused("a reset before the head", _FRAMING, then=Then.RESET),
    _refused("a close before the head", _FRAMING, then=Then.CLOSE),
    _refused("a close inside the head", _GRAMMAR, b"HTTP/1.1 200 OK\r\nX:", then=Then.CLOSE),
    _refused("two lengths", _FRAMING, _head(b"Content-Length: 2", b"Content-Length: 3") + b"{}"),
    _refused("a list of lengths", _FRAMING, _head(b"Content-Length: 2, 2") + b"{}"),
    _refused("a negative length", _FRAMING, _head(b"Content-Length: -2") + b"{}"),
    _refused("a length with a plus", _FRAMING, _head(b"Content-Length: +2") + b"{}"),
    _refused("a huge length", _FRAMING, _head(b"Content-Length: " + b"9" * 40) + b"{}"),
    _refused(
        "both lengths", _FRAMING, _head(b"Content-Length: 2", b"Transfer-Encoding: chunked") + b"{}"
    ),
    _refused("another coding", _FRAMING, _head(b"Transfer-Encoding: gzip, chunked") + b"{}"),
    _refused("identity coding", _FRAMING, _head(b"Transfer-Encoding: identity") + b"{}"),
    _refused("a bad chunk size", _FRAMING, _head(b"Transfer-Encoding: chunked") + b"0x2\r\n{}\r\n"),
    _refused(
        "a chunk size that overflows",
        _FRAMING,
        _head(b"Transfer-Encoding: chunked") + b"F" * 20 + b"\r\n{}",
    ),
    _refused(
        "chunk data without its end", _FRAMING, _head(b"Transfer-Encoding: chunked") + b"2\r\n{}XX"
    ),
    _refused(
        "chunks without the last",
        _FRAMING,
        _head(b"Transfer-Encoding: chunked") + chunk(b"{}"),
        then=Then.CLOSE,
    ),
    _refused(
        "a split header", _GRAMMAR, _head(b"X: a\rSet-Cookie: b", b"Content-Length: 2") + b"{}"
    ),
    _refused(
        "a header with LF", _GRAMMAR, _head(b"X: a\nSet-Cookie: b", b"Content-Length: 2") + b"{}"
    ),
    _refused("a folded header", _GRAMMAR, _head(b"X: a\r\n b", b"Content-Length: 2") + b"{}"),
    _refused("a header with NUL", _GRAMMAR, _head(b"X: \x00", b"Content-Length: 2") + b"{}"),
    _refused("a header without a name", _GRAMMAR, _head(b": a", b"Content-Length: 2") + b"{}"),
    _refused("a header above the limit", _GRAMMAR, _head(b"X: " + b"a" * 40_000)),
    _refused("a head without an end", _GRAMMAR, b"HTTP/1.1 200 OK\r\nX: " + b"a" * 40_000),
    _refused("1,000 headers", _GRAMMAR, _head(*[b"X-%d: a" % n for n in range(1000)])),
    _refused("HTTP/2", _GRAMMAR, b"HTTP/2 200\r\n\r\n"),
    _refused("HTTP/0.9", _GRAMMAR, _HONEST + b"\r\n\r\n"),
    _refused("a status of 999", _GRAMMAR, _head(b"Content-Length: 0", status=b"999 No")),
    _refused("a status of letters", _GRAMMAR, _head(status=b"OK")),
    _refused("a switch of protocols", _INTERIM, _head(b"Upgrade: h2c", status=b"101 Switching")),
    _refused("a flood of interim answers", _INTERIM, _head(status=b"100 Continue") * 1_000),
    _refused(
        "an interim answer with a body",
        _INTERIM,
        _head(b"Content-Length: 2", status=b"103 Early") + b"{}",
    ),
    Misdeed(
        "two interim answers", _INTERIM, (_head(status=b"103 Early Hints") * 2, _whole()), _TOLD
    ),
    Misdeed("one byte at a time", _GRAMMAR, tuple(bytes([b]) for b in _whole()), _TOLD),
    Misdeed("without a length", _FRAMING, (_head(), _HONEST), _TOLD, then=Then.CLOSE),
    Misdeed("without a reason phrase", _GRAMMAR, (b"HTTP/1.1 200\r\n", _whole()[17:]), _TOLD),
    _refused("204 with a body", _BODILESS, _head(b"Content-Length: 2", status=b"204 No") + b"{}"),
    _refused(
        "304 with chunks",
        _BODILESS,
        _head(b"Transfer-Encoding: chunked", status=b"304 No") + chunk(b"{}") + _LAST,
    ),
    Misdeed("204", _BODILESS, (_head(status=b"204 No Content"),), NOTHING, 502),
    Misdeed("304", _BODILESS, (_head(status=b"304 Not Modified"),), NOTHING, 502),
    Misdeed(
        "a redirect",
        "RFC 9110 §15.4: nobody follows",
        (_head(b"Location: http://x/", b"Content-Length: 0", status=b"302 Found"),),
        NOTHING,
        502,
    ),
    _refused(
        "a compressed answer",
        "RFC 9110 §12.5.3: identity was asked",
        _whole(gzip.compress(_HONEST), b"Content-Encoding: gzip"),
    ),
    _refused("a hidden compression", "RFC 9110 §8.4: no JSON", _whole(gzip.compress(_HONEST))),
    _refused(
        "a page", "RFC 8259: no JSON", _whole(b"<html>Welcome</html>", b"Content-Type: text/html")
    ),
    _refused("JSON that ends early", "RFC 8259: no JSON", _whole(_HONEST[:-1])),
    _refused("JSON 100,000 deep", "RFC 8259 §9: a parser may limit depth", _whole(b"[" * 100_000)),
    _refused("JSON in UTF-16", "RFC 8259 §8.1: no JSON", _whole(_HONEST.decode().encode("utf-16"))),
    _refused(
        "an answer above the limit",
        "what is kept of an answer is bounded",
        _whole(b'"' + b"a" * 2_000_000 + b'"'),
    ),
    Misdeed(
        "a head that never ends",
        "a node has so much time",
        (b"HTTP/1.1 200 OK\r\nX: a\r\n",),
        WHOLE,
        504,
    ),
    Misdeed("silence", "a node has so much time", (), WHOLE, 504),
    Misdeed(
        "a body that stops",
        "a node has so much time",
        (_head(b"Content-Length: 99") + b"{",),
        WHOLE,
        502,
    ),
    # ---------------------------------------------------------------- usage
    _lie("missing", b"null"),
    _lie("a list", []),
    _lie("a string", "7"),
    _lie("empty", {}),
    _lie("zero", {"prompt_tokens": 0, "completion_tokens": 0}),
    _lie("negative", {"prompt_tokens": 7, "completion_tokens": -1}),
    _lie("a fraction", {"prompt_tokens": 7, "completion_tokens": 2.5}),
    _lie("text", {"prompt_tokens": 7, "completion_tokens": "3"}),
    _lie("true", {"prompt_tokens": 7, "completion_tokens": True}),
    _refused(
        "usage of NaN", _USAGE, _whole(_answer(b'{"prompt_tokens":7,"completion_tokens":NaN}'))
    ),
    _lie("of 10³⁰", {"prompt_tokens": 7, "completion_tokens": 10**30}),
    _lie("of 1e30", b'{"prompt_tokens":7,"completion_tokens":1e30}'),
    _lie("of 90 million", {"prompt_tokens": 90_000_000, "completion_tokens": 3}),
    _lie("without the prompt", {"completion_tokens": 3}),
    _lie(
        "with more cached than read",
        {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}},
    ),
    _lie(
        "with more reasoning than output",
        {
            "prompt_tokens": 7,
            "completion_tokens": 3,
            "completion_tokens_details": {"reasoning_tokens": 4},
        },
    ),
    _lie("twice", b'{"prompt_tokens":7,"completion_tokens":1,"completion_tokens":3}', _TOLD),
    _stream_lie("missing", b"", _COUNTED),
    _stream_lie("negative", b'{"prompt_tokens":7,"completion_tokens":-3}', _COUNTED),
    _stream_lie("NaN", b'{"prompt_tokens":7,"completion_tokens":NaN}', _COUNTED),
    _stream_lie("a fraction", b'{"prompt_tokens":7,"completion_tokens":1.5}', _COUNTED),
    _stream_lie("of 10³⁰", b'{"prompt_tokens":7,"completion_tokens":%d}' % 10**30, _COUNTED),
    _stream_lie("zero", b'{"prompt_tokens":0,"completion_tokens":0}', _COUNTED),
    _stream_lie(
        "twice",
        b'{"prompt_tokens":7,"completion_tokens":9},"usage":{"prompt_tokens":7,"completion_tokens":3}',
        Charge(3),
    ),
    _stream(
        "stream usage that shrinks",
        _USAGE,
        _event("a", b'{"prompt_tokens":7,"completion_tokens":8}'),
        _event("b", b'{"prompt_tokens":7,"completion_tokens":2}', b'"stop"'),
        _DONE,
        charge=Charge(8, estimated=True),
    ),
    # ---------------------------------------------------------------- streams
    _stream("stream without its mark", _STREAM, *_THREE, charge=_COUNTED),
    _stream("stream without the last blank line", _STREAM, _CUT_THREE[:-2], charge=_COUNTED),
    _stream(
        "stream of CR alone", _STREAM, (_CUT_THREE + _DONE).replace(b"\n", b"\r"), charge=_COUNTED
    ),
    _stream(
        "stream of CRLF", _STREAM, (_CUT_THREE + _DONE).replace(b"\n", b"\r\n"), charge=_COUNTED
    ),
    _stream(
        "stream with a byte order mark",
        _STREAM,
        b"\xef\xbb\xbf" + _CUT_THREE,
        _DONE,
        charge=_COUNTED,
    ),
    _stream(
        "stream in chunks of one byte",
        _STREAM,
        *(bytes([b]) for b in _CUT_THREE + _DONE),
        charge=_COUNTED,
    ),
    _stream(
        "stream that splits a character",
        _STREAM,
        _event("€")[:50],
        _event("€")[50:],
        *_THREE[1:],
        _DONE,
        charge=_COUNTED,
    ),
    _stream(
        "stream with its mark in the text",
        _STREAM,
        _event("data: [DONE]\n\n"),
        *_THREE[1:],
        _DONE,
        charge=_COUNTED,
    ),
    _stream(
        "stream with usage in the text",
        _STREAM,
        _event('"usage":{"completion_tokens":0}'),
        *_THREE[1:],
        _DONE,
        charge=_COUNTED,
    ),
    _stream(
        "stream with bytes that are no text",
        _STREAM,
        _event("a").replace(b'"a"', b'"\xff"'),
        *_THREE[1:],
        _DONE,
        charge=_COUNTED,
    ),
    _stream(
        "stream with comments", _STREAM, b": ping\n\n" * 1_000, *_THREE, _DONE, charge=_COUNTED
    ),
    _stream(
        "stream with blank lines",
        _STREAM,
        b"\n" * 10_000,
        *_THREE,
        b"\n" * 10_000,
        _DONE,
        charge=_COUNTED,
    ),
    _stream("stream behind its mark", _STREAM, *_THREE, _DONE, _event("more"), charge=_COUNTED),
    _stream(
        "stream with an error inside",
        _STREAM,
        *_THREE,
        b'data: {"error":{"message":"x"}}\n\n',
        _DONE,
        charge=Charge(4, estimated=True),
    ),
    _stream(
        "stream with a line of 10 MB",
        _BROKEN,
        *_THREE,
        b"data: " + b"a" * 10_000_000,
        charge=_UNHEARD,
        ends=_FAILED,
    ),
    _stream("stream that stops", _BROKEN, *_THREE, charge=_UNHEARD, ends=_FAILED, last=b""),
    _stream(
        "stream that closes",
        _BROKEN,
        *_THREE,
        charge=_seen(3),
        ends=_FAILED,
        last=b"",
        then=Then.CLOSE,
    ),
    _stream(
        "stream that resets",
        _BROKEN,
        *_THREE,
        charge=_seen(3),
        ends=_FAILED,
        last=b"",
        then=Then.RESET,
    ),
    _stream(
        "stream that resets inside an event",
        _BROKEN,
        *_THREE,
        b"data: {",
        charge=_seen(3),
        ends=_FAILED,
        last=b"",
        then=Then.RESET,
    ),
    _stream(
        "stream with a bad chunk", _BROKEN, *_THREE, charge=_UNHEARD, ends=_FAILED, last=b"zz\r\n"
    ),
    _stream(
        "stream with an answer behind it",
        _BROKEN,
        *_THREE,
        _DONE,
        charge=_COUNTED,
        last=_LAST + _whole(),
    ),
    Misdeed("a whole answer for a stream", _STREAM, (_whole(),), _TOLD, streamed=True),
    Misdeed(
        "a stream for a whole answer", _STREAM, (_STREAM_HEAD, chunk(_CUT_THREE), _LAST), WHOLE, 502
    ),
)
