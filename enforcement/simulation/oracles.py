"""What must be true of a simulated world, by the engines' own count. Named after the invariants.

I1 at every commit, L2, L12, L15 and L16 at every hold, I2 and L14 all the time; I3, I6 and I8 after
healing. What is found is told in words that name the law.
"""

from collections import Counter
from collections.abc import Sequence

from enforcement.rules.delegation import DelegationState
from enforcement.rules.ledger import Balance, LeaseState, TransferKind
from enforcement.rules.lots import Hold
from enforcement.rules.rights import Rights
from enforcement.rules.splits import is_counted
from enforcement.simulation.controlplane import POLICY_TTL_MS, ControlPlane
from enforcement.simulation.engine import Request, Truth
from enforcement.simulation.kernel import Kernel
from enforcement.simulation.organization import (
    LATE,
    MAX_USERS,
    OF_SESSIONS,
    Charges,
    root_of,
)
from enforcement.simulation.sidecar import Sidecar
from enforcement.simulation.tally import Tally

CHECK_EVERY_MS = 120
SKEW_MS = 150  # clocks here drift apart twice as fast as the protocol allows for
INTO_SPENT = (
    TransferKind.SETTLE,
    TransferKind.LATE_SETTLE,
    TransferKind.WRITE_OFF,
    TransferKind.USAGE,
    TransferKind.CHILD_SPENT,
)


class Oracles:
    """Watch one world. The world says what its faults took away: nobody can know that."""

    def __init__(
        self, kernel: Kernel, control: ControlPlane, sidecars: Sequence[Sidecar], truth: Truth
    ) -> None:
        self.violations: list[str] = []
        self.dead_spools: set[str] = set()
        self.rotten: set[str] = set()  # spools in which a bit flipped
        self.lost_trees: set[str] = set()  # roots of parts that a failover forgot
        self._kernel = kernel
        self._control = control
        self._sidecars = sidecars
        self._truth = truth
        self._tally = Tally(truth, control)
        self._charges: dict[int, Charges] = {}  # by revision, of the production rules

    def _found(self, text: str) -> None:
        self.violations.append(f"{self._kernel.now_ms} ms: {text}")

    # ------------------------------------------------------------------ all the time

    def watch(self) -> None:
        self._truth.catch_up()
        for balance in self._control.over_cap:
            self._found(f"I1 {balance}")
        balances = self._control.ledger.balances
        for balance, made in self._tally.made():
            if made > balance.cap:
                self._found(f"I2 overspend of {made - balance.cap} on {balance}")
        if self._tally.unknown and not self._control.learning:
            for lease in sorted(self._tally.unknown - self._control.of_lost_budgets):
                self._found(f"L11 {lease} was used, and nobody knows it")
        if self._truth.unheld > 0:
            self._found("I2 tokens were made that no hold paid for")
        if any(sidecar.fooled for sidecar in self._sidecars):
            self._found("L10 a key was answered that came again with other content")
        for (budget, root), made in self._truth.of_trees.items():
            top = balances.get(f"{budget}/{root}/0")
            if root not in self.lost_trees and top is not None and made > top.cap:
                self._found(f"L14 a tree made {made - top.cap} more than {top}")
        self._kernel.at(CHECK_EVERY_MS, self.watch)

    def note_step(self) -> None:
        """The ledger's clock stepped: windows cannot be told any more."""
        self._tally.stepped = True

    def on_given_up(self, spool: str) -> None:
        """A spool is put aside whole: only what is damaged may be."""
        self.dead_spools.add(spool)
        if spool not in self.rotten:
            self._found(f"I8 {spool} was given up, though nothing was wrong with it")

    # ------------------------------------------------------------------ at every hold

    def on_held(self, request: Request, hold: Hold) -> None:
        leases = self._control.ledger.leases
        for pairs in hold.parts.values():
            for spool in {leases[lot.lease].spool for lot, _ in pairs if lot.lease in leases}:
                heard_us = self._control.heard_us.get(spool, 0)
                if self._kernel.now_us - heard_us > POLICY_TTL_MS * 1_050:
                    self._found(f"L12 a hold under a policy that is over: {spool}")
        self._check_budgets(request, hold)
        self._check_windows(hold)

    def _check_budgets(self, request: Request, hold: Hold) -> None:
        """Every budget that the call matches is held on, those that are armed by now included."""
        control = self._control
        revision = control.policy.revision
        if revision not in self._charges:
            self._charges[revision] = Charges(Rights(control.policy))
        matched = {key[0] for key in self._charges[revision].of(request.facts)}
        armed = control.armed_revision == revision
        if not armed or self._kernel.now_us < control.armed_us + SKEW_MS * 1_000:
            matched.discard(LATE)
        missing = matched - {budget for budget, _ in hold.parts}
        for budget in OF_SESSIONS:
            if sum(key[0] == budget for key in hold.parts) > 1:
                self._found(f"L14 a call pays two sessions: {sorted(hold.parts)}")
        if missing:
            law = "L12" if missing == {LATE} else "L15"
            self._found(f"{law} a call holds nothing on {sorted(missing)}")

    def _check_windows(self, hold: Hold) -> None:
        """A charge belongs to the window in which its hold was placed, by the ledger's clock.

        After a step of that clock nobody can tell: a lot keeps the window that it was granted for.
        """
        if self._tally.stepped:
            return
        now_ms = self._control.now_ms
        for pairs in hold.parts.values():
            for lot, _ in pairs:
                lease = self._control.ledger.leases.get(lot.lease)
                if lease is None:
                    continue  # forgotten by a failover; it will be adopted
                balance = self._control.ledger.balances[lease.balance]
                start_ms, end_ms = lot.window_start_s * 1_000, balance.window_ends_at_ms
                if balance.ring is not None:
                    end_ms = start_ms + balance.ring.bucket_ms
                late = end_ms is not None and now_ms >= end_ms + SKEW_MS
                if now_ms < start_ms - SKEW_MS or late:
                    self._found(f"L16 a hold outside of the window of {lease}")

    # ------------------------------------------------------------------ after healing

    @property
    def at_rest(self) -> bool:
        """Whether nothing is out any more that can come home."""
        control = self._control
        calls = any(sidecar.running or sidecar.waiting for sidecar in self._sidecars)
        if calls or control.armed_revision != control.policy.revision or control.learning:
            return False
        leases = control.ledger.leases.values()
        out = [x for x in leases if x.state is not LeaseState.SETTLED]
        if any(lease.spool not in self.dead_spools for lease in out):
            return False
        stuck = self._stuck_trees()
        return all(row.root in stuck for row in control.trees.open)

    def judge(self) -> None:
        """Each lease exact up to what a crash had open, nothing stranded, nothing twice."""
        self._truth.catch_up()
        truth = self._truth.by_lease
        self._judge_groups()
        known = self._control.ledger.leases.keys() | self._control.of_lost_budgets
        for lease_id in truth.keys() - known:
            self._found(f"L11 {lease_id} was used, and nobody knows it")
        self._judge_leases(truth)
        self._recompute()
        self._judge_trees()
        self._judge_gifts()
        self._judge_splits()
        if self._control.armed_revision != self._control.policy.revision:
            self._found("L12 a budget is not armed though every book has been heard")

    def _judge_groups(self) -> None:
        leases = self._control.ledger.leases.values()
        lies = set[str]().union(*(sidecar.lies for sidecar in self._sidecars))
        asked = Counter((lease.group, lease.balance) for lease in leases)
        for (group, balance_id), count in asked.items():
            if count > 1:
                self._found(f"L10 {group} has {count} leases of {balance_id}")
            if group in lies:
                self._found(f"L15 {balance_id} was leased to somebody else")

    def _judge_leases(self, truth: dict[str, int]) -> None:
        power = set[str]().union(*(sidecar.power_lost for sidecar in self._sidecars))
        for lease in self._control.ledger.leases.values():
            made = truth.get(lease.id, 0)
            if lease.spool in self.dead_spools and lease.state is not LeaseState.SETTLED:
                if made > lease.amount - lease.returned:
                    self._found(f"I3 dead spool handed back what was used: {lease}")
                continue
            if lease.state is not LeaseState.SETTLED:
                self._found(f"I8 stranded {lease}")
            if lease.used < made:
                self._found(f"I3 under-count {made - lease.used} on {lease}")
            allowed = lease.amount if lease.id in power else self._allowed(lease.id)
            if lease.used > made + allowed:
                self._found(f"I3 over-count {lease.used - made} on {lease}")

    def _allowed(self, lease: str) -> int:
        return sum(sidecar.allowed_over.get(lease, 0) for sidecar in self._sidecars)

    def _recompute(self) -> None:
        """I6: the counters of a balance are the sum of its transfers."""
        ledger, moved = self._control.ledger, Counter[tuple[str, TransferKind]]()
        for balance_id, _lease, kind, amount in ledger.transfers:
            moved[balance_id, kind] += amount
        for balance in ledger.balances.values():
            of = {kind: moved[balance.id, kind] for kind in TransferKind}
            spent = sum(of[kind] for kind in INTO_SPENT) - of[TransferKind.AGE]
            if spent != balance.spent:
                self._found(f"I6 spent {balance.spent}, transfers say {spent}: {balance.id}")
            back = of[TransferKind.COME_HOME] + of[TransferKind.CHILD_SPENT]
            if of[TransferKind.DELEGATE] - back != balance.given:
                self._found(f"I6 given {balance.given}, transfers say otherwise: {balance.id}")

    def _judge_trees(self) -> None:
        """L14: what was given came home or was settled, and the root has what its tree made."""
        ledger, made = self._control.ledger, self._truth.of_trees
        stuck = self._stuck_trees()
        for row in self._control.trees.rows:
            if row.part.state is not DelegationState.CLOSED and row.root not in stuck:
                self._found(f"L14 a part did not come home: {row}")
            child = ledger.balances[row.part.child]
            closed = row.part.state is DelegationState.CLOSED and row.root not in self.lost_trees
            if closed and not child.overrun and child.spent > row.part.spent:
                self._found(f"L14 a part was settled before all was known: {row}")
        for balance in ledger.balances.values():
            place = (balance.budget, balance.value)
            if balance.budget in OF_SESSIONS and balance.value not in stuck and place in made:
                self._judge_root(balance, made[place])

    def _stuck_trees(self) -> set[str]:
        """Roots of trees of which nobody knows the end."""
        ledger = self._control.ledger
        out = {x.balance for x in ledger.leases.values() if x.spool in self.dead_spools}
        return self.lost_trees | {root_of(ledger.balances[one].value) for one in out}

    def _judge_root(self, root: Balance, made: int) -> None:
        ledger = self._control.ledger
        counted, allowed = root.spent + root.overrun, 0
        for lease in ledger.leases.values():
            balance = ledger.balances[lease.balance]
            if balance.budget == root.budget and root_of(balance.value) == root.value:
                lost = any(lease.id in sidecar.power_lost for sidecar in self._sidecars)
                allowed += lease.amount if lost else self._allowed(lease.id)
        if not made <= counted <= made + allowed:
            self._found(f"L14 {root} counts {counted}, its tree made {made}, {allowed} may differ")

    def _judge_gifts(self) -> None:
        """L14: no child has a balance that nobody gave, but for what a failover made it adopt."""
        ledger = self._control.ledger
        given = {row.part.child for row in self._control.trees.rows}
        adopted = {x.balance for x in ledger.leases.values() if x.group == x.id}
        for balance in ledger.balances.values():
            child = balance.budget in OF_SESSIONS and balance.value != root_of(balance.value)
            if child and balance.id not in given | adopted:
                self._found(f"L14 nobody gave {balance}")

    def _judge_splits(self) -> None:
        """L15: no split has more values than it may, but for what a failover made it adopt."""
        ledger = self._control.ledger
        adopted = {lease.balance for lease in ledger.leases.values() if lease.group == lease.id}
        balances = ledger.balances.values()
        users = [b for b in balances if b.budget == "user" and b.id not in adopted]
        if sum(is_counted(balance.value) for balance in users) > MAX_USERS:
            self._found(f"L15 {len(users)} balances of a split that may have {MAX_USERS}")
