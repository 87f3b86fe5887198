# ruff: noqa: T201 -- a command that prints
"""Throw damaged bytes at every parser, and check what it promises.

    ./run fuzz --minutes M [--target NAME] [--seed S]

Each target has M minutes. Where a target is compared with h11, what we refuse and h11 accepts is
listed by our reason; the other way round is a failure. Exits 1 with the smallest input that breaks
a promise.
"""

import argparse
import sys
import time

from tests.fuzz.run import Report, fuzz
from tests.fuzz.targets import TARGETS


def show(report: Report) -> None:
    """Print what became of the inputs of a target."""
    rate = report.inputs / max(report.seconds, 0.001)
    print(f"\n{report.target.name}: {report.target.promise}")
    print(f"  {report.inputs:,} inputs in {report.seconds:.0f} s, {rate:,.0f}/s")
    for said, count in report.tally.most_common():
        print(f"  {count:>10,}  {said}")
    if report.failure:
        print(f"  BROKEN: {report.failure}\n  by: {report.failing!r}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="./run fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0, help="for each target")
    parser.add_argument("--target", choices=[*TARGETS], action="append", help="default: all")
    parser.add_argument("--seed", type=int, default=None, help="repeats a run")
    asked = parser.parse_args()
    seed = asked.seed if asked.seed is not None else int(time.time())
    print(f"seed {seed}")
    broken = False
    for name in asked.target or TARGETS:
        report = fuzz(TARGETS[name], seed=seed, seconds=asked.minutes * 60)
        show(report)
        broken |= bool(report.failure)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
