"""The published bound, by hand and as a rule."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from enforcement.rules.bound import Stream, past_cap, worst_case

# 100 tokens/s for 0.5 s and a chunk of 4: 54 tokens at $2 per million
STREAM = Stream(
    price_nanos_per_mtok=2_000_000_000,
    tokens_per_second=100,
    meter_us=100_000,
    abort_us=400_000,
    chunk_tokens=4,
    margin_nanos=0,
)


def test_by_hand() -> None:
    assert past_cap(STREAM) == 108_000
    assert past_cap(replace(STREAM, margin_nanos=100_000)) == 8_000
    assert past_cap(replace(STREAM, margin_nanos=108_000)) == 0
    assert past_cap(replace(STREAM, price_nanos_per_mtok=1)) == 1  # rounded up
    assert worst_case([STREAM, STREAM, replace(STREAM, margin_nanos=200_000)]) == 216_000


def test_strict_holds_have_no_term() -> None:
    assert worst_case([]) == 0


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_larger_margin_never_raises_the_bound(small: int, more: int) -> None:
    least = past_cap(replace(STREAM, margin_nanos=small))
    assert past_cap(replace(STREAM, margin_nanos=small + more)) <= least
