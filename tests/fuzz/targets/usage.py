"""Usage and whole answers: no exception, nothing believed that cannot be true, nothing misread."""

import json
import random
from typing import Any

from enforcement.rules.frames import MAX_TOKENS
from enforcement.rules.stream import read_answer, read_usage
from tests.fuzz.target import Target, require

_WORDS = (
    b'{|}|[|]|:|,|"|null|true|NaN|-1|-0|0|1|2.5|3.0|1e2|1e30|99999999999999999999|100000001'
    b'|"prompt_tokens"|"completion_tokens"|"prompt_tokens_details"|"cached_tokens"'
    b'|"completion_tokens_details"|"reasoning_tokens"|"created_cache_tokens"|"usage"|"choices"'
    b'|"message"|"tool_calls"|"id"|\\u0070|\x00|\xff|\xed\xa0\x80'
).split(b"|")
_USAGES: tuple[Any, ...] = (
    {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    {
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 5, "created_cache_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 2},
    },
    {"prompt_tokens": 7},
    {"prompt_tokens": 7, "completion_tokens": None, "prompt_tokens_details": None},
    {"prompt_tokens": MAX_TOKENS, "completion_tokens": MAX_TOKENS},
)
_CHOICE = {"index": 0, "message": {"content": "a", "tool_calls": [{}]}, "finish_reason": "stop"}
_SEEDS = (
    *(json.dumps(usage).encode() for usage in _USAGES),
    *(json.dumps({"id": "a", "choices": [_CHOICE], "usage": u}).encode() for u in _USAGES),
    b'{"prompt_tokens":1,"prompt_tokens":2,"completion_tokens":3,"completion_tokens":4}',
)


def check(data: bytes, dice: random.Random) -> str:
    read_answer(data)
    usage = read_usage(data)
    if usage is None:
        return "not believed"
    counts = (usage.input_tokens, usage.output_tokens)
    require(all(type(count) is int for count in counts), f"no integers: {usage}")
    require(0 <= min(counts) <= max(counts) <= MAX_TOKENS, f"out of range: {usage}")
    require(usage.reasoning_tokens <= usage.output_tokens, f"more reasoning than output: {usage}")
    said = json.loads(data.decode(errors="replace"))
    require(said["prompt_tokens"] == usage.input_tokens, f"another prompt: {usage}")
    output = said.get("completion_tokens") or 0
    require(output == usage.output_tokens, f"another output: {usage}")
    return "believed"


TARGET = Target(
    "usage",
    "no exception; what is believed is in range, and what Python's own parser reads",
    _SEEDS,
    tuple(_WORDS),
    check,
)
