"""The book of one sidecar worker: its lots, and its side of the lease protocol.

1. A book asks for all balances that a blocked request is short of as one group (L8). Until it
   is answered, every Sync repeats it under the same key (L10).
2. Every Sync carries the totals of each lease that the ledger has not confirmed (L5), and asks
   to renew lots in use (L3).
3. Grants and renewals count from when the *first* ask, or the Sync, was sent.
4. After a gap the book says Hello again, with an inventory of every lease (L11).
5. A balance whose lots run low is asked for again before a call is short of it. What is scarce
   is not given for that, so nobody waits, and nobody is made to wait.
6. In the last two lease lifetimes of a window a balance in use is asked for ahead, at a jittered
   time: its lot opens with the coming window (L16). Nobody waits for it.
7. The policy is leased too: stale, the book says so and the shell fails closed (L12).

Sans-IO, like `lots`. The shell writes `lots.journal_out` before it acts on any result.
"""

from collections.abc import Callable, Iterable
from zlib import crc32

from msgspec import Struct, field

from enforcement.rules import records
from enforcement.rules.ledger import AHEAD_LIFETIMES
from enforcement.rules.lots import IDLE_NS, NS_PER_MS, BalanceKey, Lot, Lots, Need, life_ns
from enforcement.rules.policy import PolicySnapshot
from enforcement.rules.wire import (
    Attribution,
    Denial,
    Grant,
    Group,
    GroupItem,
    Header,
    Health,
    Hello,
    InventoryItem,
    Order,
    OrderAck,
    SessionInfo,
    Sync,
    SyncAnswer,
    UpstreamInfo,
    Welcome,
)

RATE_WINDOW_NS = 5_000 * NS_PER_MS
WANT_WORST_CASES = 4
REFILL_PARTS = 2  # ask again when less than this part of what suits is left: 1/2
REFUSED_NS = 1_000 * NS_PER_MS
MAX_REPORTS = 2_000
MAX_GROUPS = 500


class Demand(Struct):
    """How a balance has been used here lately: sizes the next ask (L8)."""

    usual: int = 0  # a moving average of what one request holds
    recent: int = 0  # held since `since_ns`
    previous: int = 0  # held in the full rate window before
    since_ns: int = 0
    attribution: Attribution | None = None  # of the call that last asked for this balance
    refused_until_ns: int = 0  # there was nothing to spare: do not ask again before
    drawn: bool = False  # held on since the last look at what runs low

    def note(self, amount: int, *, now_ns: int) -> None:
        self.usual = amount if not self.usual else (3 * self.usual + amount) // 4
        age_ns = now_ns - self.since_ns
        if age_ns >= RATE_WINDOW_NS:
            self.previous = self.recent if age_ns < 2 * RATE_WINDOW_NS else 0
            self.recent, self.since_ns = 0, now_ns
        self.recent += amount

    @property
    def want(self) -> int:
        return max(self.recent, self.previous, WANT_WORST_CASES * self.usual)


class Pending(Struct):
    """A group that is asked for, until it is answered or abandoned."""

    group: Group
    first_sent_ns: int | None = None
    in_flight: int = 0  # sequence of the Sync that carries it; 0: to be sent


class Coming(Struct):
    """The window that follows: when to ask for it, and for whose sake."""

    ask_at_ns: int
    ends_at_ns: int
    attribution: Attribution


class Effects(Struct):
    """What an answer asks of the shell. `granted` maps a group key to its leases."""

    granted: dict[str, list[str]] = field(default_factory=dict)
    denied: dict[str, Denial] = field(default_factory=dict)
    orders: list[Order] = field(default_factory=list)
    policy: PolicySnapshot | None = None
    rehello: bool = False
    fenced: bool = False


class Book:
    """Lots and protocol state of one worker. `name` is for people, `spool` is the identity."""

    def __init__(self, *, organization: str, spool: str, name: str = "") -> None:
        self.organization = organization
        self.spool = spool
        self.name = name
        self.lots = Lots()
        self.epoch = 0
        self.incarnation = ""
        self.asked_by = ""  # the incarnation that wants an inventory
        self.sequence = 0
        self.order_cursor = 0
        self.policy_revision = 0
        self.policy_deadline_ns = 0
        self.lease_ttl_ms = 10_000
        self.needs_hello = True
        self.fenced = False
        self.pending: dict[str, Pending] = {}
        self.acknowledgements: list[OrderAck] = []
        self.demand: dict[BalanceKey, Demand] = {}
        self.coming: dict[BalanceKey, Coming] = {}
        self._drawn: list[BalanceKey] = []  # held on since the last look at what runs low
        self._sent_acknowledgements: dict[int, list[OrderAck]] = {}

    # ------------------------------------------------------------------ what the shell asks

    def policy_is_fresh(self, *, now_ns: int) -> bool:
        """Whether traffic may be judged by the policy at all (L12)."""
        return not self.fenced and now_ns < self.policy_deadline_ns

    def note_demand(self, needs: Iterable[Need], *, now_ns: int) -> None:
        """Remember what a request holds, so that the next lease is of a useful size."""
        demands, drawn = self.demand, self._drawn
        for budget, value, amount in needs:
            key = (budget, value)
            demand = demands.get(key)
            if demand is None:
                demand = demands[key] = Demand(since_ns=now_ns)
            demand.note(amount, now_ns=now_ns)
            if not demand.drawn:
                demand.drawn = True
                drawn.append(key)

    def item(self, need: Need, *, floor: int) -> GroupItem:
        """The ask for one balance: the least that helps, what is needed, what suits."""
        demand = self.demand.get((need.budget, need.value))
        want = max(need.amount, demand.want if demand else need.amount)
        return GroupItem(need.budget, need.value, min(floor, need.amount), need.amount, want)

    def ask(
        self, key: str, attribution: Attribution, items: list[GroupItem], *, wait_ms: int = 150
    ) -> None:
        """Queue a group for the next Sync. `key` is unique for ever (a UUID)."""
        for item in items:
            demand = self.demand.get((item.budget, item.value))
            if demand is not None:
                demand.attribution = attribution
        self.pending[key] = Pending(Group(key, attribution, items, wait_ms))

    def refill(self, *, new_id: Callable[[], str], now_ns: int) -> None:
        """Ask for balances that run low here, before a call is short of them."""
        drawn, self._drawn = self._drawn, []
        if not drawn:
            return
        asked = {(i.budget, i.value) for p in self.pending.values() for i in p.group.items}
        for key in drawn:
            demand = self.demand[key]
            demand.drawn = False
            if key in asked:
                continue
            if not demand.usual or demand.attribution is None or now_ns < demand.refused_until_ns:
                continue
            free = self.lots.free_of(key, now_ns=now_ns)
            if free * REFILL_PARTS >= demand.want or self.lots.is_tight(key, now_ns):
                continue
            item = GroupItem(*key, floor=demand.usual, need=demand.usual, want=demand.want)
            group = Group(new_id(), demand.attribution, [item], wait_ms=0, spare=True)
            self.pending[group.key] = Pending(group)

    def ask_ahead(self, *, new_id: Callable[[], str], now_ns: int) -> None:
        """Ask for the coming windows of balances in use whose time has come."""
        due = [key for key, coming in self.coming.items() if now_ns >= coming.ask_at_ns]
        for key in due:
            coming, demand = self.coming.pop(key), self.demand.get(key)
            if demand is None or now_ns >= coming.ends_at_ns or not self._in_use(key, now_ns):
                continue
            item = GroupItem(*key, floor=demand.usual, need=demand.usual, want=demand.want)
            group = Group(new_id(), coming.attribution, [item], wait_ms=0, ahead=True)
            self.pending[group.key] = Pending(group)

    def close(self) -> None:
        """The book shuts down: think of no coming window, send home whatever is free (L6)."""
        self.coming.clear()
        for key, pending in list(self.pending.items()):
            if pending.group.ahead or pending.group.spare:
                self.abandon(key)
        self.lots.close()

    def _in_use(self, key: BalanceKey, now_ns: int) -> bool:
        return any(
            lot.open or now_ns - lot.last_use_ns < IDLE_NS
            for lot in self.lots.by_balance.get(key, ())
        )

    def abandon(self, key: str) -> None:
        """Nobody waits for this group any more: what still arrives goes straight home."""
        self.pending.pop(key, None)

    def acknowledge_order(self, acknowledgement: OrderAck) -> None:
        self.acknowledgements.append(acknowledgement)

    @property
    def has_asks(self) -> bool:
        return any(not pending.in_flight for pending in self.pending.values())

    def needs_sync(self, *, now_ns: int) -> bool:
        """Whether there is something to say before the next heartbeat."""
        if self.has_asks or self.acknowledgements:
            return True
        return any(
            lot.said != lot.state() or self._wants_renewal(lot, now_ns) for lot in self._unsettled()
        )

    # ------------------------------------------------------------------ hello

    def make_hello(
        self,
        *,
        boot: str,
        kernel_boot_id: str,
        clean: bool,
        upstreams: list[UpstreamInfo],
        version: str,
    ) -> Hello:
        return Hello(
            header=self.make_header(),
            boot=boot,
            kernel_boot_id=kernel_boot_id,
            clean_shutdown=clean,
            inventory=[lot.inventory() for lot in self.lots.by_lease.values()],
            upstreams=upstreams,
            version=version,
            answers=self.asked_by,
        )

    def on_welcome(
        self, welcome: Welcome, *, sent_ns: int, now_ns: int, kernel_boot_id: str
    ) -> Effects:
        """A new epoch begins: lots of another incarnation are dead, unknown leases go home."""
        if welcome.again:
            self.asked_by, self.needs_hello = welcome.incarnation, True
            return Effects(rehello=True)
        if self.incarnation and welcome.incarnation != self.incarnation:
            for lot in list(self.lots.by_lease.values()):
                self.lots.retire(lot)
                lot.said = None
        self.organization = welcome.organization
        self.incarnation = self.asked_by = welcome.incarnation
        self.epoch = welcome.epoch
        self.lease_ttl_ms = welcome.lease_ttl_ms
        self.order_cursor = max(self.order_cursor, welcome.order_cursor)
        self.needs_hello = self.fenced = False
        self.policy_revision = welcome.policy.revision
        self.policy_deadline_ns = sent_ns + life_ns(welcome.policy_ttl_ms)
        self.lots.journal_out.append(
            records.Booted(welcome.epoch, welcome.incarnation, kernel_boot_id)
        )
        for pending in self.pending.values():
            pending.in_flight = 0
        self._answer_unsettled(welcome.unknown, now_ns=now_ns)
        return Effects(policy=welcome.policy)

    # ------------------------------------------------------------------ sync

    def make_sync(
        self,
        *,
        now_ns: int,
        health: Health | None = None,
        sessions: list[SessionInfo] | None = None,
    ) -> Sync:
        """All that the ledger has not confirmed, and all that is asked. Never a delta."""
        self.lots.expire(now_ns=now_ns)
        header = self.make_header()
        reports = []
        for lot in self._unsettled():
            renew = not lot.final and self._wants_renewal(lot, now_ns)
            if lot.open and self._wants_patience(lot, now_ns):
                renew, lot.patient_ns = True, now_ns
            if lot.said != lot.state() or renew:
                reports.append(lot.report(renew=renew))
            if len(reports) == MAX_REPORTS:
                break
        groups: list[Group] = []
        for pending in self.pending.values():
            if len(groups) == MAX_GROUPS:
                break  # the next Sync has room for the others
            if not pending.in_flight:
                pending.in_flight = header.sequence
                pending.first_sent_ns = pending.first_sent_ns or now_ns
                groups.append(pending.group)
        acknowledgements, self.acknowledgements = self.acknowledgements, []
        if acknowledgements:
            self._sent_acknowledgements[header.sequence] = acknowledgements
        return Sync(
            header=header,
            reports=reports,
            groups=groups,
            acknowledgements=acknowledgements,
            health=health or Health(),
            sessions=sessions or [],
        )

    def on_sync_failed(self, sequence: int) -> None:
        """No answer came: say it all again, under the same keys."""
        self.acknowledgements[:0] = self._sent_acknowledgements.pop(sequence, [])
        for pending in self.pending.values():
            if pending.in_flight == sequence:
                pending.in_flight = 0

    def on_answer(
        self, answer: SyncAnswer, sync: Sync, *, sent_ns: int, now_ns: int, now_ms: int
    ) -> Effects:
        """Take an answer in. `sent_ns` is when `sync` was sent, `now_ms` wall time for records.

        Once a new incarnation has asked for an inventory, no grant of the old one is taken any
        more: the inventory that is under way does not list it (L11).
        """
        if answer.status == "fenced" and sync.header.epoch == self.epoch:
            self.fenced = True
            return Effects(fenced=True)
        superseded = self.asked_by not in ("", self.incarnation)
        if answer.status != "ok" or answer.incarnation != self.incarnation or superseded:
            self.on_sync_failed(sync.header.sequence)
            if answer.status == "rehello" and sync.header.incarnation == self.incarnation:
                self.asked_by = answer.incarnation
                self.needs_hello, self.policy_deadline_ns = True, 0
            return Effects(rehello=self.needs_hello)
        self._sent_acknowledgements.pop(sync.header.sequence, None)
        effects = Effects()
        for ack in answer.acks:
            if lot := self.lots.by_lease.get(ack.lease):
                lot.said = (ack.used, ack.returned, ack.overrun, ack.final)
                if ack.final and lot.said == lot.state():
                    self.lots.acknowledge_final(lot, at_ms=now_ms)
                elif ack.ttl_ms and lot.live:
                    lot.deadline_ns = max(lot.deadline_ns, sent_ns + life_ns(ack.ttl_ms))
        for grant in answer.grants:
            self._take_grant(grant, effects, now_ns=now_ns)
        for denial in answer.denials:
            refused = self.pending.pop(denial.group, None)
            if refused is None:
                continue
            effects.denied[denial.group] = denial
            demand = self.demand.get((denial.budget, denial.value))
            if refused.group.spare and demand is not None:
                demand.refused_until_ns = now_ns + REFUSED_NS
        for recall in answer.recalls:
            self.lots.recall((recall.budget, recall.value), now_ns=now_ns)
        effects.orders = [o for o in answer.orders if o.cursor > self.order_cursor]
        self.order_cursor = max(self.order_cursor, answer.order_cursor)
        self._renew_policy(answer, effects, sent_ns=sent_ns)
        self._answer_unsettled(answer.unsettled, now_ns=now_ns)
        self._resend_unanswered(sync)
        for key in effects.granted:
            self.pending.pop(key, None)
        return effects

    def _take_grant(self, grant: Grant, effects: Effects, *, now_ns: int) -> None:
        if grant.lease in self.lots.by_lease:
            return
        pending = self.pending.get(grant.group)
        live = pending is not None and pending.first_sent_ns is not None
        asked_ns = pending.first_sent_ns if pending and pending.first_sent_ns else now_ns
        self.lots.add(
            grant, incarnation=self.incarnation, asked_ns=asked_ns, now_ns=now_ns, live=live
        )
        if pending is not None and live:
            effects.granted.setdefault(grant.group, []).append(grant.lease)
            self._note_window(grant, pending.group.attribution, now_ns=now_ns)

    def _note_window(self, grant: Grant, attribution: Attribution, *, now_ns: int) -> None:
        """Plan when to ask for the window that follows, each book at another moment."""
        if grant.window_ends_in_ms is None:
            return
        key = (grant.budget, grant.value)
        ends_at_ns = now_ns + grant.window_ends_in_ms * NS_PER_MS
        from_ns = max(now_ns, ends_at_ns - AHEAD_LIFETIMES * self.lease_ttl_ms * NS_PER_MS)
        jitter = crc32(f"{self.spool}{key}{grant.window_start_s}".encode()) % 1000
        ask_at_ns = from_ns + (ends_at_ns - from_ns) * jitter * 3 // 4000
        self.coming[key] = Coming(ask_at_ns, ends_at_ns, attribution)

    def _renew_policy(self, answer: SyncAnswer, effects: Effects, *, sent_ns: int) -> None:
        if answer.policy is not None:
            self.policy_revision = answer.policy.revision
            effects.policy = answer.policy
        if answer.policy_revision == self.policy_revision:
            deadline_ns = sent_ns + life_ns(answer.policy_ttl_ms)
            self.policy_deadline_ns = max(self.policy_deadline_ns, deadline_ns)

    def _resend_unanswered(self, sync: Sync) -> None:
        for pending in self.pending.values():
            if pending.in_flight == sync.header.sequence:
                pending.in_flight = 0

    def _answer_unsettled(self, items: list[InventoryItem], *, now_ns: int) -> None:
        """Leases the ledger wants to hear of: known ones are said again, unknown ones go home."""
        for item in items:
            lot = self.lots.by_lease.get(item.lease)
            if lot is None:
                self._never_heard_of(item, now_ns=now_ns)
            elif lot.final:
                lot.said = None
                if lot.acked:
                    lot.acked = False
                    self.lots.by_balance.setdefault(lot.key, []).append(lot)

    def _never_heard_of(self, item: InventoryItem, *, now_ns: int) -> None:
        """A grant whose answer was lost: this spool can say for certain that it was not used."""
        grant = Grant(
            lease=item.lease,
            group="",
            budget=item.budget,
            value=item.value,
            window_start_s=item.window_start_s,
            amount=item.amount,
            ttl_ms=0,
            mac=item.mac,
        )
        self.lots.add(
            grant, incarnation=item.incarnation, asked_ns=now_ns, now_ns=now_ns, live=False
        )

    # ------------------------------------------------------------------ helpers

    def make_header(self) -> Header:
        self.sequence += 1
        return Header(
            organization=self.organization,
            spool=self.spool,
            epoch=self.epoch,
            incarnation=self.incarnation,
            book=self.name,
            policy_revision=self.policy_revision,
            order_cursor=self.order_cursor,
            sequence=self.sequence,
        )

    def _unsettled(self) -> Iterable[Lot]:
        return (lot for lots in list(self.lots.by_balance.values()) for lot in list(lots))

    def _wants_patience(self, lot: Lot, now_ns: int) -> bool:
        """Requests run on a lot that takes no new hold: the ledger shall not think it dead (L6)."""
        if not lot.open or lot.final or now_ns - lot.patient_ns < life_ns(self.lease_ttl_ms) // 4:
            return False
        return not lot.live or self.lots.is_tight(lot.key, now_ns)

    def _wants_renewal(self, lot: Lot, now_ns: int) -> bool:
        """In use or idle < 60 s, past half its life, and the balance is not tight (L8)."""
        left_ns = lot.deadline_ns - now_ns
        if not lot.live or lot.final or not 0 < left_ns < life_ns(self.lease_ttl_ms) // 2:
            return False
        recently = lot.open > 0 or now_ns - lot.last_use_ns < IDLE_NS
        return recently and not self.lots.is_tight(lot.key, now_ns)
