"""How much of a limit nobody can use when the first call is refused, and how many in vain.

    python benchmarks/stranding.py [--check] [--json FILE] [--seeds 3]

The simulator's sidecars and control plane, which run the production rules, on a calm network: one
hard lifetime balance, calls in an open loop, even over all sidecars or skewed (the n-th most busy
has 1/n of the calls). *Stranded*: free at the ledger or idle in lots, at the first refusal.
*False*: a call was refused although free and idle together would have paid for its least useful
answer. *Waited*: calls after their sidecar's first that asked the control plane while less
than half of the limit was committed.
"""

from argparse import ArgumentParser
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate

from common import Result, arguments, conclude, median

from enforcement.rules.ledger import Balance
from enforcement.rules.policy import AgentPolicy, BudgetPolicy, PolicySnapshot, ScopeKind, Unit
from enforcement.rules.wire import Attribution, Recall
from enforcement.simulation.controlplane import ControlPlane
from enforcement.simulation.engine import Request, Truth
from enforcement.simulation.kernel import Kernel, Link
from enforcement.simulation.sidecar import FLOOR, Sidecar

ORGANIZATION = "org"
AGENT = AgentPolicy("agent", "agent")
RUN_MS = 300_000
JUDGED_CALLS = 800  # after the first refusal
OUTPUTS = (20, 80, 200, 10_000)
LIMITS = (64, 256)
STRANDED_PERMILLE = 1
FALSE_PERMILLE = 2
WAITED_PERCENT = 5
SIZES = {50: (30_000, 8), 500: (20_000, 1)}  # sidecars: tokens and calls a second for each


@dataclass
class Figures:
    """One run."""

    limit: int
    calls: int = 0
    refused: int = 0
    false: int = 0
    early: int = 0
    waited: int = 0
    stranded: int = 0
    first_refusal_ms: int = 0
    spent: int = 0
    asked: list[Request] = field(default_factory=list)


def _policy(limit: int) -> PolicySnapshot:
    whole = {"scope_kind": ScopeKind.ORGANIZATION, "scope_id": ORGANIZATION, "unit": Unit.TOKENS}
    budget = BudgetPolicy("all", "all", limit=limit, **whole)
    return PolicySnapshot(ORGANIZATION, 1, pepper="5eed", agents=[AGENT], budgets=[budget])


class Run:
    """One balance, many sidecars, no faults."""

    def __init__(self, sidecars: int, *, skewed: bool, seed: int) -> None:
        self.kernel = Kernel(seed)
        tokens, calls_per_s = SIZES[sidecars]
        self.figures = Figures(sidecars * tokens)
        self.begun: set[int] = set()
        self.truth = Truth()
        self.control = ControlPlane(self.kernel, _policy(self.figures.limit))
        self.control.recall = self._recall
        link = Link(self.kernel, loss=0, duplicates=0, delay_ms=5)
        self.sidecars = [
            Sidecar(self.kernel, link, self.control, number, truth=self.truth, metered=False)
            for number in range(sidecars)
        ]
        self.by_spool = {sidecar.disk.spool: sidecar for sidecar in self.sidecars}
        weights = [1 / n if skewed else 1.0 for n in range(1, sidecars + 1)]
        self.shares = list(accumulate(weights))
        self.last_call = 0
        self.pause_ms = 1_000 / (calls_per_s * sidecars)

    def go(self) -> Figures:
        for sidecar in self.sidecars:
            sidecar.on_refused = self._refused
            sidecar.boot()
        self.kernel.at(10, self.control.tick)
        self.kernel.at(300, self._call)
        self.kernel.run(until_ms=RUN_MS, stop=self._over)
        figures = self.figures
        figures.waited = sum(request.waited for request in figures.asked)
        self.truth.catch_up()
        figures.spent = sum(self.truth.by_lease.values())
        return figures

    @property
    def balance(self) -> Balance | None:
        return next(iter(self.control.ledger.balances.values()), None)

    def _over(self) -> bool:
        return bool(self.figures.refused) and self.figures.calls >= self.last_call

    def _recall(self, spool: str, recall: Recall) -> None:
        sidecar = self.by_spool[spool]
        sidecar.link.send(sidecar.on_recall, recall)

    def _call(self) -> None:
        chance = self.kernel.random
        self.kernel.at(chance.expovariate(1 / self.pause_ms), self._call)
        (sidecar,) = chance.choices(self.sidecars, cum_weights=self.shares)
        if not sidecar.book.policy_is_fresh(now_ns=sidecar.now_ns):
            return
        self.figures.calls += 1
        first = sidecar.number not in self.begun
        self.begun.add(sidecar.number)
        before = len(sidecar.running), len(sidecar.waiting)
        sidecar.call(
            Attribution(agent=AGENT.id),
            chance.randint(5, 60),
            chance.choice(OUTPUTS),
            chance.choice(LIMITS),
        )
        balance = self.balance
        if balance is not None and not first and balance.committed * 2 < balance.limit:
            self.figures.early += 1
            news = sidecar.running[before[0] :] + sidecar.waiting[before[1] :]
            self.figures.asked.extend(news)

    def _unused(self) -> int:
        """Free at the ledger, on its way home, or idle in lots."""
        idle = sum(
            lot.free
            for sidecar in self.sidecars
            for lot in sidecar.book.lots.by_lease.values()
            if lot.live and not lot.final
        )
        balance = self.balance
        return idle + (balance.free if balance else 0)

    def _refused(self, request: Request) -> None:
        figures, unused = self.figures, self._unused()
        figures.refused += 1
        if not figures.first_refusal_ms:
            figures.first_refusal_ms = self.kernel.now_ms
            figures.stranded = unused
            self.last_call = figures.calls + JUDGED_CALLS
        figures.false += unused >= request.prompt + FLOOR


def run(place: tuple[int, bool, int]) -> Figures:
    """One run, in a process of its own."""
    sidecars, skewed, seed = place
    return Run(sidecars, skewed=skewed, seed=seed).go()


def told(sidecars: int, *, skewed: bool, found: list[Figures]) -> Result:
    result = Result(
        f"{sidecars} sidecars, {'skewed' if skewed else 'even'}",
        ["seed", "limit", "calls", "refused", "stranded", "of the limit", "false", "waited early"],
    )
    for seed, one in enumerate(found):
        result.rows.append(
            [
                seed,
                f"{one.limit:,}",
                f"{one.calls:,}",
                one.refused,
                one.stranded,
                f"{one.stranded / one.limit:.3%}",
                one.false,
                f"{one.waited / max(1, one.early):.1%}",
            ]
        )
    stranded = median([one.stranded * 1_000 / one.limit for one in found])
    false = median([one.false * 1_000 / one.calls for one in found])
    waited = median([one.waited * 100 / max(1, one.early) for one in found])
    result.goal(
        f"{stranded / 10:.3f} % stranded at the first refusal (≤ {STRANDED_PERMILLE / 10} %)",
        met=stranded <= STRANDED_PERMILLE,
    )
    result.goal(
        f"{false / 10:.2f} % of calls refused in vain (≤ {FALSE_PERMILLE / 10} %)",
        met=false <= FALSE_PERMILLE,
    )
    result.goal(
        f"{waited:.1f} % waited far from the cap (≤ {WAITED_PERCENT} %)",
        met=waited <= WAITED_PERCENT,
    )
    over = max(one.spent - one.limit for one in found)
    result.goal(f"{max(0, over)} tokens past the limit (0)", met=over <= 0)
    return result


def _more(parser: ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=3)


if __name__ == "__main__":
    asked = arguments(__doc__, more=_more)
    kinds = [(size, skewed) for size in SIZES for skewed in (False, True)]
    places = [(*kind, seed) for kind in kinds for seed in range(asked.seeds)]
    with ProcessPoolExecutor() as pool:
        figures = list(pool.map(run, places))
    conclude(
        [
            told(
                size,
                skewed=skewed,
                found=figures[n * asked.seeds : (n + 1) * asked.seeds],
            )
            for n, (size, skewed) in enumerate(kinds)
        ],
        asked,
    )
