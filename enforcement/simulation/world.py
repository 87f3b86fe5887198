"""A whole world from a seed: sidecars, agents, faults, then healing, then judgement.

A violation that the oracles find ends the run; the seed is the bug report.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

from enforcement.rules.ledger import Ledger
from enforcement.rules.wire import Recall
from enforcement.simulation.controlplane import ControlPlane
from enforcement.simulation.disk import Disk
from enforcement.simulation.engine import Truth
from enforcement.simulation.kernel import Kernel, Link
from enforcement.simulation.load import Load
from enforcement.simulation.oracles import Oracles
from enforcement.simulation.organization import draw
from enforcement.simulation.rows import rows_of
from enforcement.simulation.sidecar import Sidecar

HOSTS = 4
BOOKS_PER_HOST = 2
RUN_MS = 20_000
HEAL_MS = 12_000  # at most: see `_look_for_rest`
QUIESCE_MS = 4_500  # after the faults: longer than a lease, a policy and any call last
REST_MS = 700  # one heartbeat of everybody, after all is at rest
SWARM_SHARE = 0.7
LATE_LIMIT = 20_000
FAULTS = {
    "crash": 20,  # kill -9 of a worker
    "host": 6,  # of both workers of a host
    "disk": 5,  # the volume is gone
    "power": 10,  # and the tail of what was not synced
    "effects": 12,  # kill -9 between any two effects, or within a write
    "write": 8,  # EIO or ENOSPC on write: the spool takes nothing for a while
    "sync": 6,  # fdatasync fails, and the kernel drops what it could not write
    "rot": 3,  # a bit of the spool flips
    "pause": 14,  # SIGSTOP
    "cut": 15,  # the link of a host
    "control": 8,  # kill -9 of the control plane: all books reconnect at once
    "limit": 12,  # lowered or raised by a person
    "budget": 4,  # somebody makes a hard budget that all calls match
    "clock": 10,  # the ledger's clock steps
    "failover": 8,  # a replica is promoted that lacks up to 300 ms of commits
}
FAILOVERS_IN = 8  # every eighth seed is heavy with failovers
MOST_LOST_MS = 300
MOST_EFFECTS = 25
MOST_PATIENT_MS = 1_000  # a book that cannot sync is started again by then
CLOCK_STEPS_MS = (-3_600_000, -4_000, -700, 700, 4_000, 3_600_000)


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
        policy = draw(chance)
        loss = 0.0 if calm else chance.choice([0, 0.02, 0.1, 0.3])
        duplicates = 0.0 if calm else chance.choice([0, 0.05, 0.2])
        delay_ms = 5 if calm else chance.choice([5, 50, 400, 1_500])
        metered = seed % 4 == 3
        # Swarm: each seed leaves some kinds of faults out, so that the others meet more often.
        self.kinds = {
            kind: weight for kind, weight in FAULTS.items() if chance.random() < SWARM_SHARE
        } or dict(FAULTS)
        if seed % FAILOVERS_IN == 5:
            self.kinds["failover"] = 60
        if "failover" in self.kinds:  # what a dead disk and a failover both forgot, nobody knows
            self.kinds.pop("disk", None)
            self.kinds.pop("rot", None)
        self.control = control(kernel, policy, ledger)
        self.control.recall = self._recall
        links = [
            Link(kernel, loss=loss, duplicates=duplicates, delay_ms=delay_ms) for _ in range(HOSTS)
        ]
        self.links, truth = links, Truth()
        self.sidecars = [
            sidecar(
                kernel,
                links[n // BOOKS_PER_HOST],
                self.control,
                n,
                truth=truth,
                metered=metered,
            )
            for n in range(HOSTS * BOOKS_PER_HOST)
        ]
        self.load = Load(kernel, self.sidecars)
        self.oracles = Oracles(kernel, self.control, self.sidecars, truth)
        self.report.violations = self.oracles.violations
        self.healing = self.resting = False

    def run(self) -> Report:
        kernel = self.kernel
        for sidecar in self.sidecars:
            sidecar.on_held = self.oracles.on_held
            sidecar.on_given_up = self.oracles.on_given_up
            sidecar.boot()
        kernel.at(10, self.control.tick)
        kernel.at(15, self.oracles.watch)
        self.load.start()
        if not self.calm:
            kernel.at(kernel.random.randint(200, 1_000), self._fault)
        kernel.run(until_ms=RUN_MS, stop=self._failed)
        if not self._failed():
            self._heal()
            kernel.run(until_ms=RUN_MS + HEAL_MS, stop=self._is_over)
        if not self._failed():
            self.oracles.judge()
        return self._finish()

    def _failed(self) -> bool:
        return bool(self.report.violations)

    def _is_over(self) -> bool:
        return self.resting or self._failed()

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

    def _recall(self, spool: str, recall: Recall) -> None:
        for sidecar in self.sidecars:
            if sidecar.disk.spool == spool:
                sidecar.link.send(sidecar.run, sidecar.on_recall, recall)

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
        self.kernel.at(chance.randint(60, 1_650), self._fault)

    def _strike(self, kind: str, sidecar: Sidecar, *, back_ms: int, step_ms: int) -> None:
        sibling = self.sidecars[sidecar.number ^ 1]
        match kind:
            case "crash":
                self._crash([sidecar], back_ms)
            case "host":
                self._crash([sidecar, sibling], back_ms)
            case "disk":
                self._crash([sidecar], back_ms)
                self.oracles.dead_spools.add(sidecar.lose_disk())
            case "effects":
                sidecar.on_died = lambda: self.kernel.at(back_ms, sidecar.boot)
                sidecar.set_fuse(1 + back_ms % MOST_EFFECTS)
            case "write":
                sidecar.disk.fails = True
                self.kernel.at(back_ms, self._repair, sidecar.disk)
                if back_ms % 2:  # it dies with what it could not write
                    self.kernel.at(back_ms - 5, self._crash, [sidecar], back_ms // 10)
            case "sync":
                sidecar.disk.sync_fails = True
                self.kernel.at(back_ms % MOST_PATIENT_MS, self._crash, [sidecar], back_ms // 10)
            case "rot":
                self._crash([sidecar], back_ms)
                if sidecar.disk.rot(self.kernel.random):
                    self.oracles.rotten.add(sidecar.disk.spool)
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
            case "budget":
                self.control.add_budget(LATE_LIMIT)
            case "clock":
                self.oracles.note_step()
                self.control.step_clock(step_ms)
            case "failover":
                self.kernel.at(back_ms % MOST_LOST_MS, self._fail_over, self.control.remember())

    def _fail_over(self, rows: bytes) -> None:
        """Unless a spool was first seen within what is lost: nobody could know of it."""
        if self.healing or not self.control.up:
            return
        before = rows_of(rows)
        if before.spools.keys() >= self.control.spools.keys():
            then = {row.handle: row for row in before.parts}
            changed = [r for r in self.control.trees.rows if then.get(r.handle) != r]
            self.oracles.lost_trees |= {row.root for row in changed}
            self.control.fail_over(before)

    def _crash(self, sidecars: list[Sidecar], back_ms: int, *, power: bool = False) -> None:
        for sidecar in sidecars:
            sidecar.crash(power=power)
            self.kernel.at(back_ms, sidecar.boot)

    def _repair(self, disk: Disk) -> None:
        disk.fails = False

    def _resume(self, sidecar: Sidecar) -> None:
        sidecar.paused = False

    def _mend(self, link: Link) -> None:
        link.cut = False

    def _change_a_limit(self) -> None:
        chance = self.kernel.random
        balances = self.control.ledger.balances
        given = {row.part.child for row in self.control.trees.rows}
        if balances.keys() - given:
            balance = balances[chance.choice(sorted(balances.keys() - given))]
            factor = chance.choice([30, 70, 120])
            self.control.change_limit(balance, balance.limit * factor // 100)

    def _heal(self) -> None:
        self.healing = self.load.over = True
        self.control.restart()
        for link in self.links:
            link.cut, link.healed = False, True
        for sidecar in self.sidecars:
            sidecar.paused = False
            sidecar.set_fuse(0)
            sidecar.disk.fails = sidecar.disk.sync_fails = False
            if sidecar.disk.sync_failed:
                sidecar.crash()
            sidecar.boot()
            self.kernel.at(QUIESCE_MS, sidecar.quiesce)
        self.kernel.at(QUIESCE_MS, self.control.trees.end_all)
        self.kernel.at(QUIESCE_MS, self._look_for_rest, False)

    def _look_for_rest(self, before: bool) -> None:
        """Nothing is out any more, and for one heartbeat nothing came: what follows is idle."""
        now = self.oracles.at_rest
        self.resting = before and now
        self.kernel.at(REST_MS, self._look_for_rest, now)
