"""Metering of streams: invariant under splits, exact where the engine counts, never fooled."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.rules.frames import MAX_FRAME_BYTES, StreamError
from enforcement.rules.money import TokenUsage
from enforcement.rules.stream import StreamMeter, read_answer, read_usage


def frame(value: Any, ends: str = "\n") -> bytes:
    return f"data: {json.dumps(value, separators=(',', ':'))}{ends}{ends}".encode()


def word(text: str = "w", **fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return {"id": "c-1", "model": "m", "created": 5, "choices": [choice]} | fields


def end(reason: str = "stop") -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}


def usage(prompt: int, completion: int, **details: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion} | details


DONE = b"data: [DONE]\n\n"
PLAIN = b"".join([frame(word()), frame(word("two")), frame(end()), DONE])
WITH_USAGE = PLAIN[: -len(DONE)] + frame({"choices": [], "usage": usage(7, 2)}) + DONE


def run(data: bytes, **options: Any) -> tuple[StreamMeter, bytes]:
    meter = StreamMeter(**options)
    return meter, meter.feed(data) + meter.end()


def test_a_plain_stream_passes_as_it_is() -> None:
    meter, out = run(PLAIN)
    assert out == PLAIN
    assert (meter.events, meter.done, meter.finish_reason) == (3, True, "stop")
    assert (meter.usage, meter.produced, meter.named()) == (None, 3, ("c-1", "m", 5))


def test_the_usage_event_is_read_and_taken_out() -> None:
    meter, out = run(WITH_USAGE, strip_usage=True)
    assert out == PLAIN
    assert meter.usage == TokenUsage(input_tokens=7, output_tokens=2)
    assert (meter.produced, meter.events) == (2, 3)


def test_the_usage_event_stays_where_it_was_asked_for() -> None:
    _, out = run(WITH_USAGE)
    assert out == WITH_USAGE


def test_running_usage_is_read_and_taken_out() -> None:
    data = b"".join(frame(word(usage=usage(7, n))) for n in range(1, 4))
    meter, out = run(data, strip_running=True)
    assert out == frame(word()) * 3
    assert (meter.running, meter.usage) == (3, TokenUsage(input_tokens=7, output_tokens=3))


def test_timings_are_read_and_taken_out() -> None:
    timings = {"cache_n": 5, "prompt_n": 2, "predicted_n": 3, "predicted_ms": 1.5}
    meter, out = run(frame(word(timings=timings)), strip_timings=True)
    assert out == frame(word())
    assert meter.usage == TokenUsage(input_tokens=7, cached_input_tokens=5, output_tokens=3)


def test_null_usage_is_taken_out_too() -> None:
    meter, out = run(frame(word(usage=None)), strip_usage=True)
    assert out == frame(word())
    assert meter.usage is None


def test_text_that_looks_like_usage_is_text() -> None:
    text = ',"usage":{"completion_tokens":9},"timings":{"predicted_n":9}\n\ndata: [DONE]\n\n'
    data = frame(word(text))
    meter, out = run(data, strip_usage=True, strip_timings=True)
    assert out == data
    assert (meter.usage, meter.done, meter.events) == (None, False, 1)


@pytest.mark.parametrize("ends", ["\r\n", "\r"])
def test_other_line_ends_become_ours(ends: str) -> None:
    data = b"".join(frame(value, ends) for value in (word(), word("two"), end()))
    meter, out = run(data + f"data: [DONE]{ends}{ends}".encode())
    assert out == PLAIN
    assert (meter.events, meter.done) == (3, True)


def test_a_mark_at_the_start_is_dropped() -> None:
    assert run(b"\xef\xbb\xbf" + PLAIN)[1] == PLAIN


def test_a_last_event_without_its_blank_line_counts() -> None:
    meter, out = run(frame(word()) + frame(end()).rstrip(b"\n"))
    assert (out, meter.events, meter.finish_reason) == (frame(word()) + frame(end()), 2, "stop")


def test_half_an_event_does_not() -> None:
    meter, out = run(frame(word()) + b'data: {"choices":[{"del')
    assert (out, meter.events) == (frame(word()), 1)


def test_a_frame_without_end_is_an_error() -> None:
    meter = StreamMeter()
    meter.feed(b"data: " + b"x" * (MAX_FRAME_BYTES // 2))
    with pytest.raises(StreamError):
        meter.feed(b"x" * (MAX_FRAME_BYTES // 2))


@pytest.mark.parametrize("size", [1, 500, 1_000_000])
def test_the_reason_is_looked_for_near_the_end_however_it_came(size: int) -> None:
    near = frame(end("stop")) + frame(word("x" * 3_000))
    far = frame(end("stop")) + frame(word("x" * 5_000))
    for data, reason in ((far + near, "stop"), (near + far, "")):
        meter = StreamMeter()
        for at in range(0, len(data), size):
            meter.feed(data[at : at + size])
        assert meter.finish_reason == reason


def test_calls_are_counted_under_both_names() -> None:
    called = [{"tool_calls": [{"index": 0, "id": "a"}]}, {"function_call": {"name": "f"}}]
    frames = [frame({"choices": [{"index": 0, "delta": delta}]}) for delta in called]
    meter, _ = run(b"".join(frames) + frame(word("a _call in words")) + DONE)
    assert meter.tool_calls == 2


def test_counts_never_fall() -> None:
    meter, _ = run(frame(word(usage=usage(7, 9))) + frame(word(usage=usage(7, 2))))
    assert meter.usage == TokenUsage(input_tokens=7, output_tokens=9)
    assert (meter.running, meter.disputed) == (9, True)


def test_a_clamped_end_carries_the_note() -> None:
    data = frame(word()) + frame(end("length")) + DONE
    _, out = run(data, clamp_note=b'{"outcome":"clamped"}')
    last = json.loads(out.split(b"\n\n")[1].removeprefix(b"data: "))
    assert last["comptroller"] == {"outcome": "clamped"}
    assert last["choices"][0]["finish_reason"] == "length"


def test_a_natural_end_carries_no_note() -> None:
    assert run(PLAIN, clamp_note=b'{"outcome":"clamped"}')[1] == PLAIN


LIES: list[Any] = [
    usage(-1, 2),
    usage(1, -2),
    usage(1, 10**30),
    usage(1, 2.0),
    usage(1, "2"),
    usage(True, 2),
    {"completion_tokens": 2},
    usage(5, 2, prompt_tokens_details={"cached_tokens": 6}),
    usage(5, 2, prompt_tokens_details={"cached_tokens": -1}),
    usage(5, 2, completion_tokens_details={"reasoning_tokens": 3}),
    [],
    5,
    "x",
]


@pytest.mark.parametrize("lie", LIES)
def test_what_cannot_be_true_is_not_believed(lie: Any) -> None:
    text = json.dumps(lie).encode()
    assert read_usage(text) is None
    meter, _ = run(frame(word(usage=lie)))
    assert (meter.usage, meter.disputed) == (None, True)
    answer = read_answer(json.dumps({"id": "a", "choices": [], "usage": lie}).encode())
    assert (answer.valid, answer.usage, answer.disputed) == (True, None, True)


def test_all_kinds_of_tokens_are_read() -> None:
    said = usage(
        10,
        5,
        prompt_tokens_details={"cached_tokens": 3, "created_cache_tokens": 2, "audio_tokens": None},
        completion_tokens_details={"reasoning_tokens": 4},
        total_tokens=15,
    )
    assert read_usage(json.dumps(said).encode()) == TokenUsage(
        input_tokens=10,
        cached_input_tokens=3,
        cache_write_tokens=2,
        output_tokens=5,
        reasoning_tokens=4,
    )


def test_answers() -> None:
    body = {"id": "a", "choices": [{"finish_reason": "stop"}], "usage": usage(1, 2)}
    answer = read_answer(json.dumps(body).encode())
    assert (answer.usage, answer.finish_reason, answer.id) == (
        TokenUsage(input_tokens=1, output_tokens=2),
        "stop",
        "a",
    )
    assert not read_answer(b"<html>").valid
    assert not read_answer(b"[1]").valid
    assert read_answer(b'{"id":5}').valid
    assert read_answer(b"{}").usage is None


EVENTS = st.one_of(
    st.text(max_size=12).map(lambda text: frame(word(text))),
    st.tuples(st.integers(-1, 9), st.integers(-1, 9)).map(
        lambda pair: frame(word(usage=usage(*pair)))
    ),
    st.integers(0, 9).map(lambda n: frame(word(timings={"prompt_n": 3, "predicted_n": n}))),
    st.sampled_from(
        [
            frame(end("length")),
            frame({"choices": [], "usage": usage(4, 4)}),
            DONE,
            b": ping\n\n",
            b"\n",
            b"\n\n\n",
            b"event: x\ndata: {}\n\n",
            b"data: [DONE] not\n\n",
            b"\xef\xbb\xbf",
            b"garbage\n\n",
        ]
    ),
)
SEPARATORS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(st.lists(EVENTS, max_size=8), SEPARATORS, st.booleans(), st.booleans(), st.data())
def test_any_split_gives_the_same_bytes_counts_and_usage(
    events: list[bytes], separator: bytes, strip: bool, note: bool, data: st.DataObject
) -> None:
    stream = b"".join(events).replace(b"\n", separator)
    options: dict[str, Any] = {"strip_usage": strip, "strip_timings": strip}
    options["clamp_note"] = b"{}" if note else b""
    whole, expected = run(stream, **options)
    meter, out, left = StreamMeter(**options), b"", stream
    while left:
        cut = data.draw(st.integers(1, len(left)))
        out += meter.feed(left[:cut])
        left = left[cut:]
    out += meter.end()
    assert out == expected
    for name in ("events", "usage", "running", "disputed", "done", "finish_reason"):
        assert getattr(meter, name) == getattr(whole, name), name
    assert meter.named() == whole.named()


def test_long_lines_in_small_reads_and_repeated_words_take_no_longer() -> None:
    """Not quadratic: once they took fifteen seconds, and minutes."""
    line = b"data: " + b"a" * 8_000_000
    began = time.process_time()
    meter = StreamMeter()
    for at in range(0, len(line), 1_024):
        assert meter.feed(line[at : at + 1_024]) == b""
    assert meter.feed(b"\n\n") == line + b"\n\n"
    said = b"data: {" + b'"finish_reason":"length",' * 100_000 + b"x\n\n"
    assert StreamMeter(clamp_note=b"{}").feed(said) == said
    assert time.process_time() - began < 5


def test_usage_tells_kinds_and_the_tier() -> None:
    said = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "prompt_tokens_details": {
            "cached_tokens": 20,
            "cache_write_tokens": 30,
            "cache_write_tokens_details": {"ttl_12h_tokens": 10},
            "audio_tokens": 7,
            "image_tokens": 8,
        },
        "completion_tokens_details": {"reasoning_tokens": 12, "audio_tokens": 5},
    }
    expected = TokenUsage(
        input_tokens=100,
        cached_input_tokens=20,
        cache_write_tokens=30,
        cache_write_long_tokens=10,
        input_audio_tokens=7,
        input_image_tokens=8,
        output_tokens=50,
        reasoning_tokens=12,
        output_audio_tokens=5,
        tier="flex",
    )
    body = json.dumps({"choices": [], "usage": said, "service_tier": "flex"}).encode()
    assert read_answer(body).usage == expected
    meter, _ = run(frame({"choices": [], "usage": said, "service_tier": "flex"}))
    assert meter.usage == expected
    vllm = {"prompt_tokens": 9, "prompt_tokens_details": {"multimodal_tokens": 4}}
    assert read_usage(json.dumps(vllm).encode()) == TokenUsage(input_tokens=9, input_image_tokens=4)


def test_parts_that_are_more_than_their_whole_are_not_believed() -> None:
    said = {"prompt_tokens": 5, "prompt_tokens_details": {"audio_tokens": 6}}
    assert read_usage(json.dumps(said).encode()) is None
