"""The simulated control plane: the production ledger rules over an in-memory database.

Every handler is one transaction. What it keeps in memory only (the queue of groups) is lost at
a restart; rows survive.
"""

import pickle
from collections.abc import Callable

from enforcement.rules.grantqueue import GrantQueue, content_of
from enforcement.rules.inventory import inventory_item
from enforcement.rules.ledger import (
    Ask,
    Balance,
    Lease,
    LeaseState,
    Ledger,
    committed_over_cap,
    may_fetch_ahead,
)
from enforcement.rules.policy import BudgetPolicy, PolicySnapshot
from enforcement.rules.rights import Rights
from enforcement.rules.rolling import Ring
from enforcement.rules.splits import is_counted, is_full
from enforcement.rules.spools import Spool, greet, may_count, owes_word, standing
from enforcement.rules.wire import (
    Attribution,
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
from enforcement.simulation.organization import DELEGABLE, LATE, Charges, with_late_budget
from enforcement.simulation.rows import Rows
from enforcement.simulation.trees import Trees

LEASE_TTL_MS = 3_000
GRACE_MS = 300
POLICY_TTL_MS = 2_000
SWEEP_EVERY_MS = 200
WINDOW_MS = 8_000
WINDOWED = frozenset({"team", "agent"})
ROLLING = frozenset({"model"})
BUCKET_MS = 3_000
PARTS = 2

Reply = Callable[[SyncAnswer], None]


def _unsigned(_lease: str, _balance: Balance, _amount: int) -> str:
    return ""


def _nobody(_spool: str, _recall: Recall) -> None:
    """Replaced by the world, which knows the books."""


class ControlPlane:
    """One ledger, and the policy that its books work by; balances appear when asked for."""

    rights_type: type[Rights] = Rights
    trees_type: type[Trees] = Trees

    def __init__(
        self, kernel: Kernel, policy: PolicySnapshot, make_ledger: type[Ledger] = Ledger
    ) -> None:
        self._kernel = kernel
        self._charges: dict[int, Charges] = {}  # by revision
        self.rights = self.charges_under(policy).rights
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
        self._contents: dict[str, str] = {}  # by group: what its key stands for
        self.trees = self.trees_type(key=self.rights.tree_key, find=self._of_session)
        self.acknowledged: dict[str, int] = {}  # by spool: the revision that it works by
        self.armed_revision = policy.revision
        self.armed_us = 0
        self.over_cap: list[Balance] = []  # I1 broken at a commit
        self._live: dict[str, dict[str, Lease]] = {}  # by spool: leases in no terminal state
        self._swept_at_us = 0
        self._replies: dict[str, tuple[Reply, SyncAnswer]] = {}
        self._ids = 0
        self._incarnations = 1
        self.heard_us: dict[str, int] = {}  # by spool: when its policy lease was renewed
        self.of_lost_budgets: set[str] = set()  # leases that nothing can take in
        self.waived: set[str] = set()  # spools that no new incarnation waits for

    @property
    def incarnation(self) -> str:
        return f"incarnation-{self._incarnations}"

    def _new_id(self) -> str:
        self._ids += 1
        return f"lease-{self._ids}"

    def charges_under(self, policy: PolicySnapshot) -> Charges:
        """The look-ups of a policy: all who work by a revision share them."""
        known = self._charges.get(policy.revision)
        if known is None:
            known = self._charges[policy.revision] = Charges(self.rights_type(policy))
        return known

    @property
    def policy(self) -> PolicySnapshot:
        return self.rights.snapshot

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
        self.acknowledged.setdefault(spool.id, 0)
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
            policy=self.policy,
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
        budget = self.rights.budget(item.budget)
        if budget is None:  # made, and leased of, within what a failover lost: see the guarantees
            self.of_lost_budgets.add(item.lease)
            return
        windowed = item.budget in WINDOWED
        window = item.window_start_s * 1_000 // WINDOW_MS if windowed else 0
        balance = self._balance_of(budget, item.value, window)
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
        if any(self._is_reused(group) for group in sync.groups):
            return  # 422: nothing of the message is acted on
        self.heard_us[spool.id] = self._kernel.now_us
        self.acknowledged[spool.id] = sync.header.policy_revision
        stale = sync.header.policy_revision < self.policy.revision
        answer = SyncAnswer(
            incarnation=self.incarnation,
            policy_revision=self.policy.revision,
            policy=self.policy if stale else None,
            policy_ttl_ms=POLICY_TTL_MS,
            order_cursor=0,
        )
        self.ledger.turn(now_ms=self.now_ms)
        self._book(sync, spool, answer)
        waits = False
        for group in sync.groups:
            if group.key in self._groups:
                answer.grants.extend(self._repeat(group.key))
                continue
            items = self._places(group, stale=stale)
            if isinstance(items, Denial):
                answer.denials.append(items)
                continue
            self._contents[group.key] = content_of(group)
            self.queue.submit(
                Ask(group, spool.id, spool.epoch, spool.incarnation, items, self.now_ms)
            )
            self._replies[group.key] = (reply, answer)
            waits = True
        self.pump()
        if not waits:
            reply(answer)

    def _is_reused(self, group: Group) -> bool:
        """Whether a key comes again with other content (L10)."""
        return self._contents.get(group.key, content_of(group)) != content_of(group)

    def _book(self, sync: Sync, spool: Spool, answer: SyncAnswer) -> None:
        now_ms, live = self.now_ms, self._live.get(spool.id, {})
        for report in sync.reports:
            lease = self.ledger.leases.get(report.lease)
            recalled = lease is not None and self.queue.is_recalled(lease.balance, now_ms=now_ms)
            ack = self.ledger.report(report, spool=spool.id, now_ms=now_ms, recalled=recalled)
            if ack is not None:
                answer.acks.append(ack)
                if ack.final:
                    live.pop(ack.lease, None)
        reported = {report.lease for report in sync.reports}
        answer.unsettled.extend(
            self._named(lease)
            for lease in live.values()
            if lease.id not in reported and owes_word(lease, spool)
        )

    def _places(self, group: Group, *, stale: bool) -> list[tuple[str, GroupItem]] | Denial:
        """The balance of each item, or why the group is denied at once."""
        cause = DenialCause.LEARNING if self.learning else None
        if stale:
            cause = DenialCause.STALE_POLICY
        elif group.ahead and not self._is_near(group):
            cause = DenialCause.EARLY
        budgets = self.rights.budgets_of(group)
        if cause is not None or budgets is None:
            item = group.items[0]
            return Denial(group.key, item.budget, item.value, cause or DenialCause.MISMATCH)
        places = []
        for item, budget in zip(group.items, budgets, strict=True):
            given = self.rights.is_given(group, item)
            place = self._open(budget, item.value, ahead=group.ahead, given=given)
            if isinstance(place, DenialCause):
                return Denial(group.key, item.budget, item.value, place)
            places.append((place.id, item))
        return places

    def _named(self, lease: Lease) -> InventoryItem:
        return inventory_item(lease, self.ledger.balances[lease.balance], sign=_unsigned)

    def _repeat(self, group: str) -> list[Grant]:
        leases = [self.ledger.leases[lease] for lease in self._groups[group]]
        return [self.ledger.grant_message(lease, now_ms=self.now_ms) for lease in leases]

    def _is_near(self, group: Group) -> bool:
        """Whether the coming window of an ask ahead is near, by this clock (L16)."""
        step_ms = BUCKET_MS if group.items[0].budget in ROLLING else WINDOW_MS
        return may_fetch_ahead(step_ms - self.now_ms % step_ms, lease_ttl_ms=LEASE_TTL_MS)

    def _open(
        self, budget: BudgetPolicy, value: str, *, ahead: bool, given: bool
    ) -> Balance | DenialCause:
        """The balance of a value now, or in the coming window; made if it may be (L15)."""
        window = self.now_ms // WINDOW_MS + ahead if budget.id in WINDOWED else 0
        known = self.ledger.balances.get(f"{budget.id}/{value}/{window}")
        if known is not None:
            return known
        if given:
            return DenialCause.ENDED
        if is_counted(value) and is_full(budget, values=self._values(budget, window)):
            return DenialCause.MAX_VALUES
        return self._balance_of(budget, value, window)

    def _values(self, budget: BudgetPolicy, window: int) -> int:
        """How many values of a split have a balance of their own in a window."""
        names = self.ledger.balances.values()
        return sum(
            one.budget == budget.id and is_counted(one.value) and one.id.endswith(f"/{window}")
            for one in names
        )

    def _of_session(self, session: str) -> Balance:
        budget = self.rights.budget(DELEGABLE)
        if budget is None:
            raise AssertionError("sessions have a budget")
        return self._balance_of(budget, session, 0)

    def _balance_of(self, budget: BudgetPolicy, value: str, window: int) -> Balance:
        balance_id = f"{budget.id}/{value}/{window}"
        balance = self.ledger.balances.get(balance_id)
        if balance is None:
            ends_at_ms = (window + 1) * WINDOW_MS if budget.id in WINDOWED else None
            start_s = window * WINDOW_MS // 1_000
            limit = budget.limit
            balance = Balance(balance_id, budget.id, value, start_s, limit, limit, ends_at_ms)
            if budget.id in ROLLING:
                empty = [0] * (PARTS + 1)
                balance.ring = Ring(BUCKET_MS, self.now_ms // BUCKET_MS, empty, list(empty))
            self.ledger.balances[balance_id] = balance
        return balance

    def on_delegate(
        self,
        facts: Attribution,
        child: str,
        *,
        percent: int,
        lasts_ms: int,
        reply: Callable[[str], None],
    ) -> None:
        """A session gives part of what it has free; what is idle is called home for the next."""
        if not self.up or self.learning:
            return
        token = self.trees.delegate(
            self.ledger,
            facts,
            child,
            lineage=self.rights.lineage(facts.delegation) if facts.delegation else None,
            percent=percent,
            expires_at_ms=self.now_ms + lasts_ms,
        )
        if token is not None:
            reply(token)

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
            self._call_home(balance_id)
        self._commit()

    def _call_home(self, balance_id: str) -> None:
        balance = self.ledger.balances[balance_id]
        holders = [
            spool
            for spool, leases in self._live.items()
            if any(lease.balance == balance_id and lease.rest for lease in leases.values())
        ]
        for spool in holders:
            self.recall(spool, Recall(balance.budget, balance.value))

    def _commit(self) -> None:
        """I1 holds at every commit, not only when somebody looks."""
        ledger = self.ledger
        if ledger.touched_balances:
            found = [ledger.balances.get(one) for one in ledger.touched_balances]
            broken = committed_over_cap(balance for balance in found if balance is not None)
            self.over_cap += sorted(broken, key=lambda balance: balance.id)
            ledger.touched_balances.clear()

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
                self._end_children()
                self._arm()
            self.pump()
        self._kernel.at(20 if self.queue.waiting else 60, self.tick)

    def _end_children(self) -> None:
        learning = self.learning
        for balance in self.trees.sweep(self.ledger, now_ms=self.now_ms, learning=learning):
            self._call_home(balance)

    def _arm(self) -> None:
        """Once every book knows of the newest budget, or its policy is over (L12)."""
        if self.armed_revision == self.policy.revision or self.learning:
            return
        alive_us = self._kernel.now_us - POLICY_TTL_MS * 1_000
        books = [s for s in self.spools if self.heard_us.get(s, 0) > alive_us]
        if all(self.acknowledged[book] >= self.policy.revision for book in books):
            self.armed_revision, self.armed_us = self.policy.revision, self._kernel.now_us

    # ------------------------------------------------------------------ faults

    def add_budget(self, limit: int) -> None:
        """Somebody makes a budget that every call matches."""
        if self.rights.budget(LATE) is None:
            self.rights = self.charges_under(with_late_budget(self.policy, limit)).rights

    def crash(self) -> None:
        """Kill -9 of the web process: waiting groups and their connections are gone."""
        self.up = False
        self._contents = {key: self._contents[key] for key in self._groups if key in self._contents}
        self.queue = GrantQueue()
        self._replies.clear()

    def restart(self) -> None:
        self.up = True

    def remember(self) -> bytes:
        """The rows as they are now, as a replica would have them."""
        ledger = self.ledger
        rows = Rows(
            balances=ledger.balances,
            leases=ledger.leases,
            transfers=ledger.transfers,
            spools=self.spools,
            groups=self._groups,
            contents={key: self._contents[key] for key in self._groups if key in self._contents},
            live={spool: list(leases) for spool, leases in self._live.items()},
            parts=self.trees.rows,
            policy=self.policy,
            acknowledged=self.acknowledged,
            armed_revision=self.armed_revision,
        )
        return pickle.dumps(rows)

    def fail_over(self, rows: Rows) -> None:
        """A replica that lacks the last commits is promoted: a new incarnation begins."""
        self.crash()
        ledger = self.ledger
        ledger.balances, ledger.leases = rows.balances, rows.leases
        ledger.transfers = rows.transfers
        self.spools, self._groups, self._contents = rows.spools, rows.groups, rows.contents
        self._live = {
            spool: {lease: rows.leases[lease] for lease in leases}
            for spool, leases in rows.live.items()
        }
        self.trees.rows = rows.parts
        self.rights = self.charges_under(rows.policy).rights
        self.acknowledged, self.armed_revision = rows.acknowledged, rows.armed_revision
        self._incarnations += 1
        self.restart()

    def change_limit(self, balance: Balance, limit: int) -> None:
        """As an administrator does it: the cap follows up at once, and down as money comes home."""
        balance.limit = limit
        balance.cap = max(limit, balance.committed)
