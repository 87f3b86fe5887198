"""Bugs of leases, holds and reports, as a real program would have them (L1-L13, L16)."""

from msgspec.structs import replace

from enforcement.rules import records
from enforcement.rules.book import Book
from enforcement.rules.ledger import Ask, Lease, LeaseState, Ledger, TransferKind
from enforcement.rules.lots import Hold, Lot, Lots, Need, Shortage
from enforcement.rules.rolling import Aged
from enforcement.rules.spools import Spool
from enforcement.rules.wire import (
    Grant,
    InventoryItem,
    LeaseAck,
    LeaseReport,
    Sync,
)
from enforcement.simulation.controlplane import ControlPlane, Reply
from enforcement.simulation.engine import Request
from enforcement.simulation.sidecar import MARGIN, SLICE, Sidecar

# ---------------------------------------------------------------------------- the ledger's side


class VoidOnExpiry(Ledger):
    def expire(self, lease_id: str, *, now_ms: int) -> bool:
        lease = self.leases[lease_id]
        if not super().expire(lease_id, now_ms=now_ms):
            return False
        self.balances[lease.balance].suspense -= lease.rest
        lease.returned = lease.amount - lease.used
        return True


class ExpiryIsFinal(Ledger):
    def expire(self, lease_id: str, *, now_ms: int) -> bool:
        if not super().expire(lease_id, now_ms=now_ms):
            return False
        lease = self.leases[lease_id]
        self.balances[lease.balance].suspense -= lease.rest
        self.balances[lease.balance].spent += lease.rest
        lease.used += lease.rest
        lease.state = LeaseState.SETTLED
        return True


class ReportsAsDeltas(Ledger):
    def report(
        self, report: LeaseReport, *, spool: str, now_ms: int, recalled: bool = False
    ) -> LeaseAck | None:
        lease = self.leases.get(report.lease)
        if lease is not None and lease.state is LeaseState.GRANTED and report.used:
            more = min(report.used, lease.rest)
            lease.used += more
            self.balances[lease.balance].held -= more
            self.balances[lease.balance].spent += more
        return super().report(report, spool=spool, now_ms=now_ms, recalled=recalled)


class LastReportWins(Ledger):
    def _book(self, lease: Lease, report: LeaseReport) -> None:
        fallen = max(0, lease.used - report.used)
        balance = self.balances[lease.balance]
        if lease.state is LeaseState.GRANTED and fallen:
            lease.used -= fallen
            balance.spent -= fallen
            balance.held += fallen
        super()._book(lease, report)


class ReturnsAsDeltas(Ledger):
    def _book(self, lease: Lease, report: LeaseReport) -> None:
        if not report.final and lease.state is LeaseState.GRANTED:
            report = replace(report, returned=lease.returned + report.returned)
        super()._book(lease, report)


class FinalReturnsAll(Ledger):
    def _book(self, lease: Lease, report: LeaseReport) -> None:
        super()._book(lease, replace(report, used=0) if report.final else report)


class FinalSpendsAll(Ledger):
    def _book(self, lease: Lease, report: LeaseReport) -> None:
        super()._book(lease, replace(report, used=lease.amount) if report.final else report)


class LateUseIsForgiven(Ledger):
    def _book(self, lease: Lease, report: LeaseReport) -> None:
        late = lease.state is LeaseState.SUSPENDED
        super()._book(lease, replace(report, used=lease.used) if late else report)


class FinalityForgotten(Ledger):
    def _book(self, lease: Lease, report: LeaseReport) -> None:
        super()._book(lease, replace(report, final=False))


class GrantsWithoutALimit(Ledger):
    def grant(self, ask: Ask, **how):  # type: ignore[no-untyped-def]  # noqa: ANN003, ANN201
        for balance_id, _ in ask.items:
            self.balances[balance_id].limit *= 2
        leases = super().grant(ask, **how)
        for balance_id, _ in ask.items:
            self.balances[balance_id].limit //= 2
        return leases


class GroupsGrantedInPart(Ledger):
    def grant(self, ask: Ask, **how):  # type: ignore[no-untyped-def]  # noqa: ANN003, ANN201
        leases = super().grant(ask, **how)
        return leases[:1]


class GrantsBesideTheJournal(Ledger):
    def _write(self, lease: Lease, kind: TransferKind, amount: int) -> None:
        if kind is not TransferKind.LATE_SETTLE:
            super()._write(lease, kind, amount)


class LeasesLiveForEver(Ledger):
    def expire(self, lease_id: str, *, now_ms: int) -> bool:  # noqa: ARG002
        return False


class TrustsItsOwnClock(Ledger):
    def expire(self, lease_id: str, *, now_ms: int) -> bool:
        if now_ms < self.leases[lease_id].expires_at_ms:
            return False
        return super().expire(lease_id, now_ms=now_ms)


class RollsOneBucketTooSoon(Ledger):
    def turn(self, *, now_ms: int) -> None:
        super().turn(now_ms=now_ms)
        for balance in self.balances.values():
            if balance.ring is not None:
                oldest, balance.ring.spent[0] = balance.ring.spent[0], 0
                self._age(balance, Aged(oldest))


class EveryAskIsNew(ControlPlane):
    def _repeat(self, group: str) -> list[Grant]:
        del self._groups[group]
        return []

    def on_sync(self, sync: Sync, reply: Reply) -> None:
        for group in sync.groups:
            if group.key in self._groups:
                self._repeat(group.key)
        super().on_sync(sync, reply)


class LearnsNothing(ControlPlane):
    @property
    def learning(self) -> bool:
        return False


class AdoptsNothing(ControlPlane):
    def _adopt(self, item: InventoryItem, spool: Spool) -> None:
        """Says Welcome, and forgets what it was told."""


# ---------------------------------------------------------------------------- the book's side


class TakesOldGrants(Book):
    def on_answer(self, answer, sync, **how):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN003, ANN201
        asked_by = self.asked_by
        if answer.status == "ok":
            self.asked_by = self.incarnation
        effects = super().on_answer(answer, sync, **how)
        if answer.status == "ok":
            self.asked_by = asked_by
        return effects


class NostalgicBooks(Sidecar):
    book_type = TakesOldGrants


class TrustsAnOldPolicy(Book):
    def policy_is_fresh(self, *, now_ns: int) -> bool:  # noqa: ARG002
        return not self.fenced


class StaleBooks(Sidecar):
    book_type = TrustsAnOldPolicy


class OpensAtOnce(Lots):
    def add(self, grant, **how):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN003, ANN201
        lot = super().add(grant, **how)
        lot.opens_ns = 0
        return lot


class EarlyBooks(Sidecar):
    lots_type = OpensAtOnce


class OneBalanceForgotten(Lots):
    def _take(self, needs, *, now_ns):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return super()._take([n for n in needs if n.budget != "org"], now_ns=now_ns)


class ForgetfulBooks(Sidecar):
    lots_type = OneBalanceForgotten


class TakesWhatThereIs(Lots):
    def _take(self, needs, *, now_ns):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        wanted = list(needs)
        taken = super()._take(wanted, now_ns=now_ns)
        if not isinstance(taken, Shortage):
            return taken
        less = []
        for budget, value, amount in wanted:
            here = self.free_of((budget, value), now_ns=now_ns)
            less.append(Need(budget, value, min(amount, here)))
        return super()._take(less, now_ns=now_ns) if all(n.amount for n in less) else taken


class GenerousBooks(Sidecar):
    lots_type = TakesWhatThereIs


class DebitsTwice(Lots):
    def _debit(self, pairs, amount, paid):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        left = super()._debit(pairs, amount, paid)
        for lot, _ in pairs[:1]:
            lot.used += min(1, lot.free)
        return left


class SloppyBooks(Sidecar):
    lots_type = DebitsTwice


class SendsHomeWhatIsOpen(Lots):
    def send_home(self, lot: Lot) -> None:
        if not lot.final and lot.open:
            lot.returned += lot.open
            lot.open = 0
        super().send_home(lot)


class HomesickBooks(Sidecar):
    lots_type = SendsHomeWhatIsOpen


class FinalBeforeItsRequests(Lots):
    def send_home(self, lot: Lot) -> None:
        super().send_home(lot)
        if not lot.final:
            lot.final, lot.live = True, False
            self.journal_out.append(records.Final(lot.lease))


class ImpatientBooks(Sidecar):
    lots_type = FinalBeforeItsRequests


class ForgetsWhatItDebited(Lots):
    def settle(self, hold: Hold, used, **how):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN003, ANN201
        return super().settle(hold, {key: amount // 2 for key, amount in used.items()}, **how)


class CheapBooks(Sidecar):
    lots_type = ForgetsWhatItDebited


class HoldsOnlyASlice(Sidecar):
    def _needs(self, request: Request) -> list[Need]:
        amount = request.prompt + SLICE
        return [Need(budget, value, amount) for budget, value in request.keys]


class HoldsNoPrompt(Sidecar):
    def _needs(self, request: Request) -> list[Need]:
        amount = SLICE + MARGIN if self.metered else request.limit
        return [Need(budget, value, amount) for budget, value in request.keys]


class MetersWithoutAMargin(Sidecar):
    def _needs(self, request: Request) -> list[Need]:
        amount = request.prompt + (SLICE if self.metered else request.limit)
        return [Need(budget, value, amount) for budget, value in request.keys]


class ServesBeforeTheJournal(Sidecar):
    def _write(self) -> bool:
        out = self.book.lots.journal_out
        late: list[records.Record] = []
        for record in out:
            if isinstance(record, records.Settled):
                late.append(records.Held(record.hold, record.used))
            if not isinstance(record, records.Held):
                late.append(record)
        out[:] = late
        return super()._write()


class JournalWithoutSettlements(Sidecar):
    def _write(self) -> bool:
        for record in self.book.lots.journal_out:
            if isinstance(record, records.Settled):
                record.used.clear()
        return super()._write()


class TrustsTheTailAfterPowerLoss(Sidecar):
    def _end_the_kernel(self) -> None:
        """The journal does not say on which boot of the kernel it was written."""


class SpoolWithoutIdentity(Sidecar):
    def lose_disk(self) -> str:
        gone = self.disk.spool
        self.disk.data, self.disk.durable, self.disk.sequence = b"", 0, 0
        return gone


class ForgetsBeforeItIsTold(Sidecar):
    def _send_sync(self) -> None:
        super()._send_sync()
        for lot in list(self.book.lots.by_lease.values()):
            if lot.final:
                self.book.lots.acknowledge_final(lot, at_ms=0)
                del self.book.lots.by_lease[lot.lease]


class DisownsItsLeases(Sidecar):
    def boot(self) -> None:
        super().boot()
        if isinstance(self.book, Book):
            self.book.lots.by_lease.clear()
            self.book.lots.by_balance.clear()


class AnswersNobody(Book):
    def _answer_unsettled(self, items: list[InventoryItem], *, now_ns: int) -> None:
        """Says nothing of leases that the ledger asks for."""


class SilentBooks(Sidecar):
    book_type = AnswersNobody
