"""The life of a sidecar: open the spool, listen, keep in step, drain, go.

`run` returns the exit code: 0 after an orderly end, 1 if the spool or the port cannot be had,
3 if another life of this spool has taken over.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
from contextlib import suppress

from enforcement.rules import records
from enforcement.rules.verdicts import Cut
from enforcement.sidecar import clock
from enforcement.sidecar.admission import Router
from enforcement.sidecar.config import Config
from enforcement.sidecar.control import Control, resident_bytes
from enforcement.sidecar.controlclient import ControlClient
from enforcement.sidecar.desk import Desk, Unsent
from enforcement.sidecar.engines import Upstream
from enforcement.sidecar.front import ClientConnection, Front
from enforcement.sidecar.journal import RECORD, Journal, SpoolError
from enforcement.sidecar.routes import Routes
from enforcement.sidecar.spooling import kernel_boot_id, restatement, revive

SWEEP_S = 0.1
FORGET_AFTER_MS = 24 * 3_600_000
BACKLOG = 4096
MAX_RESTATED = 20_000  # a longer backlog of events stays where it is until it is told
VERSION = "0.1.0"

log = logging.getLogger(__name__)


class Service:
    """One worker: one listener, one book, one spool."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.port = 0
        self._stop = asyncio.Event()
        self._fenced = False
        self._boot_id = kernel_boot_id()
        self._journal = Journal(
            config.spool_dir,
            quota_bytes=config.spool_quota_bytes,
            segment_bytes=config.spool_segment_bytes,
        )
        revived = revive(
            self._journal,
            self._journal.open(),
            name=config.book or f"{socket.gethostname()}/0",
            boot_id=self._boot_id,
        )
        self._journal.trust_again()
        router = Router(tuple(Upstream(target, config) for target in config.upstreams))
        self.desk = Desk(config, book=revived.book, journal=self._journal, router=router)
        self.desk.unsent.extend(Unsent(self._journal.sequence, event) for event in revived.unsent)
        self._front = Front(config, Routes(self.desk))
        self._client = ControlClient(config.control_url, config.token)
        self.desk.post = self._client.post
        self._control = Control(
            self.desk,
            self._client,
            boot=clock.new_id(),
            kernel_boot_id=self._boot_id,
            clean=revived.recovery.clean,
            version=VERSION,
            on_fenced=self._be_fenced,
        )
        self._register_gauges()

    def stop(self) -> None:
        """Begin an orderly end."""
        self._stop.set()

    def _be_fenced(self) -> None:
        log.critical("another life of this spool has taken over: this one may not spend any more")
        self._fenced = True
        self._stop.set()

    # ------------------------------------------------------------------ running

    async def run(self) -> int:
        """Serve until told to stop."""
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                lambda: ClientConnection(self._front),
                self.config.listen_host,
                self.config.listen_port,
                backlog=BACKLOG,
            )
        except OSError as error:
            log.critical("cannot listen: %s", error)
            self._journal.close()
            return 1
        self.port = server.sockets[0].getsockname()[1]
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            with suppress(NotImplementedError, ValueError, RuntimeError):
                loop.add_signal_handler(signal_number, self.stop)
        log.info(
            "listening on %s:%d, spool %s", self.config.listen_host, self.port, self._journal.spool
        )
        tasks = [
            loop.create_task(self._sweep(), name="sweep"),
            loop.create_task(self._talk(), name="talk"),
        ]
        stopping = loop.create_task(self._stop.wait())
        _settle_memory()
        await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        failed = [task for task in tasks if task.done() and not task.cancelled()]
        for task in failed:
            log.critical("%s ended", task.get_name(), exc_info=task.exception())
        await self._shut_down(server, tasks)
        return 3 if self._fenced else 1 if failed else 0

    async def _talk(self) -> None:
        """First look at the nodes, then meet the control plane; then keep doing both."""
        await self._probe()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._control.run())
            group.create_task(self._keep_probing())

    async def _keep_probing(self) -> None:
        while True:
            complete = self.desk.router.complete
            await asyncio.sleep(self.config.probe_interval if complete else 1.0)
            if await self._probe():
                self._control.upstreams_changed()

    async def _probe(self) -> bool:
        """Ask all nodes what they are; whether any changed."""
        upstreams = self.desk.router.upstreams
        before = [upstream.info() for upstream in upstreams]
        await asyncio.gather(*(upstream.probe() for upstream in upstreams))
        self.desk.router.refresh()
        return before != [upstream.info() for upstream in upstreams]

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now_ns = clock.now_ns()
            self._front.sweep(now_ns)
            for upstream in self.desk.router.upstreams:
                upstream.pool.sweep(now_ns)
            for live in list(self.desk.live):
                live.check_deadline(now_ns)
            self._journal.retry()
            if self._journal.full and len(self.desk.unsent) < MAX_RESTATED:
                self.restate()

    def restate(self) -> None:
        """Begin a new journal segment with all that still matters."""
        desk = self.desk
        desk.commit()
        desk.book.lots.forget(before_ms=clock.now_ms() - FORGET_AFTER_MS)
        running = dict(found for live in desk.live if (found := live.presumed_event()) is not None)
        said = restatement(
            desk.book,
            running=running,
            unsent=[unsent.event for unsent in desk.unsent],
            boot_id=self._boot_id,
        )
        if self._journal.restate(said):
            for unsent in desk.unsent:
                unsent.sequence = self._journal.sequence

    # ------------------------------------------------------------------ ending

    async def _shut_down(self, server: asyncio.Server, tasks: list[asyncio.Task[None]]) -> None:
        """Take no new request, let running ones end, then send home what is left."""
        self.desk.closing = self._front.closing = True
        server.close()
        deadline_ns = clock.now_ns() + int(self.config.shutdown_timeout * 1_000_000_000)
        for connection in list(self._front.connections):
            if not connection.busy:
                connection.close()
        while not self._fenced and clock.now_ns() < deadline_ns and await self._still_live():
            pass
        self._end_rest()
        for _ in range(30):
            if not await self._still_live():
                break
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not self._fenced:
            await self._control.say_goodbye()
        if not self.desk.live:
            self._journal.append([(RECORD, records.encode(records.Closed()))])
        for upstream in self.desk.router.upstreams:
            upstream.pool.close()
        for connection in list(self._front.connections):
            connection.close()
        self._client.close()
        self._journal.close()

    async def _still_live(self) -> bool:
        if self.desk.live:
            await asyncio.sleep(0.02)
        return bool(self.desk.live)

    def _end_rest(self) -> None:
        for live in list(self.desk.live):
            live.cut(Cut("shutting_down", "The sidecar is shutting down"))

    # ------------------------------------------------------------------ metrics

    def _register_gauges(self) -> None:
        desk, gauge = self.desk, self.desk.metrics.gauge
        gauge("live_requests", "Requests that are running", lambda: len(desk.live))
        gauge("waiting_requests", "Requests that wait for a grant", lambda: len(desk.waiting))
        gauge("connections", "Client connections", lambda: len(self._front.connections))
        gauge("lots", "Leases in hand", lambda: len(desk.book.lots.by_lease))
        gauge("unsent_events", "Usage events not acknowledged yet", lambda: len(desk.unsent))
        gauge("journal_bytes", "Size of the journal", lambda: self._journal.total_bytes)
        gauge("resident_bytes", "Memory of the process", resident_bytes)
        gauge("policy_revision", "Revision of the policy", lambda: desk.book.policy_revision)
        gauge(
            "policy_seconds_left",
            "Until the policy lease runs out",
            lambda: (desk.book.policy_deadline_ns - clock.now_ns()) // 1_000_000_000,
        )
        gauge(
            "ready", "Whether calls are served", lambda: desk.ready(now_ns=clock.now_ns()) is None
        )


def _settle_memory() -> None:
    """What was loaded stays: the collector need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def serve(config: Config) -> int:
    """Run a sidecar until it ends; the exit code."""
    logging.basicConfig(
        level=os.environ.get("COMPTROLLER_LOG_LEVEL", "INFO").upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        return _run(config)
    except SpoolError as error:
        log.critical("%s", error)
        return 1


def _run(config: Config) -> int:
    async def main() -> int:
        return await Service(config).run()

    try:
        import uvloop  # noqa: PLC0415 -- absent on some platforms
    except ImportError:
        return asyncio.run(main())
    return int(uvloop.run(main()))
