"""One book at work: its spool, its nodes, its talk with the control plane. No listener.

The sidecar puts a listener in front of it, the in-process mode a serving node's own.
"""

import asyncio
import logging
import socket
from collections.abc import Callable

import msgspec

from enforcement.rules import records
from enforcement.rules.spoolframes import RECORD
from enforcement.rules.verdicts import Cut
from enforcement.rules.wire import UsageEvent
from enforcement.sidecar import clock
from enforcement.sidecar.config import Config
from enforcement.sidecar.control import Control, resident_bytes
from enforcement.sidecar.controlclient import ControlClient
from enforcement.sidecar.desk import Desk, Unsent
from enforcement.sidecar.engines import Upstream
from enforcement.sidecar.journal import Journal
from enforcement.sidecar.routing import Router
from enforcement.sidecar.spooling import kernel_boot_id, restatement, revive
from enforcement.sidecar.telemetry import telemetry_of

SWEEP_S = 0.1
UNWELL_S = 5.0  # between looks at the nodes while one of them does not answer
FORGET_AFTER_MS = 24 * 3_600_000
MAX_RESTATED = 20_000  # a longer backlog of events stays where it is until it is told
VERSION = "0.1.0"
TELL_S = 2.0  # for the last spans and metrics, at the end

log = logging.getLogger(__name__)


class Worker:
    """One book. `on_fenced` is called when another life of its spool has taken over.

    Raises:
        SpoolError: its spool cannot be used.
    """

    def __init__(
        self, config: Config, upstreams: tuple[Upstream, ...], *, on_fenced: Callable[[], None]
    ) -> None:
        self.config = config
        self.fenced = False
        self._on_fenced = on_fenced
        self._boot_id = kernel_boot_id()
        self._journal = Journal(
            config.spool_dir,
            quota_bytes=config.spool_quota_bytes,
            segment_bytes=config.spool_segment_bytes,
        )
        revived = revive(
            self._journal,
            self._journal.open(),
            name=config.book or f"{socket.gethostname()}/{config.worker}",
            boot_id=self._boot_id,
        )
        self._journal.trust_again()
        self.desk = Desk(
            config,
            book=revived.book,
            journal=self._journal,
            router=Router(upstreams, config.routes),
        )
        self.desk.telemetry = telemetry_of(config, version=VERSION)
        if self.desk.telemetry is not None:
            self.desk.metrics.telemetry = self.desk.telemetry.counts
        self.desk.unsent.extend(
            Unsent.of(self._journal.sequence, event) for event in revived.unsent
        )
        self._client = ControlClient(config.control_url, config.token, tls=config.control_tls)
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

    @property
    def spool(self) -> str:
        return self._journal.spool

    def _be_fenced(self) -> None:
        log.critical("another life of this spool has taken over: this one may not spend any more")
        self.fenced = True
        self._on_fenced()

    def configure(self, config: Config) -> None:
        """Take another configuration, whose nodes have been taken up already."""
        self.config = config
        self._client.configure(config.token, tls=config.control_tls)
        self._control.upstreams_changed()

    # ------------------------------------------------------------------ running

    async def talk(self) -> None:
        """First look at the nodes, then meet the control plane; then keep doing both."""
        await self._probe()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._control.run())
            group.create_task(self._keep_probing())

    async def _keep_probing(self) -> None:
        while True:
            await asyncio.sleep(self._probe_pause())
            if await self._probe():
                self._control.upstreams_changed()

    def _probe_pause(self) -> float:
        """Look more often while a node has told nothing yet, or does not answer."""
        router = self.desk.router
        if not router.complete:
            return 1.0
        well = all(node.healthy for node in router.upstreams)
        return self.config.probe_interval if well else min(self.config.probe_interval, UNWELL_S)

    async def _probe(self) -> bool:
        """Ask all nodes what they are; whether any changed."""
        upstreams = self.desk.router.upstreams
        before = [upstream.info() for upstream in upstreams]
        await asyncio.gather(*(upstream.probe() for upstream in upstreams))
        self.desk.router.refresh()
        return before != [upstream.info() for upstream in upstreams]

    async def sweep(self, clients: Callable[[int], None]) -> None:
        """Look for what is overdue, for ever. `clients`: looks at the clients' connections."""
        while True:
            now_ns = clock.now_ns()
            clients(now_ns)
            for upstream in self.desk.router.every():
                upstream.pool.sweep(now_ns)
            for live in list(self.desk.live):
                live.check_deadline(now_ns)
            self._journal.retry()
            if self._journal.full and len(self.desk.unsent) < MAX_RESTATED:
                self.restate()
            await asyncio.sleep(SWEEP_S)

    def restate(self) -> None:
        """Begin a new journal segment with all that still matters."""
        desk = self.desk
        desk.commit()
        desk.book.lots.forget(before_ms=clock.now_ms() - FORGET_AFTER_MS)
        running = dict(found for live in desk.live if (found := live.presumed_event()) is not None)
        said = restatement(
            desk.book,
            running=running,
            unsent=[msgspec.json.decode(unsent.event, type=UsageEvent) for unsent in desk.unsent],
            boot_id=self._boot_id,
        )
        if self._journal.restate(said):
            for unsent in desk.unsent:
                unsent.sequence = self._journal.sequence

    # ------------------------------------------------------------------ ending

    async def drain(self) -> None:
        """Take no new request, let running ones end, cut those that do not."""
        self.desk.closing = True
        deadline_ns = clock.now_ns() + int(self.config.shutdown_timeout * 1_000_000_000)
        while not self.fenced and clock.now_ns() < deadline_ns and await self._still_live():
            pass
        for live in list(self.desk.live):
            live.cut(Cut("shutting_down", "The sidecar is shutting down"))
        for _ in range(30):
            if not await self._still_live():
                break

    async def _still_live(self) -> bool:
        if self.desk.live:
            await asyncio.sleep(0.02)
        return bool(self.desk.live)

    async def say_goodbye(self) -> None:
        """Send home what is left. What ran `talk` and `sweep` has ended."""
        if not self.fenced:
            await self._control.say_goodbye()
        if not self.desk.live:
            self._journal.append([(RECORD, records.encode(records.Closed()))])
        for upstream in self.desk.router.every():
            upstream.pool.close()

    def close(self) -> None:
        """Close the spool and the way home."""
        if self.desk.telemetry is not None:
            self.desk.telemetry.close(within_s=TELL_S)
        self._client.close()
        self._journal.close()

    # ------------------------------------------------------------------ metrics

    def _register_gauges(self) -> None:
        desk, gauge = self.desk, self.desk.metrics.gauge
        gauge("live_requests", "Requests that are running", lambda: len(desk.live))
        gauge("waiting_requests", "Requests that wait for a grant", lambda: len(desk.waiting))
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
        nodes, by_upstream = desk.router, desk.metrics.gauge_by_upstream
        by_upstream(
            "upstream_running",
            "Calls that an upstream has",
            lambda: {node.name: node.running for node in nodes.upstreams},
        )
        by_upstream(
            "upstream_waiting",
            "Calls that wait for a slot of an upstream",
            lambda: {n.name: len(n.slots.queue) for n in nodes.upstreams if n.slots},
        )
        by_upstream(
            "upstream_available",
            "Whether an upstream is healthy and not left alone",
            lambda: {node.name: node.available(clock.now_ns()) for node in nodes.upstreams},
        )
        gauge(
            "ready", "Whether calls are served", lambda: desk.ready(now_ns=clock.now_ns()) is None
        )
