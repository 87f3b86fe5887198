"""One process or many: a supervisor that forks workers, each with its own book, spool and loop.

All workers listen on one port (`SO_REUSEPORT`): the kernel deals the connections out. A worker that
dies is started again on its own spool, so it finds its leases; its siblings never notice (L7).
Worker 0 has the spool directory itself, the others one below it, so a sidecar may be given more
workers without losing what its journal knows. Given fewer, it gives the journals of the others one
more short life each, in which they take no calls and send home what they still hold.
"""

import ctypes
import gc
import logging
import os
import signal
import socket
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from enforcement.sidecar import clock
from enforcement.sidecar.config import Config, ConfigError
from enforcement.sidecar.configfile import Source
from enforcement.sidecar.pulse import Pulse, Systemd
from enforcement.sidecar.service import FENCED, configure_logs, serve_here

SETTLING_S = 5.0  # a life that only tells what its journal knows
SOON_S = 5.0  # a life shorter than this is followed by a pause
PAUSES_S = (0.2, 30.0)
LAST_WORDS_S = 10.0  # beyond the drain: until a worker that does not go is killed
TICK_S = 0.2
SLEPT_NS = 2_000_000_000  # a gap between two ticks of which workers are not guilty
_PR_SET_PDEATHSIG = 1
_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD})

log = logging.getLogger(__name__)


def serve(source: Source, config: Config) -> int:
    """Run a sidecar until it ends; the exit code."""
    configure_logs()
    if config.workers == 1 and not leftovers(config):
        return serve_here(config, source=source, pulse=Systemd(os.environ).beat)
    return Supervisor(source, config).run()


def config_of(config: Config, worker: int) -> Config:
    """The configuration of one of several workers."""
    spool_dir = config.spool_dir / f"worker-{worker}" if worker else config.spool_dir
    return replace(config, worker=worker, spool_dir=spool_dir)


def leftovers(config: Config) -> list[int]:
    """Workers that are no more and have left a journal."""
    found = []
    for path in config.spool_dir.glob("worker-*"):
        number = path.name.removeprefix("worker-")
        if number.isdigit() and int(number) >= config.workers and _has_journal(path):
            found.append(int(number))
    return sorted(found)


class Supervisor:
    """Starts workers, starts them again, passes signals on, and ends with them."""

    def __init__(self, source: Source, config: Config) -> None:
        self._source = source
        self._config = config
        self._pids: dict[int, int] = {}  # process id → worker
        self._born: dict[int, float] = {}
        self._pauses: dict[int, float] = {}
        self._due: dict[int, float] = {}  # worker → when it is started again
        self._settling: dict[int, float] = {}  # leftover worker → when it is sent home
        self._pulses: dict[int, Pulse] = {}  # by process id
        self._systemd = Systemd(os.environ)
        self._ticked_ns = self._awake_ns = clock.now_ns()
        self._stop_by = 0.0
        self._fenced = False

    def run(self) -> int:
        """Supervise until told to stop, or until no worker may run any more."""
        try:
            reservation = _reserve(self._config.listen_host, self._config.listen_port)
        except OSError as error:
            log.critical("cannot listen: %s", error)
            return 1
        port = reservation.getsockname()[1]
        self._config = replace(self._config, listen_port=port)
        if self._config.workers == 1:
            reservation.close()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        gc.freeze()  # what is loaded stays shared
        for worker in leftovers(self._config):
            log.warning("worker %d is no more: it settles what its journal knows", worker)
            self._settling[worker] = time.monotonic() + SETTLING_S
            self._start(worker)
        for worker in range(self._config.workers):
            self._start(worker)
        while self._pids or self._due:
            found = signal.sigtimedwait(_SIGNALS, TICK_S)
            if found is not None:
                self._heed(signal.Signals(found.si_signo))
            self._tick(time.monotonic())
            self._watch(clock.now_ns())
        reservation.close()
        return FENCED if self._fenced else 0

    def _heed(self, number: signal.Signals) -> None:
        if number is signal.SIGCHLD:
            self._reap()
        elif number is signal.SIGHUP:
            self._tell(signal.SIGHUP)
        else:
            if not self._stop_by:
                wait_s = self._config.shutdown_timeout + LAST_WORDS_S
                self._stop_by = time.monotonic() + wait_s
            self._due.clear()
            self._tell(signal.SIGTERM)

    def _tick(self, now: float) -> None:
        for worker in [worker for worker, due in self._due.items() if due <= now]:
            del self._due[worker]
            self._start(worker)
        for worker in [worker for worker, due in self._settling.items() if due <= now]:
            self._settling[worker] = now + self._config.shutdown_timeout + LAST_WORDS_S
            self._tell(signal.SIGTERM, worker)
        if self._stop_by and now > self._stop_by and self._pids:
            log.error("workers that do not end are killed: %s", sorted(self._pids.values()))
            self._tell(signal.SIGKILL)

    def _watch(self, now_ns: int) -> None:
        """Kill workers whose loop does not turn. Time in which we slept does not count."""
        if now_ns - self._ticked_ns > SLEPT_NS:
            self._awake_ns = now_ns
        self._ticked_ns = now_ns
        self._systemd.beat(now_ns)
        hung_before_ns = now_ns - int(self._config.hang_timeout * 1_000_000_000)
        for pid, worker in self._pids.items():
            last_ns = self._pulses[pid].last_ns
            if self._stop_by or worker in self._settling or not last_ns:
                continue
            if max(last_ns, self._awake_ns) < hung_before_ns:
                log.error("worker %d hangs and is killed", worker)
                self._tell(signal.SIGKILL, worker)

    def _tell(self, number: signal.Signals, only: int | None = None) -> None:
        for pid in [pid for pid, worker in self._pids.items() if only in (None, worker)]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    # ------------------------------------------------------------------ workers

    def _start(self, worker: int) -> None:
        config = config_of(self._newest(), worker)
        if worker in self._settling:
            config = replace(
                config, listen_host="127.0.0.1", listen_port=0, admin_listen="", workers=1
            )
        parent, pulse = os.getpid(), Pulse()
        pid = os.fork()
        if pid == 0:
            self._become_worker(config, parent=parent, pulse=pulse)
        self._pids[pid], self._pulses[pid] = worker, pulse
        self._born[worker] = time.monotonic()
        log.info("worker %d is process %d", worker, pid)

    def _become_worker(self, config: Config, *, parent: int, pulse: Pulse) -> None:
        code = 1
        try:
            with suppress(OSError, AttributeError):  # Linux alone: end with the supervisor
                ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            if os.getppid() == parent:
                code = serve_here(config, source=self._source, pulse=pulse.beat)
        except BaseException:
            log.exception("worker %d failed", config.worker)
        finally:
            os._exit(code)

    def _newest(self) -> Config:
        """The configuration as it is now; the last good one if it cannot be used."""
        try:
            found = self._source.load()
        except ConfigError as error:
            log.error(  # noqa: TRY400 -- the sentence says it all
                "the configuration stays as it was: %s", error
            )
            return self._config
        kept = ("workers", "listen_host", "listen_port", "spool_dir")
        old = {name: getattr(self._config, name) for name in kept}
        self._config = replace(found, **old)
        return self._config

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            worker = self._pids.pop(pid, None)
            if worker is not None:
                self._pulses.pop(pid).close()
                self._ended(worker, os.waitstatus_to_exitcode(status))

    def _ended(self, worker: int, code: int) -> None:
        if self._stop_by:
            return
        if self._settling.pop(worker, None) is not None:
            log.info("worker %d has settled: its life ended with %d", worker, code)
            return
        if code == FENCED:
            log.critical("worker %d is fenced and stays down", worker)
            self._fenced = True
            return
        now = time.monotonic()
        least, most = PAUSES_S
        pause = 0.0
        if now - self._born[worker] < SOON_S:
            pause = min(max(self._pauses.get(worker, 0.0) * 2, least), most)
        self._pauses[worker] = pause
        self._due[worker] = now + pause
        log.error("worker %d ended with %d; again in %.1f s", worker, code, pause)


def _has_journal(path: Path) -> bool:
    return any(journal.stat().st_size for journal in path.glob("journal-*.log"))


def _reserve(host: str, port: int) -> socket.socket:
    """Bind the port, unless a stranger has it; it receives nothing, since it never listens.

    Raises:
        OSError: the port is taken.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    if port:
        with socket.socket(family, kind, protocol) as probe:  # fails if another sidecar shares it
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    reservation = socket.socket(family, kind, protocol)
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reservation.bind(address)
    return reservation
