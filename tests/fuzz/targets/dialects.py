"""Every dialect's stream and answer: the promise of `sse`, and an end that can always be said."""

import json
import random
from typing import Any

from enforcement.rules.dialects import DIALECTS
from enforcement.rules.frames import Meter, StreamError
from enforcement.rules.requests import Endpoint
from tests.fuzz.mutate import pieces_of
from tests.fuzz.target import Target, require
from tests.rules.dialects.samples import BODIES, STREAMS

_NOTE = b'{"reason":"clamped"}'
_ENDPOINTS = [endpoint for endpoint in STREAMS if endpoint is not Endpoint.CHAT]
_PARSED = {
    endpoint: DIALECTS[endpoint].parse(json.dumps(BODIES[endpoint] | {"stream": True}).encode())
    for endpoint in STREAMS
}
_SEEDS = (
    *(b"".join(stream) for stream in STREAMS.values()),
    *(b"".join(stream).replace(b"\n", b"\r\n") for stream in STREAMS.values()),
    *(b"".join(stream[:-1]) for stream in STREAMS.values()),
)
_WORDS = (
    b'data: |event: error\n|\n\n|\r\n|\r|\n|{|}|[|]|null|-1|2.5|1e30|"usage"|"output_tokens":'
    b'|"input_tokens":|"eval_count":|"tokens_predicted":|"timings":|"type":|"index":|"delta":'
    b'|"response":|"item":{"id":5}|"done":true|"stop":true|"stop_reason":"max_tokens"'
    b'|"done_reason":"length"|"error":{}|"message":|"status":5|[DONE]|\xef\xbb\xbf|\xff|\\ud800'
).split(b"|")


def _facts(meter: Meter) -> tuple[Any, ...]:
    counts = (meter.usage, meter.events, meter.produced, meter.tool_calls, meter.running)
    doubts = (meter.disputed, meter.counted, meter.input_missing, meter.pending)
    return (*counts, *doubts, meter.done, meter.finish_reason, meter.limited, meter.id)


def _metered(pieces: list[bytes], endpoint: Endpoint, note: bytes) -> tuple[Any, ...]:
    meter = DIALECTS[endpoint].meter(_PARSED[endpoint], clamp_note=note)
    try:
        out = b"".join([meter.feed(piece) for piece in pieces])
    except StreamError:
        return ("no end",)
    cut = meter.cut_ending({"outcome": "cut"}, request_id="r", input_tokens=5)
    error = meter.error_ending({"error": {"message": "failed"}})
    require(bool(cut and error), "a stream that cannot be ended")
    return (out, cut, error, meter.end(), meter.missing_end(), *_facts(meter))


def check(data: bytes, dice: random.Random) -> str:
    endpoint = dice.choice(_ENDPOINTS)
    note = _NOTE if dice.random() < 0.5 else b""
    whole = _metered([data], endpoint, note)
    split = _metered(pieces_of(data, dice), endpoint, note)
    require(whole == split, f"{endpoint} whole: {whole}; in pieces: {split}")
    answer = DIALECTS[endpoint].read_answer(data)
    require(answer.usage is None or answer.usage.consistent, f"{endpoint} believes {answer}")
    require(whole[5] is None or whole[5].consistent, f"{endpoint} believes {whole}")
    return f"{endpoint}: {'usage' if whole[5] else 'counted'}"


TARGET = Target(
    "dialects",
    "in every dialect: counts and bytes do not depend on the split, and any stream can be ended",
    _SEEDS,
    tuple(_WORDS),
    check,
)
