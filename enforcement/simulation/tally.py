"""What engines made, balance by balance, kept up to date as they make it.

A lease is looked at again only when tokens were made on it, but for those of rolling windows, which
age, and those that a failover made the ledger forget.
"""

from collections.abc import Iterable

from enforcement.rules.ledger import Balance, Ledger
from enforcement.simulation.controlplane import ControlPlane
from enforcement.simulation.engine import Truth


class Tally:
    """The truth of one world, by the balances that its ledger knows."""

    def __init__(self, truth: Truth, control: ControlPlane) -> None:
        self.stepped = False  # the ledger's clock did: windows cannot be told any more
        self.unknown: set[str] = set()  # leases with tokens that the ledger does not know
        self._truth = truth
        self._control = control
        self._incarnation = control.incarnation
        self._counted: dict[str, int] = {}  # by lease: what stands in `_made`
        self._made: dict[str, int] = {}  # by balance, those of rolling windows left out
        self._rolling: set[str] = set()  # leases of rolling windows

    def made(self) -> Iterable[tuple[Balance, int]]:
        """Each balance with what was made on it; in rolling windows what they count now.

        After a step of the ledger's clock nobody can tell what these should count.
        """
        if self._incarnation != self._control.incarnation:
            self._start_again()
        ledger = self._control.ledger
        looked_at = self._truth.fresh | self.unknown
        self.unknown.clear()
        self._truth.fresh.clear()
        for lease in looked_at:
            self._look_at(lease, ledger)
        made = self._made
        if self._rolling and not self.stepped:
            made = made | self._in_windows(ledger)
        return [(ledger.balances[balance], tokens) for balance, tokens in made.items()]

    def _start_again(self) -> None:
        """Another incarnation may know other leases than the one before."""
        self._incarnation = self._control.incarnation
        self._counted.clear()
        self._made.clear()
        self._rolling.clear()
        self._truth.fresh.update(self._truth.by_lease)

    def _look_at(self, lease_id: str, ledger: Ledger) -> None:
        lease = ledger.leases.get(lease_id)
        if lease is None:
            self.unknown.add(lease_id)
        elif ledger.balances[lease.balance].ring is not None:
            self._rolling.add(lease_id)
        else:
            tokens = self._truth.by_lease[lease_id]
            more = tokens - self._counted.get(lease_id, 0)
            self._counted[lease_id] = tokens
            self._made[lease.balance] = self._made.get(lease.balance, 0) + more

    def _in_windows(self, ledger: Ledger) -> dict[str, int]:
        made: dict[str, int] = {}
        for lease_id in self._rolling:
            lease = ledger.leases[lease_id]
            ring = ledger.balances[lease.balance].ring
            if ring is None:
                continue
            age = ring.newest - ring.bucket_of_lease(lease.expires_at_ms)
            if age < len(ring.spent):
                tokens = self._truth.by_lease[lease_id]
                made[lease.balance] = made.get(lease.balance, 0) + tokens
        return made
