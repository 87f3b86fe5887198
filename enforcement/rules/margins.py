"""What a metered budget must hold beyond what was produced, from how an engine was seen to stop.

A metered hold pays for what the engine makes between the token at which we decide to stop it and
its stop (L2): `margin ≥ fastest rate × (metering + stop) + tokens of a chunk`. Without such a
measurement of this engine in this version, nothing bounds that, and the budget holds strictly.
"""

from msgspec import Struct

METERING_MS = 100  # from a token to our meter, on a busy machine
HASTE = 2  # the fastest rate is at least once so many times the one that was measured
MS_PER_S = 1_000


class Stop(Struct, frozen=True, kw_only=True, gc=False):
    """How a node's engine stopped when its streams were closed: the worst of several times.

    `stop_ms` is None where it was not seen to stop. `source` is what told: the engine's own
    counters, or the processor time of its process.
    """

    node: str
    engine: str
    version: str
    streams: int
    rate_tokens_per_s: int
    stop_ms: int | None
    tokens_after: int | None
    chunk_tokens: int
    source: str
    measured_at_ms: int

    @property
    def margin_tokens(self) -> int | None:
        """The least margin that is safe; None: nothing bounds what the engine makes."""
        if self.stop_ms is None:
            return None
        late = HASTE * self.rate_tokens_per_s * (METERING_MS + self.stop_ms)
        return max(-(-late // MS_PER_S), self.tokens_after or 0) + self.chunk_tokens


def margin_for(
    stops: tuple[Stop, ...], *, node: str, engine: str, version: str, declared: int | None
) -> int | None:
    """The margin of a node in tokens: what was measured, what was declared, the larger of both.

    None: neither; then nothing may be held by slices there. A measurement counts for the engine
    and version that it was made of.
    """
    for stop in stops:
        if (stop.node, stop.engine, stop.version) == (node, engine, version):
            measured = stop.margin_tokens
            return declared if measured is None else max(measured, declared or 0)
    return declared
