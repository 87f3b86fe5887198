"""The only client of the control plane: Hello, Sync, Usage and Watch.

1. A Sync goes out at once when somebody waits for a grant or an order is to be acknowledged,
   within a tenth of a second when there is something to report, and as a heartbeat otherwise.
2. A lease may be used only after its grant is on stable storage: the answer's waiters are told
   after an `fdatasync` in a thread.
3. Nothing here fails a request: while the control plane is away, what was leased still serves.
"""

import asyncio
import logging
import random
from collections.abc import Callable

import msgspec

from enforcement.rules.lots import BalanceKey
from enforcement.rules.policy import PolicySnapshot
from enforcement.rules.spoolframes import ACKED
from enforcement.rules.wire import (
    Header,
    Health,
    RefusalCount,
    SessionInfo,
    Sync,
    SyncAnswer,
    UpstreamInfo,
    UsageAnswer,
    Welcome,
    usage_message,
)
from enforcement.sidecar import clock
from enforcement.sidecar.controlclient import ControlClient, ControlError, PayloadTooLargeError
from enforcement.sidecar.desk import DIRTY_MS, Desk, Unsent
from enforcement.sidecar.orders import Orders
from enforcement.sidecar.policy import PolicyView

MAX_SYNCS = 8
MAX_SESSIONS = 500
MAX_EVENTS = 2_000
USAGE_PAUSE_S = 0.2
RETRY_S = (0.1, 5.0)
WATCH_SILENCE_S = 10.0

log = logging.getLogger(__name__)


class Control:
    """Keeps a book in step with the ledger."""

    def __init__(
        self,
        desk: Desk,
        client: ControlClient,
        *,
        boot: str,
        kernel_boot_id: str,
        clean: bool,
        version: str,
        on_fenced: Callable[[], None],
    ) -> None:
        self._desk = desk
        self._client = client
        self._boot = boot
        self._kernel_boot_id = kernel_boot_id
        self._clean = clean
        self._version = version
        self._on_fenced = on_fenced
        self._orders = Orders(desk)
        self._wake = asyncio.Event()
        self._usage_wake = asyncio.Event()
        self._dirty: asyncio.TimerHandle | None = None
        self._syncs: set[asyncio.Task[None]] = set()
        self._failures = 0
        self._broken: BaseException | None = None
        self._kept_refusals: list[RefusalCount] = []  # said, not yet acknowledged
        self._events_limit = MAX_EVENTS
        self._passed_over: dict[int, Unsent] = {}  # too large alone; by identity
        self._sent_to = 0  # the highest sequence of an acknowledged event
        self._acked = 0  # as the journal knows it
        desk.wake = self.wake

    def wake(self, at_once: bool) -> None:
        """There is something to say."""
        if at_once:
            self._wake.set()
        elif self._dirty is None:
            loop = asyncio.get_running_loop()
            self._dirty = loop.call_later(DIRTY_MS / 1000, self._be_heard)

    def _be_heard(self) -> None:
        self._dirty = None
        self._wake.set()
        if self._desk.unsent or self._desk.refusals:
            self._usage_wake.set()

    def upstreams_changed(self) -> None:
        """Introduce the nodes again: only a Hello names them."""
        self._desk.book.needs_hello = True
        self._wake.set()

    # ------------------------------------------------------------------ loops

    async def run(self) -> None:
        """Talk for as long as the sidecar lives."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_in_step(), name="sync")
            tasks.create_task(self._send_usage(), name="usage")
            tasks.create_task(self._watch(), name="watch")

    async def _keep_in_step(self) -> None:
        while True:
            if (
                self._broken is not None
            ):  # a book that contradicts itself may not go on (fail closed)
                raise self._broken
            if self._desk.book.needs_hello:
                await self._hello()
                continue
            try:
                async with asyncio.timeout(self._desk.config.heartbeat):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            if len(self._syncs) >= MAX_SYNCS:
                await asyncio.wait(self._syncs, return_when=asyncio.FIRST_COMPLETED)
            self._start_sync()
            if self._failures:
                await asyncio.wait(self._syncs)
                await self._pause()

    def _start_sync(self) -> None:
        task = asyncio.get_running_loop().create_task(self.sync_once())
        self._syncs.add(task)
        task.add_done_callback(self._sync_ended)

    def _sync_ended(self, task: asyncio.Task[None]) -> None:
        self._syncs.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._broken = task.exception()
            self._wake.set()

    async def _pause(self) -> None:
        """Wait longer after each failure in a row, with jitter."""
        least, most = RETRY_S
        pause = min(most, least * 2 ** min(self._failures, 10))
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 -- jitter

    # ------------------------------------------------------------------ hello

    async def _hello(self) -> None:
        book = self._desk.book
        hello = book.make_hello(
            boot=self._boot,
            kernel_boot_id=self._kernel_boot_id,
            clean=self._clean,
            upstreams=self.upstream_infos(),
            version=self._version,
        )
        sent_ns = clock.now_ns()
        try:
            answer = await self._client.post("hello", msgspec.json.encode(hello))
            welcome = msgspec.json.decode(answer, type=Welcome)
        except (ControlError, msgspec.MsgspecError) as error:
            self._failed("hello", error)
            await self._pause()
            return
        self._failures = 0
        effects = book.on_welcome(
            welcome,
            sent_ns=sent_ns,
            now_ns=clock.now_ns(),
            kernel_boot_id=self._kernel_boot_id,
        )
        if effects.rehello:
            log.warning("the ledger begins anew and asks for every lease of the last day")
            return
        if self.upstream_infos() != hello.upstreams:
            book.needs_hello = True  # a node was found while this one was under way
        self._desk.commit()
        if effects.policy is not None:
            self._take_policy(effects.policy)
            self._orders.enforce_states()
            self._orders.enforce_budgets()
        self._wake.set()
        self._usage_wake.set()
        log.info("in step with the ledger: epoch %d, policy %d", book.epoch, book.policy_revision)

    def _take_policy(self, policy: PolicySnapshot) -> None:
        desk = self._desk
        desk.view = PolicyView(policy, previous=desk.view, books=desk.config.workers)
        desk.router.drain(policy.draining)

    def upstream_infos(self) -> list[UpstreamInfo]:
        return [upstream.info() for upstream in self._desk.router.upstreams]

    def _failed(self, what: str, error: Exception) -> None:
        self._failures += 1
        self._desk.metrics.syncs["failed"] += 1
        if self._failures in (1, 10, 100):
            log.warning("%s failed (%d in a row): %s", what, self._failures, error)

    # ------------------------------------------------------------------ sync

    async def sync_once(self) -> None:
        """One Sync and all that follows from its answer."""
        desk, book = self._desk, self._desk.book
        sent_ns = clock.now_ns()
        if not desk.closing:  # nobody would use, nor send home, what came of it
            book.ask_ahead(new_id=clock.new_id, now_ns=sent_ns)
            book.refill(new_id=clock.new_id, now_ns=sent_ns)
        sync = book.make_sync(now_ns=sent_ns, health=self._health(), sessions=self._sessions())
        desk.commit()
        if book.has_asks:  # more than one message holds
            self._wake.set()
        try:
            body = await self._client.post("sync", msgspec.json.encode(sync))
            answer = msgspec.json.decode(body, type=SyncAnswer)
        except (ControlError, msgspec.MsgspecError) as error:
            book.on_sync_failed(sync.header.sequence)
            self._failed("sync", error)
            return
        self._failures = 0
        desk.metrics.syncs[answer.status] += 1
        await self._take(answer, sync, sent_ns=sent_ns)

    async def _take(self, answer: SyncAnswer, sync: Sync, *, sent_ns: int) -> None:
        desk, book = self._desk, self._desk.book
        effects = book.on_answer(
            answer, sync, sent_ns=sent_ns, now_ns=clock.now_ns(), now_ms=clock.now_ms()
        )
        written = desk.commit()
        if effects.fenced:
            self._on_fenced()
            return
        if effects.policy is not None:
            self._take_policy(effects.policy)
        for order in effects.orders:  # first: what they cut is theirs, not the policy's
            self._orders.carry_out(order)
        if effects.policy is not None:
            self._orders.enforce_states()
            self._orders.enforce_budgets()
        for group, denial in effects.denied.items():
            waiter = desk.waiting.pop(group, None)
            if waiter is not None:
                waiter.on_denied(denial)
        if effects.granted and written:
            await self._make_durable(effects.granted)

    async def _make_durable(self, granted: dict[str, list[str]]) -> None:
        desk = self._desk
        loop = asyncio.get_running_loop()
        if not await loop.run_in_executor(None, desk.journal.syncer()):
            log.error("the journal cannot be synced: its grants stay unused")
            return
        lots = desk.book.lots
        for group, leases in granted.items():
            lots.mark_durable(leases)
            waiter = desk.waiting.pop(group, None)
            if waiter is None:
                continue
            amounts: dict[BalanceKey, int] = {}
            for lease in leases:
                lot = lots.by_lease[lease]
                amounts[lot.key] = amounts.get(lot.key, 0) + lot.amount
            waiter.on_granted(amounts)
        desk.released()  # a lease is often larger than what it was asked for

    def _health(self) -> Health:
        desk = self._desk
        return Health(
            open_streams=len(desk.live),
            live_sessions=len({live.agent_id for live in desk.live}),
            requests=sum(desk.metrics.requests.values()),
            spool_bytes=desk.journal.total_bytes,
            resident_bytes=resident_bytes(),
        )

    def _sessions(self) -> list[SessionInfo]:
        """What runs now, one line for each session."""
        now_ms = clock.now_ms()
        merged: dict[tuple[str, str, str, str], SessionInfo] = {}
        for live in self._desk.live:
            info = live.session_info(now_ms)
            if info is None:
                continue
            key = (info.agent, info.session, info.model, info.node)
            known = merged.get(key)
            if known is not None:
                info = SessionInfo(
                    *key,
                    running=known.running + 1,
                    output_tokens=known.output_tokens + info.output_tokens,
                    charge_nanos=known.charge_nanos + info.charge_nanos,
                    age_ms=max(known.age_ms, info.age_ms),
                )
            elif len(merged) >= MAX_SESSIONS:
                continue
            merged[key] = info
        return list(merged.values())

    # ------------------------------------------------------------------ usage

    async def _send_usage(self) -> None:
        failures = 0
        while True:
            await self._usage_wake.wait()
            self._usage_wake.clear()
            if self._desk.book.needs_hello:
                await asyncio.sleep(USAGE_PAUSE_S)
                self._usage_wake.set()
                continue
            failures = 0 if await self.send_usage_once() else min(failures + 1, 5)
            if self._desk.unsent or self._desk.refusals or self._kept_refusals:
                self._usage_wake.set()
            await asyncio.sleep(USAGE_PAUSE_S * 2**failures)

    async def send_usage_once(self) -> bool:
        """Send the oldest events; what is acknowledged need not be kept."""
        desk = self._desk
        batch = [desk.unsent[n] for n in range(min(len(desk.unsent), self._events_limit))]
        refusals = [*self._kept_refusals, *desk.refusals.values()]
        desk.refusals = {}
        self._kept_refusals = refusals
        if not batch and not refusals:
            return True
        position = batch[-1].sequence if batch else 0
        usage = usage_message(
            self._header(),
            events=[unsent.event for unsent in batch],
            refusals=refusals,
            position=position,
        )
        try:
            body = await self._client.post("usage", usage)
            answer = msgspec.json.decode(body, type=UsageAnswer)
        except PayloadTooLargeError:
            return self._send_less(batch)
        except (ControlError, msgspec.MsgspecError) as error:
            desk.metrics.syncs["usage_failed"] += 1
            log.debug("usage was not taken: %s", error)
            return False
        if answer.rejected:
            log.error("the ledger set %d untrue usage events aside", answer.rejected)
        self._kept_refusals = []
        self._acknowledge(batch)
        self._events_limit = min(self._events_limit * 2, MAX_EVENTS)
        return True

    def _send_less(self, batch: list[Unsent]) -> bool:
        """Halve what was too large; one event that alone is goes behind the others.

        Whether something else may be tried at once.
        """
        self._events_limit = max(len(batch) // 2, 1)
        if len(batch) != 1:
            return bool(batch)
        unsent = self._desk.unsent
        if id(batch[0]) not in self._passed_over:
            log.error("a usage event of %d bytes is too large to be taken", len(batch[0].event))
        self._passed_over[id(batch[0])] = batch[0]
        unsent.rotate(-1)
        return len(unsent) > len(self._passed_over)

    def _acknowledge(self, batch: list[Unsent]) -> None:
        """The journal may forget what lies before every event that is still to be sent.

        Those that a spool brought back share one sequence: none is forgotten before all are sent.
        """
        desk = self._desk
        for sent in batch:
            desk.unsent.popleft()
            self._passed_over.pop(id(sent), None)
            self._sent_to = max(self._sent_to, sent.sequence)
        desk.metrics.events_sent += len(batch)
        waiting = [*self._passed_over.values(), *([desk.unsent[0]] if desk.unsent else [])]
        floor = min((unsent.sequence for unsent in waiting), default=self._sent_to + 1)
        below = [self._sent_to, *(sent.sequence for sent in batch)]
        position = max((sequence for sequence in below if sequence < floor), default=0)
        if position > self._acked:
            self._acked = position
            desk.journal.append([(ACKED, position.to_bytes(8, "little"))])

    def _header(self) -> Header:
        book = self._desk.book
        return Header(
            organization=book.organization,
            spool=book.spool,
            epoch=book.epoch,
            incarnation=book.incarnation,
            book=book.name,
            policy_revision=book.policy_revision,
            order_cursor=book.order_cursor,
            sequence=book.sequence,
        )

    # ------------------------------------------------------------------ watch

    async def _watch(self) -> None:
        """Hints only: a dead watch delays, it never loses anything."""
        while True:
            try:
                async for event in self._client.events(
                    f"watch?spool={self._desk.book.spool}", silence=WATCH_SILENCE_S
                ):
                    if event == "hint":
                        self._wake.set()
            except ControlError as error:
                log.debug("watch ended: %s", error)
            await asyncio.sleep(random.uniform(0.2, 1.0))  # noqa: S311 -- jitter

    # ------------------------------------------------------------------ the end

    async def say_goodbye(self) -> None:
        """Send home all that is left, and the last events."""
        desk, book = self._desk, self._desk.book
        book.close()
        desk.commit()
        if book.needs_hello:
            return
        await self.sync_once()
        while desk.unsent or desk.refusals or self._kept_refusals:
            if not await self.send_usage_once():
                break


def resident_bytes() -> int:
    """Memory of this process."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 -- hot enough
            return int(file.read().split()[1]) * 4096
    except (OSError, ValueError, IndexError):
        return 0
