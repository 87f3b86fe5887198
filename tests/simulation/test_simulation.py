"""The protocol under faults: nothing is overspent, lost, doubled or stranded, in any seed."""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor

import pytest

from enforcement.rules.ledger import Ledger
from enforcement.rules.lots import InvariantError
from enforcement.simulation.sidecar import Sidecar
from enforcement.simulation.world import Report, World
from tests.simulation import mutants

SEEDS = 200
MUTANT_SEEDS = 40


@pytest.fixture(scope="module")
def cores() -> Iterator[Executor]:
    """Every core: a seed needs nothing but itself."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        yield pool


def run(seed: int) -> Report:
    return World(seed).run()


def test_no_seed_breaks_an_invariant(cores: Executor) -> None:
    reports = list(cores.map(run, range(SEEDS), chunksize=5))
    assert [(r.seed, r.violations[0]) for r in reports if r.violations] == []
    assert [report.seed for report in reports] == list(range(SEEDS))
    assert all(report.served for report in reports)
    assert sum(report.faults for report in reports) > 10 * SEEDS


def test_the_same_seed_gives_the_same_run() -> None:
    first, again = World(7).run(), World(7).run()
    assert (first.digest, first.events, first.spent) == (again.digest, again.events, again.spent)
    assert World(8).run().digest != first.digest


def caught_at(ledger: type[Ledger], sidecar: type[Sidecar]) -> int | None:
    """The first seed that exposes a planted bug."""
    for seed in range(MUTANT_SEEDS):
        try:
            if World(seed, ledger=ledger, sidecar=sidecar).run().violations:
                return seed
        except (InvariantError, AssertionError):
            return seed
    return None


def test_every_planted_bug_is_caught(cores: Executor) -> None:
    planted = [(ledger, Sidecar) for ledger in mutants.LEDGERS]
    planted += [(Ledger, sidecar) for sidecar in mutants.SIDECARS]
    caught = list(cores.map(caught_at, *zip(*planted, strict=True)))
    escaped = [pair for pair, seed in zip(planted, caught, strict=True) if seed is None]
    assert escaped == []
    assert len(caught) == 8
