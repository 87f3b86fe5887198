"""The published worst case of a hard budget: how much can be used past its cap.

`strict` holds all that an engine can produce before a call is forwarded: 0. `metered` follows the
answer: for each stream, what an engine makes between a token and its stop, less the margin held:
`max(0, p * (r * (t_meter + t_abort) + k) - m)`.
"""

from collections.abc import Iterable

from msgspec import Struct

_DIVISOR = 1_000_000 * 1_000_000  # nano-dollars per million tokens, and microseconds per second


class Stream(Struct, frozen=True):
    """A running metered stream. The rate of the engine is its fastest, in tokens a second."""

    price_nanos_per_mtok: int
    tokens_per_second: int
    meter_us: int
    abort_us: int
    chunk_tokens: int
    margin_nanos: int


def past_cap(stream: Stream) -> int:
    """Nano-dollars that one stream can cost above what is held for it, rounded up."""
    made = stream.tokens_per_second * (stream.meter_us + stream.abort_us)
    tokens = made + stream.chunk_tokens * 1_000_000  # both in millionths of a token
    return max(-(-stream.price_nanos_per_mtok * tokens // _DIVISOR) - stream.margin_nanos, 0)


def worst_case(streams: Iterable[Stream]) -> int:
    """Nano-dollars past the cap over all metered streams; of strict holds there are none."""
    return sum(past_cap(stream) for stream in streams)
