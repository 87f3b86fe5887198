"""Streams: what is metered and what is forwarded does not depend on how the bytes were split."""

import json
import random
from typing import Any

from enforcement.rules.frames import StreamError
from enforcement.rules.money import TokenUsage
from enforcement.rules.stream import StreamMeter
from tests.fuzz.mutate import pieces_of
from tests.fuzz.target import Target, require

_NOTE = b'{"reason":"clamped"}'
_WORDS = (
    b"data: \x1f\n\n\x1f\r\n\x1f\r\x1f\n\x1fdata: [DONE]\x1f[DONE]\x1fdata:\x1fevent: a\n\x1f: a\n"
    b'\x1fid: 1\n\x1f"usage"\x1f,"usage":null\x1f,"usage":{"prompt_tokens":7,"completion_tokens":3}'
    b'\x1f, "usage": {"prompt_tokens": 7, "completion_tokens": 9, "prompt_tokens_details": {}}'
    b'\x1f"completion_tokens":\x1f-1\x1f2.5\x1f1e30\x1f"finish_reason":"length"\x1f"finish_reason":null'
    b'\x1f,"timings":{"prompt_n":7,"cache_n":0,"predicted_n":4}\x1f"choices":[]\x1f"tool_calls"'
    b'\x1f\\n\x1f\\"\x1f{\x1f}\x1f[\x1f]\x1f\xef\xbb\xbf\x1f\xe2\x82\xac\x1f\xf0\x9f\x98\x80\x1f\xff'
).split(b"\x1f")


def _word(text: str, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return {"id": "c", "model": "toy", "created": 1, "choices": [choice], **more}


def _stream(*events: dict[str, Any] | str, end: str = "\n", separators: Any = (",", ":")) -> bytes:
    lines = [
        f"data: {event if isinstance(event, str) else json.dumps(event, separators=separators)}"
        for event in events
    ]
    return "".join(line + end * 2 for line in lines).encode()


_LAST = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
_USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
_CALL = {"index": 0, "id": "call-1", "function": {"name": "f", "arguments": '{"usage":1}'}}
_SEEDS = (
    _stream(_word("a"), _word("b"), _LAST, {"choices": [], "usage": _USAGE}, "[DONE]"),
    _stream(*[_word("w", usage=_USAGE | {"completion_tokens": n}) for n in range(4)], "[DONE]"),
    _stream(_word("a"), _LAST, {"choices": [], "usage": _USAGE}, "[DONE]", separators=(", ", ": ")),
    _stream(_word("€"), _word("😀"), "[DONE]", end="\r\n"),
    _stream(_word("a"), _word("data: [DONE]\n\n"), end="\r"),
    _stream(_word('"usage":{"prompt_tokens":1}'), _word(',"usage":null'), "[DONE]"),
    _stream(*[_word("t", timings={"prompt_n": 7, "cache_n": 1, "predicted_n": n}) for n in (1, 2)]),
    _stream({"choices": [{"index": 0, "delta": {"tool_calls": [_CALL]}}]}, _word("b"), "[DONE]"),
    b"\xef\xbb\xbf: hello\n\nevent: x\nid: 1\ndata: {}\n\nretry: 5\n\n" + _stream("[DONE]"),
    b"data: a\ndata: b\n\n\n\n\ndata:{}\n\ndata",
    _stream(_word("long " * 1_500), _LAST, "[DONE]"),
)


class _Metered(tuple[Any, ...]):
    """All that a stream is charged and reported by."""

    __slots__ = ()


def _metered(pieces: list[bytes], options: dict[str, Any]) -> tuple[bytes, _Metered]:
    meter = StreamMeter(**options)
    try:
        out = b"".join([meter.feed(piece) for piece in pieces]) + meter.end()
    except StreamError:
        return b"", _Metered(("no end",))
    tokens = (meter.produced, meter.events, meter.usage, meter.running, meter.disputed)
    said = (meter.done, meter.tool_calls, meter.finish_reason, meter.named(), meter.pending)
    return out, _Metered((*tokens, *said))


def check(data: bytes, dice: random.Random) -> str:
    options = {
        "strip_usage": dice.random() < 0.5,
        "strip_running": dice.random() < 0.5,
        "strip_timings": dice.random() < 0.5,
        "clamp_note": _NOTE if dice.random() < 0.5 else b"",
    }
    out, metered = _metered([data], options)
    split_out, split = _metered(pieces_of(data, dice), options)
    require(metered == split, f"{options} whole: {metered}; in pieces: {split}")
    require(out == split_out, f"{options} whole: {out!r}; in pieces: {split_out!r}")
    usage = metered[2] if len(metered) > 1 else None
    require(usage is None or _sane(usage), f"believes {usage}")
    _check_events(data, out)
    return "usage" if usage else "counted"


def _sane(usage: TokenUsage) -> bool:
    counts = (usage.input_tokens, usage.cached_input_tokens, usage.output_tokens)
    return all(type(count) is int and count >= 0 for count in counts)


def _check_events(data: bytes, out: bytes) -> None:
    """A stream of JSON events is one when something was taken out of it, or put in."""
    if _all_json(data):
        require(_all_json(out), f"an event is no JSON any more: {out!r}")


def _all_json(stream: bytes) -> bool:
    lines = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return all(_is_event(line) for line in lines if line)


def _is_event(line: bytes) -> bool:
    name, _, text = line.partition(b":")
    if name != b"data" or text.strip() == b"[DONE]":
        return name == b"data"
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


TARGET = Target(
    "sse",
    "metered tokens and forwarded bytes do not depend on how the bytes were split",
    _SEEDS,
    tuple(_WORDS),
    check,
)
