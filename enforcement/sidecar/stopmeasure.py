"""How an engine stops: streams are started, closed as a cut closes them, and the engine is watched.

1. What is asked goes the way of every call: the same connections, the same body, the same meter.
2. Closing is what a cut does: half of the connection at once, the rest after the drain.
3. What the engine made is taken from its own counters, not from what we saw: llama.cpp and vLLM
   tell them. Of other engines on this machine the processor time tells when they stop; how many
   tokens they made until then is not known, and not needed for the margin.
"""

import asyncio
import re
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from enforcement.rules.dialects import CHAT, Engine
from enforcement.rules.frames import Meter, encode
from enforcement.rules.margins import Stop
from enforcement.sidecar import clock
from enforcement.sidecar.config import Config
from enforcement.sidecar.engines import FetchError, Upstream
from enforcement.sidecar.http1 import ResponseHead
from enforcement.sidecar.processtime import cpu_ms, listener_of
from enforcement.sidecar.upstream import UpstreamConnection

PROMPT = "Write a very long story about a river, and do not stop."
OUTPUT_TOKENS = 1_000
SEEN_EVENTS = 12  # of each stream before it is closed
START_S = 120.0  # until a stream has said so much
STOP_S = 10.0  # an engine that has not stopped by then does not stop
POLL_S = 0.01
IDLE_SHARE = 0.25  # of the processor time per second while it was generating
LOOPBACK = ("127.0.0.1", "localhost", "::1")

_METRIC = re.compile(rb"^([a-zA-Z_:]+)(?:\{[^}]*\})? ([0-9.eE+-]+)", re.MULTILINE)
_COUNTERS = {
    Engine.LLAMA_CPP: (b"llamacpp:requests_processing", b"llamacpp:tokens_predicted_total"),
    Engine.VLLM: (b"vllm:num_requests_running", b"vllm:generation_tokens_total"),
}


class StopError(Exception):
    """It could not be measured; the sentence says why."""


class _Probe:
    """One stream of ours, as a sink."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.connection: UpstreamConnection | None = None
        self.status = 0
        self.ended = asyncio.Event()
        self.enough = asyncio.Event()
        self.first_ns = 0
        self.last_ns = 0
        self.at_first = 0
        self.most = 0  # tokens of one event, as far as the engine tells them

    def on_connected(self, connection: UpstreamConnection) -> bool:
        self.connection = connection
        return True

    def on_head(self, head: ResponseHead) -> None:
        self.status = head.status
        if head.status != 200:
            self.enough.set()

    def on_body(self, data: bytes) -> None:
        before, meter = self.meter.produced, self.meter
        meter.feed(data)
        self.last_ns = clock.now_ns()
        if meter.produced and not self.first_ns:
            self.first_ns, self.at_first = self.last_ns, meter.produced
        elif self.first_ns:
            self.most = max(self.most, meter.produced - before)
        if meter.events >= SEEN_EVENTS:
            self.enough.set()

    def on_end(self) -> None:
        self.ended.set()
        self.enough.set()

    def on_failure(self, reason: str, *, sent: bool, closed: bool = False) -> None:  # noqa: ARG002 -- the sink's protocol
        self.ended.set()
        self.enough.set()

    @property
    def rate_tokens_per_s(self) -> int:
        """Rounded up. 0: nothing can be said."""
        tokens, took_ns = self.meter.produced - self.at_first, self.last_ns - self.first_ns
        return -(-tokens * 1_000_000_000 // took_ns) if took_ns > 0 else 0


class _Watch(Protocol):
    """What tells of an engine."""

    source: str

    async def begin(self) -> None: ...
    async def closing(self) -> None: ...
    async def is_idle(self) -> bool: ...
    async def made(self) -> int | None: ...


class _Counters:
    """An engine's own `/metrics`."""

    source = "counters"

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._busy, self._total = _COUNTERS[upstream.engine]
        self._before = 0

    async def _read(self) -> tuple[int, int]:
        try:
            status, page = await self._upstream.fetch("GET", "/metrics")
        except FetchError:  # engines close idle connections as they like: once more on another
            status, page = await self._upstream.fetch("GET", "/metrics")
        found: dict[bytes, float] = {}
        for name, value in _METRIC.findall(page) if status == 200 else ():
            found[name] = found.get(name, 0.0) + float(value)
        if self._busy not in found or self._total not in found:
            raise StopError(f"/metrics answers {status} and tells no {self._busy.decode()}")
        return int(found[self._busy]), int(found[self._total])

    async def begin(self) -> None:
        busy, self._before = await self._read()
        if busy:
            raise StopError(f"the node is busy with {busy} other calls")

    async def closing(self) -> None:
        """It counts by itself."""

    async def is_idle(self) -> bool:
        return not (await self._read())[0]

    async def made(self) -> int | None:
        return (await self._read())[1] - self._before


class _ProcessTime:
    """The processor time of the engine's process."""

    source = "processor time"

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._begun_ns = self._last_ns = clock.now_ns()
        self._begun_ms = self._last_ms = cpu_ms(pid)
        self._busy_share = 0.0

    async def begin(self) -> None:
        self._begun_ns, self._begun_ms = clock.now_ns(), cpu_ms(self._pid)

    async def closing(self) -> None:
        self._busy_share = self._share(self._begun_ns, self._begun_ms)
        self._last_ns, self._last_ms = clock.now_ns(), cpu_ms(self._pid)

    def _share(self, since_ns: int, since_ms: int) -> float:
        took_ms = (clock.now_ns() - since_ns) / 1_000_000
        return (cpu_ms(self._pid) - since_ms) / took_ms if took_ms else 0.0

    async def is_idle(self) -> bool:
        """Over a tenth of a second: the kernel counts in hundredths."""
        await asyncio.sleep(0.1)
        share = self._share(self._last_ns, self._last_ms)
        self._last_ns, self._last_ms = clock.now_ns(), cpu_ms(self._pid)
        return share < self._busy_share * IDLE_SHARE

    async def made(self) -> int | None:
        return None


class _Round(NamedTuple):
    """One close."""

    rate_tokens_per_s: int
    stop_ms: int | None
    tokens_after: int | None
    chunk_tokens: int


async def measure_stop(upstream: Upstream, config: Config, *, rounds: int = 4) -> Stop:
    """Measure a node that is otherwise idle: one stream at a time, then two.

    Raises:
        StopError: it cannot be measured.
    """
    if not upstream.models:
        raise StopError(f"no model: {upstream.last_error}")
    watch = _watch_of(upstream)
    found: list[_Round] = []
    try:
        while len(found) < rounds and not any(one.stop_ms is None for one in found):
            found.append(await _round(upstream, watch, config, streams=1 + len(found) % 2))
    except (FetchError, OSError) as error:
        raise StopError(f"the node cannot be watched: {error}") from error
    stops = [one.stop_ms for one in found]
    after = [one.tokens_after for one in found if one.tokens_after is not None]
    return Stop(
        node=upstream.name,
        engine=upstream.engine.value,
        version=upstream.version,
        streams=sum(1 + n % 2 for n in range(len(found))),
        rate_tokens_per_s=max(one.rate_tokens_per_s for one in found),
        stop_ms=None if None in stops else max(stop for stop in stops if stop is not None),
        tokens_after=max(after) if after else None,
        chunk_tokens=max(one.chunk_tokens for one in found),
        source=watch.source,
        measured_at_ms=clock.now_ms(),
    )


def _watch_of(upstream: Upstream) -> _Watch:
    if upstream.engine in _COUNTERS:
        return _Counters(upstream)
    pid = listener_of(upstream.target.port) if upstream.target.host in LOOPBACK else None
    if pid is None:
        raise StopError("the engine tells no counters, and its process is not to be seen from here")
    return _ProcessTime(pid)


async def _round(upstream: Upstream, watch: _Watch, config: Config, *, streams: int) -> _Round:
    """Start streams, close them, watch the engine."""
    await _until_idle(watch)
    await watch.begin()
    probes = [_start(upstream) for _ in range(streams)]
    try:
        async with asyncio.timeout(START_S):
            await asyncio.gather(*(probe.enough.wait() for probe in probes))
        _check(probes)
        await watch.closing()
        seen = sum(probe.meter.produced for probe in probes)
        closed_ns = clock.now_ns()
        for probe in probes:
            if probe.connection is None or not probe.connection.half_close():
                raise StopError("a stream ended before it could be closed")
        stop_ms = await _stopped_after(watch, probes, closed_ns, drain_s=config.drain_timeout)
    except TimeoutError as error:
        raise StopError(f"no {SEEN_EVENTS} tokens within {START_S:.0f} s") from error
    finally:
        for probe in probes:
            if probe.connection is not None:
                probe.connection.drop()
    made = await watch.made() if stop_ms is not None else None
    return _Round(
        rate_tokens_per_s=max(probe.rate_tokens_per_s for probe in probes),
        stop_ms=stop_ms,
        tokens_after=None if made is None else max(made - seen, 0),
        chunk_tokens=max(1, *(probe.most for probe in probes)),
    )


def _start(upstream: Upstream) -> _Probe:
    fields: dict[str, Any] = {
        "model": upstream.models[0],
        "messages": [{"role": "user", "content": PROMPT}],
        "stream": True,
    }
    if upstream.engine in _COUNTERS:
        fields["ignore_eos"] = True  # else a short answer may end by itself
    parsed = upstream.as_sent(CHAT.parse(encode(fields)))
    body = CHAT.forward_body(parsed, output_limit=OUTPUT_TOKENS, engine=upstream.engine)
    probe = _Probe(CHAT.meter(parsed))
    headers = b"x-request-id: %b\r\n" % clock.new_id().encode("ascii")
    path = CHAT.upstream_path.encode("ascii")
    head = upstream.request_head(path, length=len(body), headers=headers)
    probe.connection = upstream.pool.send(probe, [head, body])
    return probe


def _check(probes: list[_Probe]) -> None:
    for probe in probes:
        if probe.status != 200:
            raise StopError(f"a stream was answered with {probe.status or 'nothing'}")
        if probe.ended.is_set():
            raise StopError("a stream ended before it could be closed")


async def _until_idle(watch: _Watch) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(STOP_S):
            while not await watch.is_idle():  # noqa: ASYNC110 -- an engine tells only when asked
                await asyncio.sleep(POLL_S)


async def _stopped_after(
    watch: _Watch, probes: list[_Probe], closed_ns: int, *, drain_s: float
) -> int | None:
    """Milliseconds from the close until nothing runs; None: it goes on and on."""
    dropped = False
    while (took_ns := clock.now_ns() - closed_ns) < STOP_S * 1_000_000_000:
        if not dropped and took_ns > drain_s * 1_000_000_000:
            dropped = True
            for probe in probes:
                if probe.connection is not None:
                    probe.connection.drop()
        if await watch.is_idle():
            return -(-(clock.now_ns() - closed_ns) // 1_000_000)
        await asyncio.sleep(POLL_S)
    return None
