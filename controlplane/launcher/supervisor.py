"""Keep the parts running: start in order, restart with back-off, stop in reverse.

All children are started by the main thread: the kernel's "signal me when my parent dies" means the
thread that started the child.
"""

import asyncio
import os
import signal
import socket
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controlplane.launcher.errors import LauncherError
from controlplane.launcher.privileges import Identity, child_options
from controlplane.launcher.probes import Probe, Start
from controlplane.launcher.state import PART_VARIABLE

POLL_S = 0.05
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0
STEADY_S = 60.0  # a part that ran so long starts again with the shortest pause
STOP_TIMEOUT_S = 12
ALIVE_AT = "/healthz"


@dataclass(kw_only=True)
class Part:
    """One process: how to start it, when it is ready, how to stop it."""

    name: str
    title: str
    command: list[str]
    environment: Mapping[str, str]
    log: Path
    identity: Identity | None
    ready: Callable[[Start], Probe]
    farewell: signal.Signals = signal.SIGTERM
    vital: bool = False  # everything stops when it dies
    start_timeout_s: int = 60
    address: str = ""
    alive_at: str = ALIVE_AT  # a path under the address: it answers while the part lives
    reservation: socket.socket | None = None  # keeps the part's port until its first start
    # what the supervisor knows
    process: Process | None = None
    state: str = "waiting"
    restarts: int = 0
    began: float = 0.0
    stopping: bool = False
    ready_after_s: float = 0.0
    watcher: asyncio.Task[None] | None = field(default=None, repr=False)

    def facts(self) -> dict[str, Any]:
        """What `status` shows."""
        return {
            "part": self.name,
            "state": self.state,
            "pid": self.process.pid if self.process else None,
            "restarts": self.restarts,
            "address": self.address,
            "alive_at": self.alive_at,
            "started_at": self.began,
            "log": str(self.log),
        }


class Supervisor:
    """The parts in the order of their start. `on_change` hears of every change of state."""

    def __init__(self, on_change: Callable[[Part, str], None]) -> None:
        self.parts: list[Part] = []
        self.stop_reason: str | None = None
        self._on_change = on_change
        self._stop = asyncio.Event()

    async def start(self, part: Part) -> None:
        """Start a part, wait until it is ready, and watch it from then on."""
        self.parts.append(part)
        await self._await_ready(part, await self._spawn(part))
        part.watcher = asyncio.create_task(self._watch(part), name=f"watch-{part.name}")

    async def wait(self) -> str:
        """Until `request_stop` or the end of a vital part. The answer is the reason."""
        await self._stop.wait()
        return self.stop_reason or "asked"

    def request_stop(self, reason: str) -> None:
        if self.stop_reason is None:
            self.stop_reason = reason
        self._stop.set()

    async def stop_all(self) -> None:
        """Stop in reverse order, each part with time to finish what it does."""
        for part in reversed(self.parts):
            part.stopping = True
            if part.watcher is not None:
                part.watcher.cancel()
            await self._end(part)

    async def _spawn(self, part: Part) -> Start:
        log_bytes = part.log.stat().st_size if part.log.exists() else 0
        if part.reservation is not None:
            part.reservation.close()
            part.reservation = None
        try:
            with part.log.open("ab") as sink:
                part.process = await asyncio.create_subprocess_exec(
                    *part.command,
                    stdin=DEVNULL,
                    stdout=sink,
                    stderr=sink,
                    cwd="/",
                    env={**part.environment, PART_VARIABLE: part.name},
                    **child_options(part.identity, farewell=part.farewell),
                )
        except OSError as error:
            raise LauncherError(f"{part.title} cannot be started: {error}") from error
        part.began = time.time()
        part.state = "starting"
        self._on_change(part, "starting")
        return Start(part.process.pid, log_bytes)

    async def _await_ready(self, part: Part, start: Start) -> None:
        probe = part.ready(start)
        began = time.monotonic()
        while True:
            answered = await probe()
            if part.process is None or part.process.returncode is not None:
                raise LauncherError(f"{part.title} ended at its start:\n{log_tail(part.log)}")
            if answered:
                break
            if time.monotonic() - began > part.start_timeout_s:
                raise LauncherError(f"{part.title} is not ready:\n{log_tail(part.log)}")
            await asyncio.sleep(POLL_S)
        part.ready_after_s = time.monotonic() - began
        part.state = "ready"
        self._on_change(part, "ready")

    async def _watch(self, part: Part) -> None:
        pause_s = BACKOFF_FIRST_S
        while part.process is not None:
            code = await part.process.wait()
            clear_group(part)
            if part.vital:
                part.state = "ended"
                self._on_change(part, f"ended ({words_for(code)})")
                self.request_stop(f"{part.title} ended ({words_for(code)})")
                return
            pause_s = BACKOFF_FIRST_S if time.time() - part.began > STEADY_S else pause_s
            part.state = "restarting"
            self._on_change(part, f"ended ({words_for(code)}), starts again in {pause_s:.1f} s")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, BACKOFF_MAX_S)
            part.restarts += 1
            try:
                await self._await_ready(part, await self._spawn(part))
            except LauncherError as error:
                self._on_change(part, str(error))
                await self._end(part)

    async def _end(self, part: Part) -> None:
        process = part.process
        if process is None:
            return
        if process.returncode is None:
            process.send_signal(part.farewell)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            self._on_change(part, f"did not stop within {STOP_TIMEOUT_S} s and was killed")
        clear_group(part)
        await process.wait()
        if part.stopping:
            part.state = "stopped"
            self._on_change(part, "stopped")


def clear_group(part: Part) -> None:
    """End what a part has left behind in its process group (a killed worker's beat, say)."""
    if part.process is None:
        return
    try:
        os.killpg(part.process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # nobody is left


def words_for(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def log_tail(log: Path, *, lines: int = 12) -> str:
    """The last words of a part, indented, for the person who must find out what is wrong."""
    try:
        text = log.read_text(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])
