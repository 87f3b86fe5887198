"""The simulated control plane: the production ledger rules over an in-memory database.

Every handler is one transaction. What it keeps in memory only (the queue of groups) is lost at
a restart; rows survive.
"""

import pickle
from collections.abc import Callable

from enforcement.rules.grantqueue import GrantQueue
from enforcement.rules.ledger import (
    Ask,
    Balance,
    Lease,
    LeaseState,
    Ledger,
    inventory_item,
    may_fetch_ahead,
)
from enforcement.rules.policy import PolicySnapshot
from enforcement.rules.rolling import Ring
from enforcement.rules.spools import Spool, greet, may_count, owes_word, standing
from enforcement.rules.wire import (
    Denial,
    DenialCause,
    Grant,
    Group,
    GroupItem,
    Header,
    Hello,
    InventoryItem,
    Recall,
    Sync,
    SyncAnswer,
    Welcome,
)
from enforcement.simulation.kernel import Kernel

LEASE_TTL_MS = 3_000
GRACE_MS = 300
POLICY_TTL_MS = 2_000
SWEEP_EVERY_MS = 200
WINDOW_MS = 12_000
WINDOWED = frozenset({"team", "agent"})
ROLLING = frozenset({"model"})
BUCKET_MS = 4_000
PARTS = 2

Reply = Callable[[SyncAnswer], None]


def _unsigned(_lease: str, _balance: Balance, _amount: int) -> str:
    return ""


def _nobody(_spool: str, _recall: Recall) -> None:
    """Replaced by the world, which knows the books."""


class ControlPlane:
    """One ledger. `limits` gives the limit of every budget; balances appear when asked for."""

    def __init__(
        self, kernel: Kernel, limits: dict[str, int], make_ledger: type[Ledger] = Ledger
    ) -> None:
        self._kernel = kernel
        self._limits = limits
        self.ledger = make_ledger(
            new_id=self._new_id,
            sign=_unsigned,
            lease_ttl_ms=LEASE_TTL_MS,
            grace_ms=GRACE_MS,
        )
        self.spools: dict[str, Spool] = {}
        self.queue = GrantQueue()
        self.up = True
        self._clock_offset_ms = 7_200_000  # two hours, so that steps back stay above zero
        self.clock_rate = 1 + kernel.random.uniform(-0.02, 0.02)
        self.recall: Callable[[str, Recall], None] = _nobody
        self._groups: dict[str, list[str]] = {}
        self._live: dict[str, dict[str, Lease]] = {}  # by spool: leases in no terminal state
        self._swept_at_us = 0
        self._replies: dict[str, tuple[Reply, SyncAnswer]] = {}
        self._ids = 0
        self._incarnations = 1
        self.heard_us: dict[str, int] = {}  # by spool: when its policy lease was renewed
        self.waived: set[str] = set()  # spools that no new incarnation waits for

    @property
    def incarnation(self) -> str:
        return f"incarnation-{self._incarnations}"

    def _new_id(self) -> str:
        self._ids += 1
        return f"lease-{self._ids}"

    @property
    def now_ms(self) -> int:
        return int(self._kernel.now_us * self.clock_rate) // 1_000 + self._clock_offset_ms

    def step_clock(self, step_ms: int) -> None:
        """The ledger's clock jumps, as after a failover to a host with another time."""
        self._clock_offset_ms += step_ms

    # ------------------------------------------------------------------ messages

    def on_hello(self, hello: Hello, reply: Callable[[Welcome], None]) -> None:
        if not self.up:
            return
        header = hello.header
        spool = self.spools.get(header.spool) or Spool(header.spool)
        if not may_count(spool, hello, incarnation=self.incarnation):
            reply(self._welcome(header, epoch=0, again=True))
            return
        self.spools[spool.id] = spool
        self.heard_us[spool.id] = self._kernel.now_us
        epoch = greet(spool, boot=hello.boot, incarnation=self.incarnation)
        for item in hello.inventory:
            self._adopt(item, spool)
        known = {item.lease for item in hello.inventory}
        unknown = [
            self._named(lease)
            for lease in self._live.get(spool.id, {}).values()
            if owes_word(lease, spool) and lease.id not in known
        ]
        reply(self._welcome(header, epoch=epoch, unknown=unknown))

    def _welcome(
        self,
        header: Header,
        *,
        epoch: int,
        unknown: list[InventoryItem] | None = None,
        again: bool = False,
    ) -> Welcome:
        return Welcome(
            organization=header.organization,
            incarnation=self.incarnation,
            epoch=epoch,
            policy=PolicySnapshot(organization=header.organization, revision=1),
            policy_ttl_ms=POLICY_TTL_MS,
            lease_ttl_ms=LEASE_TTL_MS,
            order_cursor=0,
            unknown=unknown or [],
            again=again,
        )

    def _adopt(self, item: InventoryItem, spool: Spool) -> None:
        """A lease that a failover has forgotten (L11)."""
        if item.lease in self.ledger.leases:
            return
        place = GroupItem(item.budget, item.value, 0, 0, 0)
        windowed = item.budget in WINDOWED
        window = item.window_start_s * 1_000 // WINDOW_MS if windowed else 0
        balance = self._balance_of(place, window)
        self.ledger.turn(now_ms=self.now_ms)
        self.ledger.adopt(item, balance.id, spool.id, epoch=spool.epoch, now_ms=self.now_ms)
        lease = self.ledger.leases[item.lease]
        if lease.state is not LeaseState.SETTLED:
            self._live.setdefault(spool.id, {})[lease.id] = lease

    @property
    def learning(self) -> bool:
        """Whether a spool that this incarnation knows has not told its leases yet (L11)."""
        return any(
            spool.incarnation != self.incarnation and spool.id not in self.waived
            for spool in self.spools.values()
        )

    def on_sync(self, sync: Sync, reply: Reply) -> None:
        """Reports are booked at once; the answer goes out when its groups are resolved."""
        if not self.up:
            return
        spool = self.spools.get(sync.header.spool)
        status = standing(spool, sync.header, incarnation=self.incarnation)
        if status != "ok" or spool is None:
            reply(SyncAnswer(status=status, incarnation=self.incarnation))
            return
        self.heard_us[spool.id] = self._kernel.now_us
        answer = SyncAnswer(
            incarnation=self.incarnation,
            policy_revision=1,
            policy_ttl_ms=POLICY_TTL_MS,
            order_cursor=0,
        )
        self.ledger.turn(now_ms=self.now_ms)
        for report in sync.reports:
            lease = self.ledger.leases.get(report.lease)
            recalled = lease is not None and self.queue.is_recalled(
                lease.balance, now_ms=self.now_ms
            )
            ack = self.ledger.report(report, spool=spool.id, now_ms=self.now_ms, recalled=recalled)
            if ack is not None:
                answer.acks.append(ack)
                if ack.final:
                    self._live.get(spool.id, {}).pop(ack.lease, None)
        reported = {report.lease for report in sync.reports}
        answer.unsettled.extend(
            self._named(lease)
            for lease in self._live.get(spool.id, {}).values()
            if owes_word(lease, spool) and lease.id not in reported
        )
        waits = False
        for group in sync.groups:
            if group.key in self._groups:
                answer.grants.extend(self._repeat(group.key))
                continue
            if group.ahead and not self._is_near(group):
                item = group.items[0]
                early = Denial(group.key, item.budget, item.value, DenialCause.EARLY)
                answer.denials.append(early)
                continue
            if self.learning:
                item = group.items[0]
                learning = Denial(group.key, item.budget, item.value, DenialCause.LEARNING)
                answer.denials.append(learning)
                continue
            items = [(self._balance(item, ahead=group.ahead).id, item) for item in group.items]
            self.queue.submit(
                Ask(group, spool.id, spool.epoch, spool.incarnation, items, self.now_ms)
            )
            self._replies[group.key] = (reply, answer)
            waits = True
        self.pump()
        if not waits:
            reply(answer)

    def _named(self, lease: Lease) -> InventoryItem:
        return inventory_item(lease, self.ledger.balances[lease.balance], sign=_unsigned)

    def _repeat(self, group: str) -> list[Grant]:
        leases = [self.ledger.leases[lease] for lease in self._groups[group]]
        return [self.ledger.grant_message(lease, now_ms=self.now_ms) for lease in leases]

    def _is_near(self, group: Group) -> bool:
        """Whether the coming window of an ask ahead is near, by this clock (L16)."""
        step_ms = BUCKET_MS if group.items[0].budget in ROLLING else WINDOW_MS
        return may_fetch_ahead(step_ms - self.now_ms % step_ms, lease_ttl_ms=LEASE_TTL_MS)

    def _balance(self, item: GroupItem, *, ahead: bool) -> Balance:
        return self._balance_of(
            item, self.now_ms // WINDOW_MS + ahead if item.budget in WINDOWED else 0
        )

    def _balance_of(self, item: GroupItem, window: int) -> Balance:
        balance_id = f"{item.budget}/{item.value}/{window}"
        balance = self.ledger.balances.get(balance_id)
        if balance is None:
            limit = self._limits[item.budget]
            ends_at_ms = (window + 1) * WINDOW_MS if item.budget in WINDOWED else None
            start_s = window * WINDOW_MS // 1_000
            balance = Balance(
                balance_id, item.budget, item.value, start_s, limit, limit, ends_at_ms
            )
            if item.budget in ROLLING:
                empty = [0] * (PARTS + 1)
                balance.ring = Ring(BUCKET_MS, self.now_ms // BUCKET_MS, empty, list(empty))
            self.ledger.balances[balance_id] = balance
        return balance

    # ------------------------------------------------------------------ the clock of the ledger

    def pump(self) -> None:
        answers = self.queue.pump(self.ledger, now_ms=self.now_ms)
        for key, leases in answers.granted.items():
            self._groups[key] = [lease.id for lease in leases]
            for lease in leases:
                self._live.setdefault(lease.spool, {})[lease.id] = lease
            self._resolve(key, [self.ledger.grant_message(x, now_ms=self.now_ms) for x in leases])
        for denial in answers.denied:
            self._resolve(denial.group, denial)
        for balance_id in answers.recalls:
            balance = self.ledger.balances[balance_id]
            holders = [
                spool
                for spool, leases in self._live.items()
                if any(lease.balance == balance_id and lease.rest for lease in leases.values())
            ]
            for spool in holders:
                self.recall(spool, Recall(balance.budget, balance.value))

    def _resolve(self, key: str, outcome: list[Grant] | Denial) -> None:
        reply, answer = self._replies.pop(key)
        if isinstance(outcome, Denial):
            answer.denials.append(outcome)
        else:
            answer.grants.extend(outcome)
        if all(answer is not waiting for _, waiting in self._replies.values()):
            reply(answer)

    def tick(self) -> None:
        """The queue, every 20 ms of simulated time while groups wait; the sweeper more rarely."""
        if self.up:
            self.ledger.turn(now_ms=self.now_ms)
            if self._kernel.now_us - self._swept_at_us >= SWEEP_EVERY_MS * 1_000:
                self._swept_at_us, now_ms = self._kernel.now_us, self.now_ms
                for leases in self._live.values():
                    for lease in leases:
                        self.ledger.expire(lease, now_ms=now_ms)
            self.pump()
        self._kernel.at(20 if self.queue.waiting else 60, self.tick)

    # ------------------------------------------------------------------ faults

    def crash(self) -> None:
        """Kill -9 of the web process: waiting groups and their connections are gone."""
        self.up = False
        self.queue = GrantQueue()
        self._replies.clear()

    def restart(self) -> None:
        self.up = True

    def remember(self) -> bytes:
        """The rows as they are now, as a replica would have them."""
        ledger = self.ledger
        rows = (ledger.balances, ledger.leases, ledger.transfers, self.spools, self._groups)
        live = {spool: list(leases) for spool, leases in self._live.items()}
        return pickle.dumps((rows, live))

    def knows(self, rows: bytes) -> set[str]:
        """The spools that remembered rows name."""
        (_, _, _, spools, _), _ = pickle.loads(rows)  # noqa: S301 -- ours
        return set(spools)

    def fail_over(self, rows: bytes) -> None:
        """A replica that lacks the last commits is promoted: a new incarnation begins."""
        self.crash()
        ledger = self.ledger
        (balances, leases, transfers, spools, groups), live = pickle.loads(rows)  # noqa: S301 -- ours
        ledger.balances, ledger.leases, ledger.transfers = balances, leases, transfers
        self.spools, self._groups = spools, groups
        self._live = {spool: {lease: leases[lease] for lease in ids} for spool, ids in live.items()}
        self._incarnations += 1
        self.restart()

    def change_limit(self, balance: Balance, limit: int) -> None:
        """As an administrator does it: the cap follows up at once, and down as money comes home."""
        balance.limit = limit
        balance.cap = max(limit, balance.committed)
