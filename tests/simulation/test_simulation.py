"""The protocol under faults: nothing is overspent, lost, doubled or stranded, in any seed."""

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor

import pytest

from enforcement.simulation.mutants import MUTANTS
from enforcement.simulation.protocolbugs import VoidOnExpiry
from enforcement.simulation.run import caught_at, run_plain, run_seed, shrink
from enforcement.simulation.world import FAULTS, World

SEEDS = 500
PROVEN_LAWS = {f"L{n}" for n in range(1, 17)} | {"I1", "I7"}


@pytest.fixture(scope="module")
def cores() -> Iterator[Executor]:
    """Every core: a seed needs nothing but itself."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        yield pool


def test_no_seed_breaks_an_invariant(cores: Executor) -> None:
    reports = list(cores.map(run_plain, range(SEEDS), chunksize=5))
    assert [(r.seed, r.violations[0]) for r in reports if r.violations] == []
    assert [report.seed for report in reports] == list(range(SEEDS))
    assert all(report.served for report in reports)
    assert sum(report.faults for report in reports) > 10 * SEEDS


def test_every_planted_bug_is_caught(cores: Executor) -> None:
    caught = list(cores.map(caught_at, MUTANTS))
    escaped = [m.name for m, hit in zip(MUTANTS, caught, strict=True) if hit is None]
    assert escaped == []
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 25
    assert {mutant.law for mutant in MUTANTS} == PROVEN_LAWS


def test_the_same_seed_gives_the_same_run() -> None:
    first, again = World(7).run(), World(7).run()
    assert (first.digest, first.events, first.spent) == (again.digest, again.events, again.spent)
    assert World(8).run().digest != first.digest


def test_a_swarm_of_seeds_meets_every_kind_of_fault_in_many_mixes() -> None:
    mixes = {tuple(World(seed).kinds) for seed in range(60)}
    assert len(mixes) > 30
    assert {kind for mix in mixes for kind in mix} == set(FAULTS)


def test_a_failing_seed_shrinks_to_the_faults_that_it_needs() -> None:
    def breaks(skip: frozenset[int]) -> bool:
        return bool(run_seed(3, ledger=VoidOnExpiry, skip=skip)[0].violations)

    everything = run_seed(3)[0].happened
    assert breaks(frozenset())
    needed = shrink(3, fails=breaks)
    assert len(needed) < len(everything)
    assert breaks(frozenset(everything) - frozenset(needed))
    for fault in needed:
        assert not breaks(frozenset(everything) - frozenset(needed) | {fault})


def sim(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "controlplane.cli.main", "sim", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_runs_seeds_and_tells_one() -> None:
    many = sim("--seeds", "4", "--first", "40", "--json")
    assert many.returncode == 0, many.stderr
    told = json.loads(many.stdout)
    assert (told["seeds"], told["broken"]) == (4, 0)
    one = sim("--seed", "7", "--trace", "--format", "quiet")
    assert one.returncode == 0, one.stderr
    assert sum(" fault " in line for line in one.stdout.splitlines()) == World(7).run().faults
