"""The protocol under faults: nothing is overspent, lost, doubled or stranded, in any seed."""

import pytest

from enforcement.rules.ledger import Ledger
from enforcement.rules.lots import InvariantError
from enforcement.simulation.sidecar import Sidecar
from enforcement.simulation.world import World
from tests.simulation import mutants

SEEDS = 200
BATCH = 10
MUTANT_SEEDS = 40


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_no_seed_breaks_an_invariant(first: int) -> None:
    reports = [World(seed).run() for seed in range(first, first + BATCH)]
    assert [(r.seed, r.violations[0]) for r in reports if r.violations] == []
    assert sum(report.served for report in reports) > 0


def test_the_same_seed_gives_the_same_run() -> None:
    first, again = World(7).run(), World(7).run()
    assert (first.digest, first.events, first.spent) == (again.digest, again.events, again.spent)
    assert World(8).run().digest != first.digest


def caught_at(*, ledger: type[Ledger] = Ledger, sidecar: type[Sidecar] = Sidecar) -> int | None:
    """The first seed that exposes a planted bug."""
    for seed in range(MUTANT_SEEDS):
        try:
            if World(seed, ledger=ledger, sidecar=sidecar).run().violations:
                return seed
        except (InvariantError, AssertionError):
            return seed
    return None


@pytest.mark.parametrize("ledger", mutants.LEDGERS)
def test_a_planted_bug_of_the_ledger_is_caught(ledger: type[Ledger]) -> None:
    assert caught_at(ledger=ledger) is not None


@pytest.mark.parametrize("sidecar", mutants.SIDECARS)
def test_a_planted_bug_of_the_sidecar_is_caught(sidecar: type[Sidecar]) -> None:
    assert caught_at(sidecar=sidecar) is not None
