"""`comptroller sidecar doctor`: what must be true before a sidecar can keep its promises.

Each check says what it looked at, how that is, and what to do. Nothing is changed but the file of
measured stops, and a file in the spool directory that is removed again.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import msgspec

from enforcement.rules.dialects import CHAT
from enforcement.rules.margins import Stop
from enforcement.sidecar import clock
from enforcement.sidecar.config import Config
from enforcement.sidecar.controlclient import ControlClient, ControlError
from enforcement.sidecar.engines import Upstream
from enforcement.sidecar.margins import write_stops
from enforcement.sidecar.stopmeasure import LOOPBACK, StopError, measure_stop

SLOW_SYNC_MS = 100
MEMORY_FILESYSTEMS = ("tmpfs", "ramfs", "overlay")
SWEEP_S = 0.1


class State(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


class Finding(NamedTuple):
    """One check. `subject`: what was looked at."""

    check: str
    subject: str
    state: State
    detail: str


async def examine(
    config: Config, *, measure: bool, said: Callable[[Finding], None] = lambda _: None
) -> list[Finding]:
    """All checks, one after the other; `said` hears each at once."""
    found: list[Finding] = []

    def note(finding: Finding) -> None:
        found.append(finding)
        said(finding)

    note(check_clock())
    for finding in check_spool(config.spool_dir):
        note(finding)
    note(await check_control(config))
    stops = []
    for target in config.upstreams:
        upstream = Upstream(target, config)
        sweeping = asyncio.create_task(_sweep(upstream))
        try:
            for finding in await check_node(upstream):
                note(finding)
            near = target.local or target.host in LOOPBACK  # a paid API is not made to work
            if measure and near and upstream.healthy:
                finding, stop = await check_stop(upstream, config)
                note(finding)
                stops += [stop] if stop is not None else []
        finally:
            sweeping.cancel()
            upstream.pool.close()
    if stops:
        note(_keep(config.spool_dir, stops))
    return found


async def _sweep(upstream: Upstream) -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        upstream.pool.sweep(clock.now_ns())


# ---------------------------------------------------------------------------- this machine


def check_clock() -> Finding:
    """Leases live on a clock that goes on while the machine sleeps (L3)."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        detail = "no CLOCK_BOOTTIME here: a machine that sleeps would keep its leases too long"
        return Finding("clock", "CLOCK_BOOTTIME", State.FAILED, detail)
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    time.sleep(0.01)
    forward = time.clock_gettime_ns(time.CLOCK_BOOTTIME) > before
    detail = "goes forward, sleep included" if forward else "stands still"
    return Finding("clock", "CLOCK_BOOTTIME", State.OK if forward else State.FAILED, detail)


def check_spool(spool_dir: Path) -> list[Finding]:
    """The journal must be written, synced, and outlive the process (L4, L6)."""
    subject = str(spool_dir)
    try:
        spool_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        took_ms = _timed_sync(spool_dir)
    except OSError as error:
        return [Finding("spool", subject, State.FAILED, f"cannot be written: {error.strerror}")]
    slow = took_ms > SLOW_SYNC_MS
    detail = f"written and synced in {took_ms} ms"
    findings = [Finding("spool", subject, State.WARNING if slow else State.OK, detail)]
    kind = filesystem_of(spool_dir)
    lost = kind in MEMORY_FILESYSTEMS or str(spool_dir.resolve()).startswith("/tmp/")  # noqa: S108
    detail = f"{kind or 'unknown file system'}"
    if lost:
        detail += ": does not outlive a restart; use a volume that does"
    findings.append(Finding("spool volume", subject, State.WARNING if lost else State.OK, detail))
    return findings


def _timed_sync(folder: Path) -> int:
    """Milliseconds that a write to stable storage takes here.

    Raises:
        OSError: it fails.
    """
    descriptor, name = tempfile.mkstemp(prefix="doctor-", dir=folder)
    try:
        os.write(descriptor, b"x" * 4096)
        begun_ns = clock.now_ns()
        os.fdatasync(descriptor)
        return (clock.now_ns() - begun_ns) // 1_000_000
    finally:
        os.close(descriptor)
        Path(name).unlink()


def filesystem_of(path: Path) -> str:
    """The kind of file system that a path is on; empty where that is not told."""
    best, kind = "", ""
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    resolved = str(path.resolve())
    for line in mounts:
        _, point, found, *_ = line.split(" ")
        inside = resolved == point or resolved.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, found
    return kind


# ---------------------------------------------------------------------------- the control plane


async def check_control(config: Config) -> Finding:
    """It answers, and takes the token. To watch changes nothing there; a Hello would."""
    client = ControlClient(config.control_url, config.token, tls=config.control_tls)
    begun_ns = clock.now_ns()
    try:
        await client.check(f"watch?spool={clock.new_id()}")
    except ControlError as error:
        return Finding("control plane", config.control_url, State.FAILED, str(error))
    took_ms = (clock.now_ns() - begun_ns) // 1_000_000
    detail = f"answers within {took_ms} ms, and takes the token"
    return Finding("control plane", config.control_url, State.OK, detail)


# ---------------------------------------------------------------------------- serving nodes


async def check_node(upstream: Upstream) -> list[Finding]:
    """What is there, how far it sees, whether prompts are counted, whether streams tell usage."""
    await upstream.probe()
    name = upstream.name
    if not upstream.healthy:
        return [Finding("node", name, State.FAILED, upstream.last_error)]
    engine = f"{upstream.engine.value} {upstream.version}".strip()
    detail = f"{engine}, {len(upstream.models)} models, at {upstream.target.base_url}"
    found = [Finding("node", name, State.OK, detail)]
    if not upstream.probed:
        return found
    window = upstream.context_window
    if window is None:
        detail = "not told: calls under hard dollar or token budgets need --context-window"
        found.append(Finding("context window", name, State.FAILED, detail))
    else:
        found.append(Finding("context window", name, State.OK, f"{window} tokens"))
    found.append(await _judged("prompt counts", name, _counts(upstream)))
    found.append(await _judged("stream usage", name, _usage(upstream)))
    return found


async def _judged(check: str, name: str, work: Awaitable[tuple[State, str]]) -> Finding:
    try:
        state, detail = await work
    except (OSError, TimeoutError, ValueError, msgspec.MsgspecError) as error:
        state, detail = State.FAILED, str(error) or type(error).__name__
    return Finding(check, name, state, detail)


async def _counts(upstream: Upstream) -> tuple[State, str]:
    if not upstream.counts_prompts:
        return State.WARNING, "no tokenize endpoint: holds take the whole context window"
    parsed = CHAT.parse(_question(upstream, stream=False))
    count = await upstream.count_prompt(CHAT, parsed)
    if count is None:
        return State.FAILED, "the tokenize endpoint gives no count"
    return State.OK, f"exact, before the call ({count} tokens for a short one)"


async def _usage(upstream: Upstream) -> tuple[State, str]:
    """One stream of a few tokens, read whole."""
    parsed = upstream.as_sent(CHAT.parse(_question(upstream, stream=True)))
    body = CHAT.forward_body(parsed, output_limit=4, engine=upstream.engine)
    status, answer = await upstream.fetch("POST", CHAT.upstream_path, body, within=60)
    if status != 200:
        return State.FAILED, f"a short stream is answered with {status}"
    meter = CHAT.meter(parsed)
    meter.feed(answer)
    meter.end()
    if meter.usage is None:
        return State.WARNING, "streams tell no usage: charges are our own count, marked estimated"
    return State.OK, f"told: {meter.usage.input_tokens} + {meter.usage.output_tokens} tokens"


def _question(upstream: Upstream, *, stream: bool) -> bytes:
    message = {"role": "user", "content": "Say one word."}
    fields = {"model": upstream.models[0], "messages": [message], "stream": stream}
    return bytes(msgspec.json.encode(fields))


async def check_stop(upstream: Upstream, config: Config) -> tuple[Finding, Stop | None]:
    """How the engine stops when its streams are cut."""
    name = upstream.name
    try:
        stop = await measure_stop(upstream, config)
    except StopError as error:
        detail = f"not measured: {error}; metered budgets hold strictly there"
        return Finding("stop", name, State.WARNING, detail), None
    margin = stop.margin_tokens
    if margin is None:
        detail = "did not stop within 10 s of a cut: metered budgets hold strictly there"
        return Finding("stop", name, State.FAILED, detail), stop
    after = "" if stop.tokens_after is None else f", {stop.tokens_after} tokens after the cut"
    detail = (
        f"{stop.stop_ms} ms until free{after}, at {stop.rate_tokens_per_s} tokens/s"
        f" ({stop.streams} streams, by {stop.source}): margin {margin} tokens"
    )
    if os.getloadavg()[0] > (os.cpu_count() or 1):
        detail += "; this machine is busy: measure again when it is not"
        return Finding("stop", name, State.WARNING, detail), stop
    return Finding("stop", name, State.OK, detail), stop


def _keep(spool_dir: Path, stops: list[Stop]) -> Finding:
    try:
        path = write_stops(spool_dir, stops)
    except OSError as error:
        return Finding("margins", str(spool_dir), State.FAILED, f"not kept: {error.strerror}")
    return Finding("margins", str(path), State.OK, "kept; sidecars take them up")
