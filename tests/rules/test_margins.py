"""What a metered budget must hold beyond what was produced."""

from msgspec.structs import replace

from enforcement.rules.margins import Stop, margin_for

STOP = Stop(
    node="node-a",
    engine="vllm",
    version="0.32.0",
    streams=6,
    rate_tokens_per_s=150,
    stop_ms=300,
    tokens_after=4,
    chunk_tokens=1,
    source="counters",
    measured_at_ms=0,
)


def margin(*stops: Stop, declared: int | None = None, **named: str) -> int | None:
    names = {"node": "node-a", "engine": "vllm", "version": "0.32.0"} | named
    return margin_for(stops, declared=declared, **names)


def test_it_covers_twice_the_rate_until_the_stop_and_a_chunk() -> None:
    assert STOP.margin_tokens == 2 * 150 * (100 + 300) // 1000 + 1 == 121


def test_it_is_rounded_up() -> None:
    assert replace(STOP, rate_tokens_per_s=1, stop_ms=1).margin_tokens == 4 + 1
    assert replace(STOP, rate_tokens_per_s=3, stop_ms=900, tokens_after=0).margin_tokens == 6 + 1
    assert replace(STOP, rate_tokens_per_s=3, stop_ms=901, tokens_after=0).margin_tokens == 7 + 1


def test_what_was_made_after_a_stop_is_always_covered() -> None:
    assert replace(STOP, tokens_after=500, chunk_tokens=8).margin_tokens == 508


def test_an_engine_that_does_not_stop_has_none() -> None:
    endless = replace(STOP, stop_ms=None, tokens_after=None)

    assert margin(endless) is None
    assert margin(endless, declared=64) == 64


def test_nothing_measured_is_nothing_unless_it_is_declared() -> None:
    assert margin() is None
    assert margin(declared=64) == 64


def test_the_larger_of_measured_and_declared_counts() -> None:
    assert margin(STOP, declared=64) == 121
    assert margin(STOP, declared=200) == 200


def test_another_node_engine_or_version_was_not_measured() -> None:
    assert margin(STOP) == 121
    assert margin(STOP, node="node-b") is None
    assert margin(STOP, engine="llama.cpp") is None
    assert margin(STOP, version="0.33.0") is None
