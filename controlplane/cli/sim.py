"""`comptroller sim`: the lease protocol under seeded faults, with the production rules."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager

from controlplane.cli.output import Exit, Output
from enforcement.simulation.mutants import MUTANTS
from enforcement.simulation.run import caught_at, run_plain, run_seed, shrink

MOST_SHOWN = 20
TELL_EVERY = 250  # seeds


def run_seeds(output: Output, *, first: int, count: int, jobs: int) -> Exit:
    """Run many seeds. A violation is told with the faults that it needs, and fails the command."""
    begun = time.monotonic()
    failed, faults, served, refused = [], 0, 0, 0
    with _pool(jobs) as pool:
        reports = pool.map(run_plain, range(first, first + count), chunksize=4)
        for done, report in enumerate(reports, start=1):
            faults += report.faults
            served += report.served
            refused += report.refused
            if report.violations:
                failed.append(report)
                output.error(f"seed {report.seed}: {report.violations[0]}")
            if done % TELL_EVERY == 0:
                so_far = f"of {count} seeds, {len(failed)} broken"
                output.step(str(done), so_far, time.monotonic() - begun)
            if len(failed) >= MOST_SHOWN:
                break
    seconds = time.monotonic() - begun
    output.result(
        {
            "seeds": count,
            "broken": len(failed),
            "faults": faults,
            "served": served,
            "refused": refused,
            "seconds": f"{seconds:.1f}",
        }
    )
    if not failed:
        return Exit.OK
    seed = failed[0].seed
    needed = ", ".join(map(str, shrink(seed)))
    output.hint(f"seed {seed} needs no other faults than {needed or 'none'}; see --seed {seed}")
    return Exit.FAILED


def run_one(output: Output, *, seed: int, trace: bool, only: list[int]) -> Exit:
    """Run one seed, with its log if wanted; `only` keeps these faults alone."""
    skip: list[int] = []
    if only:
        happened = run_seed(seed)[0].happened
        skip = [fault for fault in happened if fault not in only]
    report, log = run_seed(seed, skip=skip, trace=trace)
    for line in log:
        print(line)
    output.result(
        {
            "seed": seed,
            "broken": report.violations[0] if report.violations else "",
            "faults": len(report.happened),
            "served": report.served,
            "refused": report.refused,
            "events": report.events,
            "digest": report.digest,
        }
    )
    if not report.violations:
        return Exit.OK
    if not only:
        needed = shrink(seed)
        if len(needed) < len(report.happened):
            faults = " ".join(f"--only {fault}" for fault in needed)
            output.hint(f"the same with fewer faults: --seed {seed} {faults}")
    return Exit.FAILED


def run_mutants(output: Output, *, seeds: int, jobs: int) -> Exit:
    """Run every planted bug until a seed exposes it. One that escapes fails the command."""
    with _pool(jobs) as pool:
        found = list(pool.map(caught_at, MUTANTS, [seeds] * len(MUTANTS)))
    output.table(
        ["law", "planted bug", "caught by seed", "as"],
        [
            [mutant.law, mutant.words, *((hit[0], hit[1][:72]) if hit else ("ESCAPED", ""))]
            for mutant, hit in zip(MUTANTS, found, strict=True)
        ],
    )
    escaped = sum(hit is None for hit in found)
    output.text(f"{len(MUTANTS) - escaped} of {len(MUTANTS)} caught within {seeds} seeds")
    return Exit.FAILED if escaped else Exit.OK


@contextmanager
def _pool(jobs: int) -> Iterator[Executor]:
    """A seed needs nothing but itself: every core runs its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs or os.cpu_count(), mp_context=context) as pool:
        yield pool
