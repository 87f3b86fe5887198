"""Planted protocol bugs, one law each: the simulator must find every one of them."""

from enforcement.rules import records
from enforcement.rules.ledger import LeaseState, Ledger
from enforcement.rules.lots import Lots, Need
from enforcement.rules.wire import LeaseAck, LeaseReport
from enforcement.simulation.sidecar import SLICE, Request, Sidecar


class VoidOnExpiry(Ledger):
    """L6: an expired lease is given back to the budget instead of going to suspense."""

    def expire(self, lease_id: str, *, now_ms: int) -> bool:
        lease = self.leases[lease_id]
        if not super().expire(lease_id, now_ms=now_ms):
            return False
        balance = self.balances[lease.balance]
        balance.suspense -= lease.rest
        lease.returned = lease.amount - lease.used
        lease.state = LeaseState.SUSPENDED
        return True


class ReportsAsDeltas(Ledger):
    """L5: what a report says is added, instead of being a watermark."""

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


class OneBalanceForgotten(Lots):
    """L2: a hold is placed although one of its balances is short."""

    def _take(self, needs, *, now_ns):  # noqa: ANN202
        return super()._take([n for n in needs if n.budget != "org"], now_ns=now_ns)


class GrantUsedBeforeItIsDurable(Lots):
    """L4: a lot is used although its grant is not on stable storage."""

    def add(self, grant, **how):  # noqa: ANN003, ANN201
        lot = super().add(grant, **how)
        lot.durable = True
        return lot


class ForgetfulBooks(Sidecar):
    """Holds one balance too few."""

    lots_type = OneBalanceForgotten


class HastyBooks(Sidecar):
    lots_type = GrantUsedBeforeItIsDurable


class ServesBeforeTheJournal(Sidecar):
    """L4: the bytes go out before the hold is in the journal."""

    def _write(self) -> None:
        out = self.book.lots.journal_out
        out[:] = [record for record in out if not isinstance(record, records.Held)]
        settled = [record for record in out if isinstance(record, records.Settled)]
        self.disk.written.extend(records.Held(r.hold, r.used) for r in settled)
        super()._write()


class TrustsTheTailAfterPowerLoss(Sidecar):
    """L4: the kernel's boot id is ignored, so a torn journal counts as the whole truth."""

    def _lose_power(self) -> None:
        boot = self.kernel_boot
        super()._lose_power()
        self.kernel_boot = boot


class SpoolWithoutIdentity(Sidecar):
    """L7: a new, empty disk speaks for the old one's leases."""

    def lose_disk(self) -> str:
        gone = self.disk.spool
        self.disk.written = []
        self.disk.durable = 0
        return gone


class HoldsOnlyASlice(Sidecar):
    """L2: a strict hold covers the prompt and a slice, not all that the engine may produce."""

    def _needs(self, request: Request) -> list[Need]:
        amount = request.prompt + SLICE
        return [Need(budget, value, amount) for budget, value in request.keys]


LEDGERS = [VoidOnExpiry, ReportsAsDeltas]
SIDECARS = [
    ForgetfulBooks,
    HastyBooks,
    ServesBeforeTheJournal,
    TrustsTheTailAfterPowerLoss,
    SpoolWithoutIdentity,
    HoldsOnlyASlice,
]
