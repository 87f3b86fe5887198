"""A whole world from a seed: sidecars, agents, faults, then healing, then judgement.

Oracles, named after the invariants of the design: I1 and I2 at every tick, I3, I6 and I8 after
healing. A violation ends the run; the seed is the bug report.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from enforcement.rules.ledger import Balance, LeaseState, Ledger, TransferKind, committed_over_cap
from enforcement.rules.lots import Hold
from enforcement.rules.wire import Recall
from enforcement.simulation.controlplane import POLICY_TTL_MS, ControlPlane
from enforcement.simulation.kernel import Kernel, Link
from enforcement.simulation.sidecar import Sidecar

HOSTS = 4
BOOKS_PER_HOST = 2
RUN_MS = 30_000
HEAL_MS = 12_000
AGENTS = 4
SWARM_SHARE = 0.7
FAULTS = {
    "crash": 20,  # kill -9 of a worker
    "host": 6,  # of both workers of a host
    "disk": 5,  # the volume is gone
    "power": 10,  # and the tail of what was not synced
    "pause": 14,  # SIGSTOP
    "cut": 15,  # the link of a host
    "control": 8,  # kill -9 of the control plane: all books reconnect at once
    "limit": 12,  # lowered or raised by a person
    "clock": 10,  # the ledger's clock steps
    "failover": 8,  # a replica is promoted that lacks up to 300 ms of commits
}
MOST_LOST_MS = 300
CLOCK_STEPS_MS = (-3_600_000, -4_000, -700, 700, 4_000, 3_600_000)
SKEW_MS = 150  # clocks here drift apart twice as fast as the protocol allows for
INTO_SPENT = (
    TransferKind.SETTLE,
    TransferKind.LATE_SETTLE,
    TransferKind.WRITE_OFF,
    TransferKind.USAGE,
)


@dataclass
class Report:
    """What a run found."""

    seed: int
    violations: list[str] = field(default_factory=list)
    faults: int = 0
    served: int = 0
    refused: int = 0
    events: int = 0
    spent: int = 0
    happened: list[int] = field(default_factory=list)  # numbers of the faults that struck
    digest: str = ""


class World:
    """One seeded run. `calm` switches the faults off, `ledger` and `sidecar` plant mutants.

    `skip` leaves out faults by their number, everything else being drawn as before: what a
    shrunk seed is made of.
    """

    def __init__(
        self,
        seed: int,
        *,
        calm: bool = False,
        ledger: type[Ledger] = Ledger,
        sidecar: type[Sidecar] = Sidecar,
        control: type[ControlPlane] = ControlPlane,
        trace: bool = False,
        skip: Collection[int] = (),
    ) -> None:
        self.kernel = kernel = Kernel(seed)
        if trace:
            kernel.trace = []
        chance = kernel.random
        self.seed = seed
        self.calm = calm
        self.skip = frozenset(skip)
        self.report = Report(seed)
        limits = {
            "org": chance.choice([15_000, 40_000, 90_000]),
            "team": chance.choice([6_000, 12_000, 30_000]),
            "agent": chance.choice([2_000, 5_000, 9_000]),
            "session": chance.choice([400, 900, 4_000]),
            "model": chance.choice([9_000, 25_000]),
        }
        loss = 0.0 if calm else chance.choice([0, 0.02, 0.1, 0.3])
        duplicates = 0.0 if calm else chance.choice([0, 0.05, 0.2])
        delay_ms = 5 if calm else chance.choice([5, 50, 400, 1_500])
        metered = seed % 4 == 3
        # Swarm: each seed leaves some kinds of faults out, so that the others meet more often.
        self.kinds = {
            kind: weight for kind, weight in FAULTS.items() if chance.random() < SWARM_SHARE
        } or dict(FAULTS)
        if "failover" in self.kinds:  # what a dead disk and a failover both forgot, nobody knows
            self.kinds.pop("disk", None)
        self.control = control(kernel, limits, ledger)
        self.control.recall = self._recall
        links = [
            Link(kernel, loss=loss, duplicates=duplicates, delay_ms=delay_ms) for _ in range(HOSTS)
        ]
        self.links = links
        self.sidecars = [
            sidecar(kernel, links[n // BOOKS_PER_HOST], self.control, n, metered=metered)
            for n in range(HOSTS * BOOKS_PER_HOST)
        ]
        self.dead_spools: set[str] = set()
        self.healing = False
        self.stepped = False
        self._sessions: dict[int, int] = {}

    def run(self) -> Report:
        kernel = self.kernel
        for sidecar in self.sidecars:
            sidecar.on_held = self._check_hold
            sidecar.boot()
        kernel.at(10, self.control.tick)
        kernel.at(15, self._check)
        for agent in range(AGENTS):
            kernel.at(kernel.random.uniform(20, 200), self._agent, agent)
        if not self.calm:
            kernel.at(kernel.random.randint(300, 1_500), self._fault)
        kernel.run(until_ms=RUN_MS, stop=self._failed)
        if not self._failed():
            self._heal()
            kernel.run(until_ms=RUN_MS + HEAL_MS, stop=self._failed)
        if not self._failed():
            self._judge()
        return self._finish()

    def _failed(self) -> bool:
        return bool(self.report.violations)

    def _finish(self) -> Report:
        report = self.report
        report.served = sum(s.served for s in self.sidecars)
        report.refused = sum(s.refused for s in self.sidecars)
        report.events = self.kernel.events
        report.spent = sum(b.spent for b in self.control.ledger.balances.values())
        for name in sorted(self.control.ledger.balances):
            self.kernel.note(f"{self.control.ledger.balances[name]}")
        report.digest = self.kernel.digest
        return report

    # ------------------------------------------------------------------ load

    def _agent(self, agent: int) -> None:
        """An agent calls again and again; a new session now and then."""
        chance = self.kernel.random
        if not self.healing:
            self.kernel.at(chance.expovariate(1 / 120), self._agent, agent)
            if chance.random() < 0.05:
                self._sessions[agent] = self._sessions.get(agent, 0) + 1
            session = f"{agent}.{self._sessions.get(agent, 0)}"
            keys = [("org", ""), ("team", str(agent % 2)), ("agent", str(agent))]
            keys += [("session", session)]
            if chance.random() < 0.5:
                keys += [("model", "")]
            sidecar = chance.choice(self.sidecars)
            output = chance.choice([20, 80, 200, 10_000])
            sidecar.call(keys, chance.randint(5, 60), output, chance.choice([64, 256]))

    def _recall(self, spool: str, recall: Recall) -> None:
        for sidecar in self.sidecars:
            if sidecar.disk.spool == spool:
                sidecar.link.send(sidecar.on_recall, recall)

    # ------------------------------------------------------------------ faults

    def _fault(self) -> None:
        if self.healing:
            return
        chance = self.kernel.random
        number = self.report.faults
        self.report.faults += 1
        sidecar = chance.choice(self.sidecars)
        back_ms = chance.randint(10, 5_000)
        (kind,) = chance.choices(list(self.kinds), list(self.kinds.values()))
        step_ms = chance.choice(CLOCK_STEPS_MS)
        if number not in self.skip:
            self.kernel.note(f"fault {number} {kind} {sidecar.number} {back_ms}")
            self.report.happened.append(number)
            self._strike(kind, sidecar, back_ms=back_ms, step_ms=step_ms)
        self.kernel.at(chance.randint(100, 2_500), self._fault)

    def _strike(self, kind: str, sidecar: Sidecar, *, back_ms: int, step_ms: int) -> None:
        sibling = self.sidecars[sidecar.number ^ 1]
        match kind:
            case "crash":
                self._crash([sidecar], back_ms)
            case "host":
                self._crash([sidecar, sibling], back_ms)
            case "disk":
                self._crash([sidecar], back_ms)
                self.dead_spools.add(sidecar.lose_disk())
            case "power":
                self._crash([sidecar, sibling], back_ms, power=True)
            case "pause":
                sidecar.paused = True
                self.kernel.at(back_ms, self._resume, sidecar)
            case "cut":
                sidecar.link.cut = True
                self.kernel.at(back_ms, self._mend, sidecar.link)
            case "control":
                self.control.crash()
                self.kernel.at(back_ms, self.control.restart)
            case "limit":
                self._change_a_limit()
            case "clock":
                self.stepped = True
                self.control.step_clock(step_ms)
            case "failover":
                self.kernel.at(back_ms % MOST_LOST_MS, self._fail_over, self.control.remember())

    def _fail_over(self, rows: bytes) -> None:
        """Unless a spool was first seen within what is lost: nobody could know of it."""
        known = set(self.control.spools)
        if not self.healing and self.control.up and self.control.knows(rows) >= known:
            self.control.fail_over(rows)

    def _crash(self, sidecars: list[Sidecar], back_ms: int, *, power: bool = False) -> None:
        for sidecar in sidecars:
            sidecar.crash(power=power)
            self.kernel.at(back_ms, sidecar.boot)

    def _resume(self, sidecar: Sidecar) -> None:
        sidecar.paused = False

    def _mend(self, link: Link) -> None:
        link.cut = False

    def _change_a_limit(self) -> None:
        chance = self.kernel.random
        balances = self.control.ledger.balances
        if balances:
            balance = balances[chance.choice(sorted(balances))]
            factor = chance.choice([30, 70, 120])
            self.control.change_limit(balance, balance.limit * factor // 100)

    def _heal(self) -> None:
        self.healing = True
        self.control.restart()
        for link in self.links:
            link.cut, link.healed = False, True
        for sidecar in self.sidecars:
            sidecar.paused = False
            sidecar.boot()
            self.kernel.at(HEAL_MS - 4_000, sidecar.quiesce)

    # ------------------------------------------------------------------ oracles

    def _violation(self, text: str) -> None:
        self.report.violations.append(f"{self.kernel.now_ms} ms: {text}")

    def _check(self) -> None:
        ledger = self.control.ledger
        for balance in committed_over_cap(ledger.balances.values()):
            self._violation(f"I1 {balance}")
        truth = self._truth()
        for balance_id, made in truth.items():
            balance = ledger.balances[balance_id]
            if made > balance.cap:
                self._violation(f"I2 overspend of {made - balance.cap} on {balance}")
        if any(sum(sidecar.unheld.values()) > 0 for sidecar in self.sidecars):
            self._violation("I2 tokens were made that no hold paid for")
        self.kernel.at(60, self._check)

    def _check_hold(self, hold: Hold) -> None:
        leases = self.control.ledger.leases
        for pairs in hold.parts.values():
            for spool in {leases[lot.lease].spool for lot, _ in pairs if lot.lease in leases}:
                heard_us = self.control.heard_us.get(spool, 0)
                if self.kernel.now_us - heard_us > POLICY_TTL_MS * 1_050:
                    self._violation(f"L12 a hold under a policy that is over: {spool}")
        self._check_windows(hold)

    def _check_windows(self, hold: Hold) -> None:
        """A charge belongs to the window in which its hold was placed, by the ledger's clock.

        After a step of that clock nobody can tell: a lot keeps the window that it was granted for.
        """
        if self.stepped:
            return
        now_ms = self.control.now_ms
        for pairs in hold.parts.values():
            for lot, _ in pairs:
                lease = self.control.ledger.leases.get(lot.lease)
                if lease is None:
                    continue  # forgotten by a failover; it will be adopted
                balance = self.control.ledger.balances[lease.balance]
                start_ms, end_ms = lot.window_start_s * 1_000, balance.window_ends_at_ms
                if balance.ring is not None:
                    end_ms = start_ms + balance.ring.bucket_ms
                late = end_ms is not None and now_ms >= end_ms + SKEW_MS
                if now_ms < start_ms - SKEW_MS or late:
                    self._violation(f"L16 a hold outside of the window of {lease}")

    def _truth(self) -> dict[str, int]:
        """What engines really made, balance by balance; in rolling windows what they count now.

        After a step of the ledger's clock nobody can tell what these should count.
        """
        made: dict[str, int] = {}
        ledger = self.control.ledger
        for sidecar in self.sidecars:
            for lease_id, tokens in sidecar.truth.items():
                lease = ledger.leases.get(lease_id)
                if lease is None:
                    if tokens and not self.control.learning:
                        self._violation(f"L11 {lease_id} was used, and nobody knows it")
                    continue
                ring = ledger.balances[lease.balance].ring
                if ring is not None:
                    age = ring.newest - ring.bucket_of_lease(lease.expires_at_ms)
                    if self.stepped or age >= len(ring.spent):
                        continue
                made[lease.balance] = made.get(lease.balance, 0) + tokens
        return made

    def _judge(self) -> None:
        """After healing: each lease exact up to what a crash had open, nothing stranded."""
        ledger = self.control.ledger
        truth: dict[str, int] = {}
        over: dict[str, int] = {}
        power: set[str] = set()
        for sidecar in self.sidecars:
            truth |= sidecar.truth
            power |= sidecar.power_lost
            for lease_id, amount in sidecar.allowed_over.items():
                over[lease_id] = over.get(lease_id, 0) + amount
        asked = Counter((lease.group, lease.balance) for lease in ledger.leases.values())
        for (group, balance_id), count in asked.items():
            if count > 1:
                self._violation(f"L10 {group} has {count} leases of {balance_id}")
        for lease_id in truth.keys() - ledger.leases.keys():
            if truth[lease_id]:
                self._violation(f"L11 {lease_id} was used, and nobody knows it")
        for lease in ledger.leases.values():
            made = truth.get(lease.id, 0)
            if lease.spool in self.dead_spools and lease.state is not LeaseState.SETTLED:
                if made > lease.amount - lease.returned:
                    self._violation(f"I3 dead spool handed back what was used: {lease}")
                continue
            if lease.state is not LeaseState.SETTLED:
                self._violation(f"I8 stranded {lease}")
            if lease.used < made:
                self._violation(f"I3 under-count {made - lease.used} on {lease}")
            allowed = lease.amount if lease.id in power else over.get(lease.id, 0)
            if lease.used > made + allowed:
                self._violation(f"I3 over-count {lease.used - made} on {lease}")
        for balance in ledger.balances.values():
            self._recompute(balance)

    def _recompute(self, balance: Balance) -> None:
        """I6: the counters of a balance are the sum of its transfers."""
        moved = dict.fromkeys(TransferKind, 0)
        for transfer in self.control.ledger.transfers:
            if transfer.balance == balance.id:
                moved[transfer.kind] += transfer.amount
        spent = sum(moved[kind] for kind in INTO_SPENT) - moved[TransferKind.AGE]
        if spent != balance.spent:
            self._violation(f"I6 spent {balance.spent}, transfers say {spent}: {balance.id}")
