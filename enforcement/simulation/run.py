"""Run seeds and say what they found; make a failing one small."""

from collections.abc import Callable, Iterable

from enforcement.rules.ledger import Ledger
from enforcement.rules.lots import InvariantError
from enforcement.rules.spoolframes import DamageError
from enforcement.simulation.controlplane import ControlPlane
from enforcement.simulation.mutants import Mutant
from enforcement.simulation.sidecar import Sidecar
from enforcement.simulation.world import Report, World

MUTANT_SEEDS = 200


def run_seed(
    seed: int,
    *,
    ledger: type[Ledger] = Ledger,
    sidecar: type[Sidecar] = Sidecar,
    control: type[ControlPlane] = ControlPlane,
    skip: Iterable[int] = (),
    trace: bool = False,
) -> tuple[Report, list[str]]:
    """One seed; with `trace`, the log of the run beside its report.

    An assertion of the rules that fails is a violation like any other, and so is a journal that
    cannot be replayed.
    """
    world = World(
        seed, ledger=ledger, sidecar=sidecar, control=control, skip=tuple(skip), trace=trace
    )
    try:
        report = world.run()
    except (InvariantError, AssertionError, LookupError, DamageError) as error:
        report = world.report
        report.violations.append(f"{world.kernel.now_ms} ms: {type(error).__name__} {error}")
    return report, world.kernel.trace or []


def run_plain(seed: int) -> Report:
    """One seed of the production rules: what a pool of processes maps over."""
    return run_seed(seed)[0]


def shrink(seed: int, *, fails: Callable[[frozenset[int]], bool] | None = None) -> list[int]:
    """The faults without which a failing seed does not fail, as far as leaving out one by one
    and in halves finds them.

    `fails` tells whether the seed still fails when these faults are left out.
    """
    judge = fails or (lambda skip: bool(run_seed(seed, skip=skip)[0].violations))
    needed = _struck(seed, frozenset())
    left_out: frozenset[int] = frozenset()
    size = max(1, len(needed) // 2)
    while needed:
        smaller = False
        for start in range(0, len(needed), size):
            without = left_out | frozenset(needed[start : start + size])
            if judge(without):
                left_out, smaller = without, True
                needed = [fault for fault in needed if fault not in left_out]
                break
        if not smaller:
            if size == 1:
                break
            size //= 2
    return needed


def _struck(seed: int, skip: frozenset[int]) -> list[int]:
    return run_seed(seed, skip=skip)[0].happened


def caught_at(mutant: Mutant, seeds: int = MUTANT_SEEDS) -> tuple[int, str] | None:
    """The first seed that exposes a planted bug, and what it broke; None if it escapes."""
    for seed in range(seeds):
        report, _ = run_seed(
            seed, ledger=mutant.ledger, sidecar=mutant.sidecar, control=mutant.control
        )
        if report.violations:
            return seed, report.violations[0]
    return None
