"""The ledger's own rules: what a grant, a report and an expiry do to balances and leases.

1. Every hard balance, at every commit: `spent + held + suspense ≤ cap` (I1), where
   `cap = greatest(limit, what was committed before)` and only falls towards the limit (L9).
2. Reports are watermarks: only what is above the booked one moves money, so duplicates, loss
   and reordering are harmless (L5). A lease leaves a terminal state never (I7).
3. An expired lease goes to suspense and keeps counting; only its own spool closes it (L6).
4. A group is granted whole or not at all; which one, and when, is decided in `grantqueue` (L8).

Sans-IO: a `Ledger` is a working set of rows that the caller has locked and will write back. The
simulator runs this same code over its whole world, the coordinator over one transaction.
`now_ms` is the ledger's own clock; no other clock is ever compared with it.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from msgspec import Struct

from enforcement.rules.rolling import Aged, Ring
from enforcement.rules.wire import (
    Grant,
    Group,
    GroupItem,
    InventoryItem,
    LeaseAck,
    LeaseReport,
)

TIGHT_PERCENT = 5
AHEAD_LIFETIMES = 2  # how long before its window a lease may be fetched (L16)


class LeaseState(StrEnum):
    GRANTED = "granted"
    SUSPENDED = "suspended"
    SETTLED = "settled"
    WRITTEN_OFF = "written_off"


TERMINAL = frozenset({LeaseState.SETTLED, LeaseState.WRITTEN_OFF})


class TransferKind(StrEnum):
    """What moved, between which counters of a balance (`free` is what the limit leaves)."""

    GRANT = "grant"  # free → held
    SETTLE = "settle"  # held → spent
    RELEASE = "release"  # held → free
    EXPIRE = "expire"  # held → suspense
    LATE_SETTLE = "late_settle"  # suspense → spent
    LATE_RELEASE = "late_release"  # suspense → free
    WRITE_OFF = "write_off"  # suspense → spent
    OVERRUN = "overrun"  # measured above what was held
    USAGE = "usage"  # free → spent, from a usage event without a lease
    CORRECTION = "correction"  # spent → free, by a person
    RECHARGE = "recharge"  # free → spent: a recorded call costs more at another price
    AGE = "age"  # spent → out of the rolling window
    AGE_OVERRUN = "age_overrun"  # overrun → out of the rolling window
    CARRY_OUT = "carry_out"  # free → given: rolled over to the next window
    CARRY_IN = "carry_in"  # the limit grows by what the window before left
    DELEGATE = "delegate"  # free → given: the limit of a child session
    COME_HOME = "come_home"  # given → free: what a child session did not use
    CHILD_SPENT = "child_spent"  # given → spent: what it did


class Balance(Struct):
    """One row of balances. Amounts in the unit of its budget. `given` went to another balance;
    a rolling window has a `ring`, whose sums `spent` and `overrun` are.
    """

    id: str
    budget: str
    value: str
    window_start_s: int
    limit: int
    cap: int
    window_ends_at_ms: int | None = None
    spent: int = 0
    held: int = 0
    suspense: int = 0
    overrun: int = 0
    lends: bool = False  # permits: nothing is ever spent
    given: int = 0
    ring: Ring | None = None
    closed: bool = False  # nothing more is granted

    @property
    def committed(self) -> int:
        return self.spent + self.held + self.suspense + self.given

    @property
    def free(self) -> int:
        out = self.spent + self.held + self.suspense + self.given  # `committed`, asked for often
        return self.limit - out - self.overrun

    @property
    def tight(self) -> bool:
        return self.free * 100 < self.limit * TIGHT_PERCENT

    @property
    def relief_at_ms(self) -> int | None:
        """When waiting helps for certain: the window ends, or its oldest use leaves it."""
        return self.ring.relief_ms() if self.ring is not None else self.window_ends_at_ms

    def lower_cap(self) -> None:
        """After money came home: the cap falls towards the limit, never rises."""
        self.cap = min(self.cap, max(self.limit, self.committed))


class Lease(Struct):
    """One row of leases. `expires_at_ms` is on the ledger's clock."""

    id: str
    balance: str
    spool: str
    amount: int
    expires_at_ms: int
    epoch: int = 0
    incarnation: str = ""
    group: str = ""
    used: int = 0
    returned: int = 0
    overrun: int = 0
    open: int = 0
    state: LeaseState = LeaseState.GRANTED

    @property
    def rest(self) -> int:
        return self.amount - self.used - self.returned


class Transfer(NamedTuple):
    """A movement to append to the journal of its balance."""

    balance: str
    lease: str | None
    kind: TransferKind
    amount: int


class Ask(Struct):
    """A group that waits for its grant. `items` pairs each item with its balance's id."""

    group: Group
    spool: str
    epoch: int
    incarnation: str
    items: list[tuple[str, GroupItem]]
    arrived_ms: int

    @property
    def deadline_ms(self) -> int:
        return self.arrived_ms + self.group.wait_ms


class Ledger:
    """A locked working set. The caller fills `balances` and `leases`, then writes back whatever
    stands in `touched_balances`, `touched_leases`, `new_leases` and `transfers`.
    """

    def __init__(
        self,
        *,
        new_id: Callable[[], str],
        sign: Callable[[str, Balance, int], str],
        lease_ttl_ms: int,
        grace_ms: int,
    ) -> None:
        self.balances: dict[str, Balance] = {}
        self.leases: dict[str, Lease] = {}
        self.touched_balances: set[str] = set()
        self.touched_leases: set[str] = set()
        self.new_leases: list[Lease] = []
        self.transfers: list[Transfer] = []
        self._new_id = new_id
        self._sign = sign
        self._lease_ttl_ms = lease_ttl_ms
        self._grace_ms = grace_ms

    # ------------------------------------------------------------------ reports

    def report(
        self, report: LeaseReport, *, spool: str, now_ms: int, recalled: bool = False
    ) -> LeaseAck | None:
        """Book what a spool says of its own lease; None for a lease that is not its own (I9)."""
        lease = self.leases.get(report.lease)
        if lease is None or lease.spool != spool:
            return None
        ttl_ms = 0
        if lease.state not in TERMINAL:
            if self.balances[lease.balance].lends:
                self._book_lent(lease, report)
            else:
                self._book(lease, report)
            if not report.final and report.renew:
                ttl_ms = 0 if recalled else self._renew(lease, now_ms=now_ms)
                if report.open:
                    self._wait_for(lease, now_ms=now_ms)
        # A permit that a dead book had out needs no more words: time frees it.
        said = lease.state in TERMINAL or (report.final and self.balances[lease.balance].lends)
        return LeaseAck(
            lease=lease.id,
            used=report.used if said else lease.used,
            returned=report.returned if said else lease.returned,
            overrun=report.overrun if said else lease.overrun,
            final=said,
            ttl_ms=ttl_ms,
        )

    def _book(self, lease: Lease, report: LeaseReport) -> None:
        if not report.final and _is_known(lease, report):
            if lease.open != max(0, report.open):
                lease.open = max(0, report.open)
                self.touched_leases.add(lease.id)
            return
        late = lease.state is LeaseState.SUSPENDED
        balance = self.balances[lease.balance]
        used = max(0, min(report.used, lease.amount - lease.returned) - lease.used)
        self._move(lease, used, late=late, spend=True)
        home = max(0, min(report.returned, lease.amount - lease.used) - lease.returned)
        if report.final:
            home = lease.rest
        self._move(lease, home, late=late, spend=False)
        over = max(0, report.overrun - lease.overrun)
        if over:
            lease.overrun += over
            balance.overrun += over
            self._write(lease, TransferKind.OVERRUN, over)
            self._count_in_ring(lease, overrun=over)
        lease.open = 0 if report.final else max(0, report.open)
        if report.final:
            lease.state = LeaseState.SETTLED
        balance.lower_cap()
        self.touched_leases.add(lease.id)
        self.touched_balances.add(balance.id)

    def _book_lent(self, lease: Lease, report: LeaseReport) -> None:
        """Permits come home or stay out. What a dead book's requests had is `used`: it waits in
        suspense until the longest of them must have ended (design §3).
        """
        late = lease.state is LeaseState.SUSPENDED
        out = lease.rest - max(0, min(report.used, lease.rest)) if report.final else 0
        home = max(out, min(report.returned, lease.amount) - lease.returned)
        self._move(lease, home, late=late, spend=False)
        lease.open = max(0, report.open)
        if report.final and lease.rest and not late:
            self._suspend(lease)
        elif report.final and not lease.rest:
            lease.state = LeaseState.SETTLED
        self.touched_leases.add(lease.id)
        self.touched_balances.add(lease.balance)

    def _move(self, lease: Lease, amount: int, *, late: bool, spend: bool) -> None:
        """Take an amount of a lease out of held or suspense: into spent, or free again."""
        if not amount:
            return
        balance = self.balances[lease.balance]
        if late:
            balance.suspense -= amount
        else:
            balance.held -= amount
        if spend:
            lease.used += amount
            balance.spent += amount
            self._write(lease, TransferKind.LATE_SETTLE if late else TransferKind.SETTLE, amount)
            self._count_in_ring(lease, spent=amount)
        else:
            lease.returned += amount
            self._write(lease, TransferKind.LATE_RELEASE if late else TransferKind.RELEASE, amount)

    def _renew(self, lease: Lease, *, now_ms: int) -> int:
        if lease.state is not LeaseState.GRANTED or now_ms >= lease.expires_at_ms:
            return 0
        ttl_ms = self._ttl_ms(self.balances[lease.balance], now_ms=now_ms)
        lease.expires_at_ms = max(lease.expires_at_ms, now_ms + ttl_ms)
        self.touched_leases.add(lease.id)
        return ttl_ms

    def _wait_for(self, lease: Lease, *, now_ms: int) -> None:
        """Its book lives, and requests run on what it held: that is held, not in suspense.

        The book takes no new hold for it: only the ledger's own patience grows, within the window.
        """
        balance, until_ms = self.balances[lease.balance], now_ms + self._lease_ttl_ms
        ends_ms = balance.window_ends_at_ms
        if balance.ring is not None:
            ends_ms = balance.ring.end_ms(lease.expires_at_ms - 1)
        if ends_ms is not None:
            until_ms = min(until_ms, ends_ms)
        if lease.state is LeaseState.GRANTED and until_ms > lease.expires_at_ms:
            lease.expires_at_ms = until_ms
            self.touched_leases.add(lease.id)

    # ------------------------------------------------------------------ after a failover

    def adopt(
        self, item: InventoryItem, balance: str, spool: str, *, epoch: int, now_ms: int
    ) -> None:
        """Take in a lease that the ledger has forgotten, as its spool tells of it (L11).

        The caller has checked that this ledger once signed it. The cap follows: it was committed.
        """
        place = self.balances[balance]
        used = min(item.used, item.amount)
        returned = item.amount - used if item.final else min(item.returned, item.amount - used)
        lease = Lease(
            id=item.lease,
            balance=balance,
            spool=spool,
            amount=item.amount,
            expires_at_ms=now_ms + self._ttl_ms(place, now_ms=now_ms),
            epoch=epoch,
            incarnation=item.incarnation,
            group=item.lease,  # its group is forgotten: nobody will ask for it again
        )
        self.leases[lease.id] = lease
        self.new_leases.append(lease)
        place.held += item.amount
        self.touched_balances.add(balance)
        self._write(lease, TransferKind.GRANT, item.amount)
        place.cap = max(place.cap, place.committed)
        told = LeaseReport(
            item.lease, used, returned, open=item.open, overrun=item.overrun, final=item.final
        )
        self.report(told, spool=spool, now_ms=now_ms)

    # ------------------------------------------------------------------ rolling windows

    def turn(self, *, now_ms: int) -> None:
        """Let the rolling windows of the working set follow the clock, before anything else."""
        for balance in self.balances.values():
            if balance.ring is not None:
                before = balance.ring.newest
                self._age(balance, balance.ring.turn(now_ms))
                if balance.ring.newest < before:  # the clock stepped back: amounts have moved
                    self.touched_balances.add(balance.id)

    def _count_in_ring(self, lease: Lease, *, spent: int = 0, overrun: int = 0) -> None:
        balance = self.balances[lease.balance]
        if balance.ring is not None:
            bucket = balance.ring.bucket_of_lease(lease.expires_at_ms)
            self._age(balance, balance.ring.add(bucket, spent=spent, overrun=overrun))

    def _age(self, balance: Balance, aged: Aged) -> None:
        """Let go of what has left a rolling window."""
        if not aged:
            return
        balance.spent -= aged.spent
        balance.overrun -= aged.overrun
        for kind, amount in (
            (TransferKind.AGE, aged.spent),
            (TransferKind.AGE_OVERRUN, aged.overrun),
        ):
            if amount:
                self.transfers.append(Transfer(balance.id, None, kind, amount))
        balance.lower_cap()
        self.touched_balances.add(balance.id)

    # ------------------------------------------------------------------ grants

    def grant(
        self,
        ask: Ask,
        *,
        sharers: Callable[[str], int],
        reserved: Mapping[str, int],
        now_ms: int,
    ) -> list[Lease]:
        """Lease every balance of a group that fits. One transaction, all or nothing.

        `sharers` tells how many books are active on a balance, this one included: a lease is
        what is needed, or up to a share of what is free (L8). `reserved` is what older groups
        wait for.
        """
        leases = []
        for balance_id, item in ask.items:
            balance = self.balances[balance_id]
            room = balance.free - reserved.get(balance_id, 0)
            need = max(item.floor, min(item.need, room))
            books = max(1, sharers(balance_id))
            share = room // (2 * books)
            few = balance.lends and balance.limit < 4 * books  # permits go one by one
            amount = need if balance.tight or few else max(need, min(item.want, share))
            opens_ms = _opens_ms(balance, ahead=ask.group.ahead, now_ms=now_ms)
            lease = Lease(
                id=self._new_id(),
                balance=balance_id,
                spool=ask.spool,
                amount=amount,
                expires_at_ms=opens_ms + self._ttl_ms(balance, now_ms=opens_ms),
                epoch=ask.epoch,
                incarnation=ask.incarnation,
                group=ask.group.key,
            )
            balance.held += amount
            self.leases[lease.id] = lease
            self.new_leases.append(lease)
            self.touched_balances.add(balance_id)
            self._write(lease, TransferKind.GRANT, amount)
            leases.append(lease)
        return leases

    def grant_message(self, lease: Lease, *, now_ms: int) -> Grant:
        """How a lease is told to its book, now or when the same group is asked again."""
        balance = self.balances[lease.balance]
        start_ms = balance.window_start_s * 1000
        ends_ms = balance.window_ends_at_ms
        if balance.ring is not None:
            start_ms = balance.ring.bucket_of_lease(lease.expires_at_ms) * balance.ring.bucket_ms
            ends_ms = start_ms + balance.ring.bucket_ms
        return Grant(
            lease=lease.id,
            group=lease.group,
            budget=balance.budget,
            value=balance.value,
            window_start_s=start_ms // 1000,
            amount=lease.amount,
            ttl_ms=max(0, lease.expires_at_ms - now_ms),
            mac=self._sign(lease.id, balance, lease.amount),
            window_ends_at_ms=balance.window_ends_at_ms,
            limit=balance.limit,
            spent=balance.spent,
            held=balance.held,
            tight=balance.tight,
            opens_in_ms=max(0, start_ms - now_ms),
            window_ends_in_ms=None if ends_ms is None else max(0, ends_ms - now_ms),
        )

    def _ttl_ms(self, balance: Balance, *, now_ms: int) -> int:
        """How long a lease of a balance may live: never past the end of its window."""
        ends_ms = balance.window_ends_at_ms
        if balance.ring is not None:
            ends_ms = balance.ring.end_ms(now_ms)
        if ends_ms is None:
            return self._lease_ttl_ms
        return max(0, min(self._lease_ttl_ms, ends_ms - now_ms))

    # ------------------------------------------------------------------ expiry

    def expire(self, lease_id: str, *, now_ms: int) -> bool:
        """Move what a dead lease has out into suspense (L6). False: it is not due, or not live.

        A deadline further ahead than any lease lives was set before the clock stepped back: it
        would hold its amount for as long as the step. Its spool is asked instead.
        """
        lease = self.leases[lease_id]
        late = now_ms >= lease.expires_at_ms + self._grace_ms
        ahead = lease.expires_at_ms > now_ms + self._lease_ttl_ms + self._grace_ms
        if lease.state is not LeaseState.GRANTED or not (late or ahead):
            return False
        self._suspend(lease)
        self.touched_leases.add(lease_id)
        self.touched_balances.add(lease.balance)
        return True

    def _suspend(self, lease: Lease) -> None:
        balance = self.balances[lease.balance]
        balance.held -= lease.rest
        balance.suspense += lease.rest
        if lease.rest:
            self._write(lease, TransferKind.EXPIRE, lease.rest)
        lease.state = LeaseState.SUSPENDED

    def _write(self, lease: Lease, kind: TransferKind, amount: int) -> None:
        self.transfers.append(Transfer(lease.balance, lease.id, kind, amount))


def _is_known(lease: Lease, report: LeaseReport) -> bool:
    """Whether a report tells nothing new: it came late, twice, or only to renew."""
    return (
        report.used <= lease.used
        and report.returned <= lease.returned
        and report.overrun <= lease.overrun
    )


def _opens_ms(balance: Balance, *, ahead: bool, now_ms: int) -> int:
    """When a lease may first be used: at once, or at the start of the coming window (L16)."""
    if balance.ring is not None:
        return balance.ring.end_ms(now_ms) if ahead else now_ms
    return max(now_ms, balance.window_start_s * 1000)


def may_fetch_ahead(window_ends_in_ms: int, *, lease_ttl_ms: int) -> bool:
    """Whether the coming window is near enough to lease of it (L16)."""
    return 0 < window_ends_in_ms <= AHEAD_LIFETIMES * lease_ttl_ms


def committed_over_cap(balances: Iterable[Balance]) -> list[Balance]:
    """I1, as a check to leave on in production: the balances that break it."""
    return [
        b for b in balances if b.committed > b.cap or min(b.spent, b.held, b.suspense, b.given) < 0
    ]
