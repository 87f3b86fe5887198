"""A simulated sidecar worker: the production book, with requests and its side of the protocol."""

from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from enforcement.rules.grantqueue import content_of
from enforcement.rules.lots import Hold, Need, Shortage
from enforcement.rules.matching import BalanceOf
from enforcement.rules.policy import PolicySnapshot
from enforcement.rules.splits import Overflows
from enforcement.rules.wire import (
    Attribution,
    Denial,
    DenialCause,
    Group,
    GroupItem,
    Recall,
    Sync,
    SyncAnswer,
    Welcome,
)
from enforcement.simulation.controlplane import ControlPlane
from enforcement.simulation.engine import Request, Truth
from enforcement.simulation.kernel import Kernel, Link
from enforcement.simulation.organization import Charges
from enforcement.simulation.process import ABORT_STEPS, FASTEST, Process

LOOK_EVERY_MS = 250  # for something to say
HEARTBEAT_MS = 600  # a fifth of what a lease lives, as for real
STEP_MS = 20
SLICE = 32
MARGIN = FASTEST * (ABORT_STEPS + 1)
FLOOR = 24
PATIENCE_MS = 400
DEADLINE_MS = 2_500
RESTART_MS = 1_000


class Sidecar(Process):
    """A process that admits calls, and speaks with the control plane."""

    def __init__(
        self,
        kernel: Kernel,
        link: Link,
        control: ControlPlane,
        number: int,
        *,
        truth: Truth,
        metered: bool,
    ) -> None:
        super().__init__(kernel, truth, number)
        self._control = control
        self.link = link
        self.metered = metered
        self.waiting: list[Request] = []
        self.refused = self.served = 0
        self.fooled: set[str] = set()  # keys that came again with other content, and were answered
        self.lies: set[str] = set()  # groups that nobody had a right to ask for
        self._groups = 0
        self.on_held: Callable[[Request, Hold], None] = lambda _request, _hold: None
        self.on_refused: Callable[[Request], None] = lambda _request: None

    def boot(self) -> None:
        if self.up:
            return
        super().boot()
        self.waiting = []
        self._charges: Charges | None = None  # nothing is known before a Welcome
        self._overflows = Overflows()
        self._answered: Group | None = None  # the last group that was granted
        self._boot = f"boot-{self.number}.{self.life}"
        self._welcomed = self._stepping = False
        self._spoke_us = 0
        self._later(1, self._hello)
        self._later(LOOK_EVERY_MS, self._heartbeat)

    def quiesce(self) -> None:
        """As at SIGTERM: send home what is free, so that finals can be booked."""
        self.book.close()
        self._write()
        self._send_sync()

    # ------------------------------------------------------------------ requests

    def call(self, facts: Attribution, prompt: int, output: int, limit: int) -> None:
        """An agent calls: hold, or ask and wait; then forward."""
        if not self.listens or self._charges is None:
            return
        request = Request(facts, self._charges.of(facts), prompt, output, limit)
        request.deadline_us = self._kernel.now_us + DEADLINE_MS * 1_000
        self._admit(request)

    @property
    def listens(self) -> bool:
        fresh = self.up and not self.paused and self.disk.accepts_holds
        return fresh and self.book.policy_is_fresh(now_ns=self.now_ns)

    def lie(self, facts: Attribution, key: BalanceOf) -> None:
        """Ask for a balance that does not follow from the attribution."""
        if self.listens:
            group = self._new_group()
            self.lies.add(group)
            self.book.ask(group, facts, [GroupItem(*key, 1, 50, 50)], wait_ms=150)
            self._send_sync()

    def ask_again_for_more(self) -> None:
        """Say a key again that was answered, with other content (L10)."""
        if self.listens and self._answered is not None:
            group, item = self._answered, self._answered.items[0]
            more = [replace(item, need=item.need + 1, want=item.want + 1)]
            self.book.ask(group.key, group.attribution, more)
            self._send_sync()
            self.book.abandon(group.key)

    def delegate(
        self,
        facts: Attribution,
        child: str,
        *,
        percent: int,
        lasts_ms: int,
        given: Callable[[str], None],
    ) -> None:
        """Pass a session's gift to its child on to the control plane (L14)."""

        def reply(token: str) -> None:
            self.link.send(given, token, once=True)

        if self.listens:
            ask = partial(self._control.on_delegate, percent=percent, lasts_ms=lasts_ms)
            self.link.send(partial(ask, reply=reply), facts, child, once=True)

    def _needs(self, request: Request) -> list[Need]:
        amount = request.prompt + (SLICE + MARGIN if self.metered else request.limit)
        return [Need(budget, value, amount) for budget, value in request.keys]

    def _admit(self, request: Request) -> None:
        if self._charges is None:
            raise AssertionError("a call was let in without a policy")
        request.keys = self._shared(self._charges.of(request.facts))
        needs = self._needs(request)
        placed = self.book.lots.place(needs, now_ns=self.now_ns)
        if isinstance(placed, Hold):
            self.book.note_demand(needs, now_ns=self.now_ns)
            self.on_held(request, placed)
            self._unsaid[placed.id] = placed
            self._begin(request, placed)
            return
        full = request.waited
        missing = needs if full else list(placed.missing)
        self._ask(request, missing)

    def _begin(self, request: Request, hold: Hold) -> None:
        """Once the hold is on disk, forward."""
        if self._write():
            self._burn()
            self._forward(request, hold)
            return
        self.book.lots.settle(hold, {}, now_ns=self.now_ns)
        self._write()
        self._refuse(request)

    def _shared(self, keys: tuple[BalanceOf, ...]) -> tuple[BalanceOf, ...]:
        """Values beyond a split's own balances pay from the one of the others (L15)."""
        return self._overflows.apply(keys, now_ns=self.now_ns)

    def _ask(self, request: Request, missing: list[Need]) -> None:
        request.waited = True
        request.asked = self._new_group()
        floor = request.prompt + FLOOR
        items = [self.book.item(need, floor=floor) for need in missing]
        self.book.ask(request.asked, request.facts, items, wait_ms=150)
        self.waiting.append(request)
        self._send_sync()

    def _forward(self, request: Request, hold: Hold) -> None:
        request.hold = hold
        request.forwarded = True
        self.running.append(request)
        if not self._stepping:
            self._stepping = True
            self._later(STEP_MS, self._step)
        self._truth.note(request)

    def _refuse(self, request: Request) -> None:
        self.refused += 1
        self.on_refused(request)

    # ------------------------------------------------------------------ engine

    def _step(self, life: int) -> None:
        if life != self.life:
            return
        self._stepping = bool(self.running)
        if self._stepping:
            self._later(STEP_MS, self._step)
        if self.paused and self.metered:
            return  # back-pressure stops an engine that nobody reads; see the bound
        chance = self._kernel.random.random
        for request in list(self.running):
            self._produce(request, 1 + int(chance() * FASTEST))
            if not self.paused:
                self._meter(request)

    def _meter(self, request: Request) -> None:
        done = request.produced >= min(request.output, request.limit)
        if self.metered and not done and request.hold is not None:
            held = request.hold.amount(request.keys[0])
            if request.tokens + MARGIN > held:
                self._truth.divide(request)
                needs = [Need(budget, value, SLICE) for budget, value in request.keys]
                short = self.book.lots.extend(request.hold, needs, now_ns=self.now_ns)
                if not self._write() or isinstance(short, Shortage):
                    self._produce(request, self._kernel.random.randint(0, ABORT_STEPS * FASTEST))
                    done = True
        if done:
            self._settle(request)

    def _settle(self, request: Request) -> None:
        self.running.remove(request)
        if request.hold is None:
            return
        used = dict.fromkeys(request.keys, request.tokens)
        paid = self.book.lots.settle(request.hold, used, now_ns=self.now_ns)
        self._truth.move_overrun(request, paid)
        self._write()
        self.served += 1

    # ------------------------------------------------------------------ protocol

    def _hello(self, life: int) -> None:
        if life != self.life or self._welcomed:
            return
        hello = self.book.make_hello(
            boot=self._boot,
            kernel_boot_id=str(self.kernel_boot),
            clean=False,
            upstreams=[],
            version="",
        )
        sent_ns = self.now_ns

        def arrived(welcome: Welcome) -> None:
            self.link.send(self._arrive, life, self._on_welcome, welcome, sent_ns)

        self.link.send(self._control.on_hello, hello, arrived, once=True)
        self._later(2 * LOOK_EVERY_MS, self._hello)

    def _arrive(self, life: int, act: Callable[..., None], *args: object) -> None:
        """Deliver to a live process; a stopped one reads its sockets when it goes on."""
        if life != self.life:
            return
        if self.paused:
            self._later(50, self._arrive, act, *args)
        else:
            self.run(act, *args)

    def _on_welcome(self, welcome: Welcome, sent_ns: int) -> None:
        if self._welcomed:
            return
        self.book.on_welcome(
            welcome, sent_ns=sent_ns, now_ns=self.now_ns, kernel_boot_id=str(self.kernel_boot)
        )
        self._welcomed = not self.book.needs_hello
        if self._welcomed:
            self._take_policy(welcome.policy)
            self._answered = None  # a new incarnation may have forgotten what it stood for
        self._write()
        if not self._welcomed:
            self._later(1, self._hello)

    def _take_policy(self, policy: PolicySnapshot) -> None:
        self._charges = self._control.charges_under(policy)

    def _heartbeat(self, life: int) -> None:
        if life == self.life:
            if self._welcomed and not self.paused:
                self.book.ask_ahead(new_id=self._new_group, now_ns=self.now_ns)
                self.book.refill(new_id=self._new_group, now_ns=self.now_ns)
                self.disk.retry()
                silent_us = self._kernel.now_us - self._spoke_us
                if silent_us >= HEARTBEAT_MS * 1_000 or self.book.needs_sync(now_ns=self.now_ns):
                    self._send_sync()
            self._later(LOOK_EVERY_MS, self._heartbeat)

    def _new_group(self) -> str:
        self._groups += 1
        return f"{self._boot}/{self._groups}"

    def _send_sync(self) -> None:
        if not self._welcomed:
            return
        sync = self.book.make_sync(now_ns=self.now_ns)
        self._write()
        self._burn()
        self._spoke_us = self._kernel.now_us
        sent_ns, life = self.now_ns, self.life

        def reply(answer: SyncAnswer) -> None:
            self.link.send(self._arrive, life, self._on_answer, answer, sync, sent_ns)

        self.link.send(self._control.on_sync, sync, reply)
        self._later(PATIENCE_MS, self._give_up, sync.header.sequence)

    def _give_up(self, life: int, sequence: int) -> None:
        if life == self.life:
            self.book.on_sync_failed(sequence)
            self._retry_waiting()

    def _on_answer(self, answer: SyncAnswer, sync: Sync, sent_ns: int) -> None:
        effects = self.book.on_answer(
            answer, sync, sent_ns=sent_ns, now_ns=self.now_ns, now_ms=self._kernel.now_ms
        )
        written = self._write()
        self._note_answered(answer, sync)
        if effects.fenced:
            self.crash()
            self._kernel.at(RESTART_MS, self.boot)  # somebody starts it again
            return
        if effects.rehello and self._welcomed:
            self._welcomed = False
            self._later(1, self._hello)
        if effects.policy is not None:
            self._take_policy(effects.policy)
        leases = [lease for group in effects.granted.values() for lease in group]
        if leases and written:
            self._sync_disk(lambda: self._granted(leases))
        for group, denial in effects.denied.items():
            for request in [r for r in self.waiting if r.asked == group]:
                self.waiting.remove(request)
                if self._may_ask_again(denial) and self._kernel.now_us < request.deadline_us:
                    self._admit(request)
                else:
                    self._refuse(request)
        self._retry_waiting()

    def _note_answered(self, answer: SyncAnswer, sync: Sync) -> None:
        if answer.incarnation != self.book.incarnation:
            return  # late, of a memory that a failover has taken: see `_on_welcome`
        told, first = {grant.group for grant in answer.grants}, self._answered
        for group in sync.groups:
            if group.key in told:
                if first and first.key == group.key and content_of(first) != content_of(group):
                    self.fooled.add(group.key)
                self._answered = group

    def _may_ask_again(self, denial: Denial) -> bool:
        if self._charges is None or not self.listens:
            return False
        budget = self._charges.rights.budget(denial.budget)
        shares = self._overflows.note(denial, budget, now_ns=self.now_ns)
        return shares or denial.cause in (DenialCause.HELD, DenialCause.STALE_POLICY)

    def _granted(self, leases: list[str]) -> None:
        self.book.lots.mark_durable(leases)
        groups = set(self.book.pending)
        for request in [r for r in self.waiting if r.asked not in groups]:
            self.waiting.remove(request)
            if not self.listens:
                self._refuse(request)
                continue
            self._clamp(request)
            self._admit(request)

    def _clamp(self, request: Request) -> None:
        """Less than the need was granted: lower the output limit to it, never below the floor."""
        if self.metered:
            return
        free = min(self.book.lots.free_of(key, now_ns=self.now_ns) for key in request.keys)
        if request.prompt + FLOOR <= free < request.prompt + request.limit:
            request.limit = free - request.prompt

    def _retry_waiting(self) -> None:
        for request in list(self.waiting):
            if self._kernel.now_us >= request.deadline_us:
                self.waiting.remove(request)
                self.book.abandon(request.asked)
                self._refuse(request)

    def on_recall(self, recall: Recall) -> None:
        """The control plane's push; the answer is a Sync at once."""
        if not self.up or self.paused:
            return
        self.book.lots.recall((recall.budget, recall.value), now_ns=self.now_ns)
        self._write()
        self._send_sync()
