"""The lots of one book: what a sidecar worker still has of its leases, and what holds them.

1. Each lease is its own lot with its own deadline; lots are never pooled (L1).
2. Placing a hold is all or nothing over every balance of a request, in one step (L2).
3. A lot's life counts from when it was asked for, on this book's own clock, shortened by the
   drift allowance; past it the lot takes no new hold, running requests finish (L3).
4. A lot may be used only after its grant is durable; every change appends to `journal_out`,
   which the shell writes before it acts (L4).
5. `used`, `returned` and `overrun` never fall; `used + open + returned ≤ amount` (L5).
6. A settlement above its hold takes the lot's rest, then other live lots of that balance, then
   `overrun` (L13).

Sans-IO: no clock, no disk, no network. `now_ns` is the book's own boot-time clock.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from enforcement.rules import records
from enforcement.rules.wire import Grant, InventoryItem, LeaseReport, Part, UsageEvent

NS_PER_MS = 1_000_000
DRIFT_PERMILLE = 20  # how much faster than ours the control plane's clock may run
IDLE_NS = 60_000 * NS_PER_MS
STICKY_RECALL_NS = 1_000 * NS_PER_MS

FORGET_MS = 600_000  # how long an acknowledged lease stays in the inventory

BalanceKey = tuple[str, str]  # budget id, split value
Watermarks = tuple[int, int, int, bool]  # used, returned, overrun, final


class InvariantError(AssertionError):
    """The book contradicts itself: fail closed for this balance, never go on silently."""


class Need(NamedTuple):
    """What a request must be able to pay from one balance."""

    budget: str
    value: str
    amount: int


class Shortage(NamedTuple):
    """A hold that could not be placed: what is missing, balance by balance."""

    missing: tuple[Need, ...]


class Lot:
    """One lease in this book's hands."""

    __slots__ = (
        "acked",
        "acked_at_ms",
        "amount",
        "deadline_ns",
        "durable",
        "final",
        "incarnation",
        "key",
        "last_use_ns",
        "lease",
        "live",
        "mac",
        "open",
        "opens_ns",
        "overrun",
        "patient_ns",
        "returned",
        "said",
        "used",
        "window_start_s",
    )

    def __init__(
        self, granted: records.Granted, *, deadline_ns: int, now_ns: int, live: bool
    ) -> None:
        self.lease = granted.lease
        self.key: BalanceKey = (granted.budget, granted.value)
        self.window_start_s = granted.window_start_s
        self.amount = granted.amount
        self.incarnation = granted.incarnation
        self.mac = granted.mac
        self.used = self.returned = self.overrun = self.open = 0
        self.deadline_ns = deadline_ns
        self.patient_ns = now_ns  # when the ledger was last asked to wait for what runs on it
        self.opens_ns = 0  # takes no hold before: its window has not begun (L16)
        self.last_use_ns = now_ns
        self.live = live  # takes new holds until its deadline
        self.durable = False
        self.final = False
        self.acked = False  # the ledger has booked the final
        self.acked_at_ms = 0
        self.said: Watermarks | None = None  # what the ledger has confirmed

    @property
    def free(self) -> int:
        return self.amount - self.used - self.open - self.returned

    def usable(self, now_ns: int) -> bool:
        return self.live and self.durable and self.opens_ns <= now_ns < self.deadline_ns

    def state(self) -> Watermarks:
        """What the ledger must learn; `open` is a gauge, it rides along."""
        return self.used, self.returned, self.overrun, self.final

    def check(self) -> None:
        if min(self.used, self.open, self.returned, self.free) < 0:
            raise InvariantError(
                f"lease {self.lease}: {self.state()}, {self.open} of {self.amount}"
            )

    def report(self, *, renew: bool) -> LeaseReport:
        return LeaseReport(
            lease=self.lease,
            used=self.used,
            returned=self.returned,
            open=self.open,
            overrun=self.overrun,
            final=self.final,
            renew=renew,
        )

    def inventory(self) -> InventoryItem:
        return InventoryItem(
            lease=self.lease,
            budget=self.key[0],
            value=self.key[1],
            window_start_s=self.window_start_s,
            amount=self.amount,
            used=self.used,
            returned=self.returned,
            overrun=self.overrun,
            open=self.open,
            final=self.final,
            incarnation=self.incarnation,
            mac=self.mac,
        )


class Hold:
    """What one request has reserved. `parts` maps a balance to [lot, amount] pairs."""

    __slots__ = ("id", "parts", "settled")

    def __init__(self, hold_id: int, parts: dict[BalanceKey, list[tuple[Lot, int]]]) -> None:
        self.id = hold_id
        self.parts = parts
        self.settled = False

    def amount(self, key: BalanceKey) -> int:
        return sum(amount for _, amount in self.parts.get(key, ()))

    def as_parts(self) -> list[Part]:
        """The whole hold as charge parts: what to book if nothing else is heard of the request."""
        return [
            Part(budget=key[0], value=key[1], lease=lot.lease, amount=amount)
            for key, pairs in self.parts.items()
            for lot, amount in pairs
        ]


class Lots:
    """All lots of a book, their holds, and the journal records that the shell must write."""

    def __init__(self) -> None:
        self.by_lease: dict[str, Lot] = {}
        self.by_balance: dict[BalanceKey, list[Lot]] = {}
        self.holds: dict[int, Hold] = {}
        self.journal_out: list[records.Record] = []
        self.tight_until_ns: dict[BalanceKey, int] = {}
        self._next_hold = 1

    # ------------------------------------------------------------------ grants

    def add(self, grant: Grant, *, incarnation: str, asked_ns: int, now_ns: int, live: bool) -> Lot:
        """Take a lease in. Its life counts from `asked_ns`; not `live`: only to hand it back."""
        granted = records.Granted(
            lease=grant.lease,
            budget=grant.budget,
            value=grant.value,
            window_start_s=grant.window_start_s,
            amount=grant.amount,
            incarnation=incarnation,
            mac=grant.mac,
        )
        deadline_ns = asked_ns + life_ns(grant.ttl_ms)
        lot = Lot(granted, deadline_ns=deadline_ns, now_ns=now_ns, live=live)
        if grant.opens_in_ms:
            lot.opens_ns = now_ns + wait_ns(grant.opens_in_ms)
        self.insert(lot)
        self.journal_out.append(granted)
        if grant.tight:
            self.tight_until_ns[lot.key] = now_ns + STICKY_RECALL_NS
        if not live:
            self.retire(lot)
        return lot

    def insert(self, lot: Lot) -> None:
        """Take a lot in: of its balance, those that take holds come first, oldest in front."""
        self.by_lease[lot.lease] = lot
        lots = self.by_balance.setdefault(lot.key, [])
        place = len(lots)
        while lot.live and place and not lots[place - 1].live:
            place -= 1
        lots.insert(place, lot)

    def mark_durable(self, leases: Iterable[str]) -> None:
        """Say that the grants of these leases are on stable storage (L4)."""
        for lease in leases:
            if lot := self.by_lease.get(lease):
                lot.durable = True

    def free_of(self, key: BalanceKey, *, now_ns: int) -> int:
        """What new holds can still take of this balance here."""
        return sum(lot.free for lot in self.by_balance.get(key, ()) if lot.usable(now_ns))

    # ------------------------------------------------------------------ holds

    def place(
        self, needs: Iterable[Need], *, now_ns: int, event: UsageEvent | None = None
    ) -> Hold | Shortage:
        """Hold every need at once, or nothing. A need may be split over lots of its balance."""
        taken = self._take(needs, now_ns=now_ns)
        if isinstance(taken, Shortage):
            return taken
        hold = Hold(self._next_hold, taken)
        self._next_hold += 1
        self.holds[hold.id] = hold
        self._open(hold, taken, event=event, now_ns=now_ns)
        return hold

    def extend(
        self, hold: Hold, needs: Iterable[Need], *, now_ns: int, event: UsageEvent | None = None
    ) -> Shortage | None:
        """Reserve more for a running request: all or nothing; None when it succeeded."""
        taken = self._take(needs, now_ns=now_ns)
        if isinstance(taken, Shortage):
            return taken
        for key, pairs in taken.items():
            hold.parts.setdefault(key, []).extend(pairs)
        self._open(hold, taken, event=event, now_ns=now_ns)
        return None

    def _take(
        self, needs: Iterable[Need], *, now_ns: int
    ) -> dict[BalanceKey, list[tuple[Lot, int]]] | Shortage:
        taken: dict[BalanceKey, list[tuple[Lot, int]]] = {}
        missing: list[Need] = []
        for budget, value, amount in needs:
            key, left = (budget, value), amount
            pairs: list[tuple[Lot, int]] = []
            for lot in self.by_balance.get(key, ()):
                if left <= 0 or not lot.live:  # those that ended stand behind the others
                    break
                free = lot.amount - lot.used - lot.open - lot.returned
                if free > 0 and lot.durable and lot.opens_ns <= now_ns < lot.deadline_ns:
                    pairs.append((lot, min(left, free)))
                    left -= free
            if left > 0:
                missing.append(Need(budget, value, left))
            taken[key] = pairs
        return Shortage(tuple(missing)) if missing else taken

    def _open(
        self,
        hold: Hold,
        taken: dict[BalanceKey, list[tuple[Lot, int]]],
        *,
        event: UsageEvent | None,
        now_ns: int,
    ) -> None:
        parts: list[records.LeaseAmount] = []
        for pairs in taken.values():
            for lot, amount in pairs:
                lot.open += amount
                lot.last_use_ns = now_ns
                parts.append((lot.lease, amount))
        self.journal_out.append(records.Held(hold.id, parts, event))

    def settle(
        self,
        hold: Hold,
        used: Mapping[BalanceKey, int],
        *,
        now_ns: int,
        event: UsageEvent | None = None,
    ) -> list[Part]:
        """End a hold: what was used is debited, the rest is free again. Returns the parts paid.

        `event`, with these parts in it, is journaled in the same record (`Settled.event`). A hold
        settles once.

        Raises:
            InvariantError: the hold was settled before, or a used amount is negative.
        """
        if hold.settled or min(used.values(), default=0) < 0:
            raise InvariantError(f"hold {hold.id} settled twice or below zero: {used}")
        hold.settled = True
        del self.holds[hold.id]
        paid: list[tuple[Lot, int]] = []
        over: list[tuple[Lot, int]] = []
        loose: list[Part] = []
        for key, pairs in hold.parts.items():
            left = self._debit(pairs, used.get(key, 0), paid)
            if left:
                left = self._debit_free(key, left, paid, pairs=pairs, now_ns=now_ns)
            if left and pairs:
                pairs[0][0].overrun += left
                over.append((pairs[0][0], left))
            elif left:
                loose.append(Part(key[0], key[1], "", left))
        parts = [Part(*lot.key, lot.lease, amount) for lot, amount in (*paid, *over)] + loose
        self.journal_out.append(
            records.Settled(
                hold.id,
                [(lot.lease, amount) for lot, amount in paid],
                [(lot.lease, amount) for lot, amount in over],
                None if event is None else msgspec.structs.replace(event, parts=parts),
            )
        )
        self._after_release(hold, now_ns=now_ns)
        return parts

    def _debit(self, pairs: list[tuple[Lot, int]], amount: int, paid: list[tuple[Lot, int]]) -> int:
        for lot, held in pairs:
            lot.open -= held
            take = min(amount, held)
            if take:
                lot.used += take
                amount -= take
                paid.append((lot, take))
        return amount

    def _debit_free(
        self,
        key: BalanceKey,
        amount: int,
        paid: list[tuple[Lot, int]],
        *,
        pairs: list[tuple[Lot, int]],
        now_ns: int,
    ) -> int:
        """L13: the rest of live lots of the same window pays for what the hold did not cover."""
        windows = {lot.window_start_s for lot, _ in pairs}
        for lot in self.by_balance.get(key, ()):
            of_window = not windows or lot.window_start_s in windows
            take = min(lot.free, amount) if of_window and lot.usable(now_ns) else 0
            if take > 0:
                lot.used += take
                amount -= take
                paid.append((lot, take))
        return amount

    def _after_release(self, hold: Hold, *, now_ns: int) -> None:
        for key, pairs in hold.parts.items():
            home = self.tight_until_ns.get(key, 0) > now_ns
            for lot, _ in pairs:
                lot.last_use_ns = now_ns
                held = lot.open
                free = lot.amount - lot.used - held - lot.returned
                if free < 0 or held < 0 or lot.used < 0 or lot.returned < 0:
                    lot.check()
                if home or not (free or held) or not lot.live or now_ns >= lot.deadline_ns:
                    self.send_home(lot)

    # ------------------------------------------------------------------ ends

    def send_home(self, lot: Lot) -> None:
        """Return what is free of a lot; it is final once nothing is open either."""
        if lot.final:
            return
        if lot.free:
            lot.returned += lot.free
            self.journal_out.append(records.Returned(lot.lease, lot.returned))
        if not lot.open:
            lot.final = True
            self._end(lot)
            self.journal_out.append(records.Final(lot.lease))

    def retire(self, lot: Lot) -> None:
        """Take no new hold on a lot and send home what is free of it."""
        self._end(lot)
        self.send_home(lot)

    def _end(self, lot: Lot) -> None:
        """No new hold on this lot. It goes behind those that still take some."""
        if lot.live:
            lot.live = False
            lots = self.by_balance[lot.key]
            lots.remove(lot)
            lots.append(lot)

    def close(self) -> None:
        """The book shuts down: take no new hold anywhere, send home whatever is free (L6)."""
        for lot in self._live_lots():
            self.retire(lot)

    def recall(self, key: BalanceKey, *, now_ns: int) -> None:
        """Send home what is idle of a balance, now and for a second (L8)."""
        self.tight_until_ns[key] = now_ns + STICKY_RECALL_NS
        for lot in list(self.by_balance.get(key, ())):
            self.send_home(lot)

    def expire(self, *, now_ns: int) -> None:
        """Close lots past their deadline, and idle ones of a tight balance."""
        for lot in self._live_lots():
            idle = now_ns - lot.last_use_ns >= IDLE_NS
            if (
                now_ns >= lot.deadline_ns
                or not lot.live
                or (idle and self.is_tight(lot.key, now_ns))
            ):
                self.retire(lot)

    def _live_lots(self) -> list[Lot]:
        return [lot for lots in self.by_balance.values() for lot in lots if not lot.final]

    def is_tight(self, key: BalanceKey, now_ns: int) -> bool:
        return self.tight_until_ns.get(key, 0) > now_ns

    def acknowledge_final(self, lot: Lot, *, at_ms: int) -> None:
        """The ledger has booked this final: the lot needs no more reports."""
        if lot.final and not lot.acked:
            lot.acked, lot.acked_at_ms = True, at_ms
            self.by_balance[lot.key].remove(lot)
            if not self.by_balance[lot.key]:
                del self.by_balance[lot.key]
            self.journal_out.append(records.Acknowledged(lot.lease, at_ms))

    def forget(self, *, before_ms: int) -> list[str]:
        """Drop leases whose final was acknowledged before an instant; their records may be cut."""
        gone = [x.lease for x in self.by_lease.values() if x.acked and x.acked_at_ms < before_ms]
        for lease in gone:
            del self.by_lease[lease]
        return gone

    def skip_holds(self, hold_id: int) -> None:
        """Never number a hold like one that the journal knows."""
        self._next_hold = max(self._next_hold, hold_id + 1)


def life_ns(ttl_ms: int) -> int:
    """A duration of the control plane's clock as it may be trusted on ours (L3)."""
    return ttl_ms * NS_PER_MS * (1000 - DRIFT_PERMILLE) // 1000


def wait_ns(wait_ms: int) -> int:
    """A wait on the control plane's clock that is over on ours for certain (L3, L16)."""
    return wait_ms * NS_PER_MS * (1000 + DRIFT_PERMILLE) // 1000
