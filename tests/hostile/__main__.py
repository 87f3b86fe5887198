# ruff: noqa: T201 -- a command that prints
"""Send every hostile case to a real sidecar, and let serving nodes misbehave; count what holds.

    ./run hostile [--only WORD] [--verbose]

Refused means: the expected status or a closed connection, not a byte sent upstream, and nothing
behind an ambiguous request answered. Survived means: a clean end or a clear error, the expected
charge, and the next call is served. Exits 1 if any case does not hold.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.hostile.case import Case
from tests.hostile.cases import GROUPS, upstreams
from tests.hostile.cases.upstreams import Misdeed
from tests.hostile.refusing import guarded, problem_of, proper_call_is_served
from tests.hostile.suffering import suffering, trouble_of


async def count(
    group: str,
    cases: Sequence[Case | Misdeed],
    problem_with: Callable[[Any], Awaitable[str]],
    *,
    verbose: bool,
) -> int:
    """Run cases; how many hold."""
    good = 0
    for case in cases:
        problem = await problem_with(case)
        good += not problem
        if problem:
            print(f"FAILS  {case.name}: {problem}\n       {case.why}")
        elif verbose:
            print(f"holds  {case.name} ({case.status}): {case.why}")
    print(f"{group:<10} {good} of {len(cases)}")
    return good


async def refuse_all(*, only: str, verbose: bool) -> bool:
    """Send the requests whose name has a word in it; whether all were refused."""
    chosen = {group: [c for c in cases if only in c.name] for group, cases in GROUPS.items()}
    asked, refused = sum(map(len, chosen.values())), 0
    with tempfile.TemporaryDirectory() as spool_dir:
        async with guarded(Path(spool_dir)) as world:
            for group, cases in chosen.items():
                ask = partial(problem_of, world=world)
                refused += await count(group, cases, ask, verbose=verbose)
            served = await proper_call_is_served(world)
    print(f"{refused} refused of {asked}\n")
    if not served:
        print("and a proper call is not served any more")
    return served and refused == asked


async def survive_all(*, only: str, verbose: bool) -> bool:
    """Let nodes misbehave; whether the sidecar survived all of it."""
    chosen = [misdeed for misdeed in upstreams.CASES if only in misdeed.name]
    with tempfile.TemporaryDirectory() as spool_dir:
        async with suffering(Path(spool_dir)) as world:
            suffer = partial(trouble_of, world=world)
            survived = await count("upstreams", chosen, suffer, verbose=verbose)
    print(f"{survived} survived of {len(chosen)}")
    return survived == len(chosen)


def main() -> None:
    parser = argparse.ArgumentParser(prog="./run hostile", description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", metavar="WORD", help="cases with this in their name")
    parser.add_argument("--verbose", action="store_true", help="name every case and its reason")
    asked = parser.parse_args()
    refused = asyncio.run(refuse_all(only=asked.only, verbose=asked.verbose))
    survived = asyncio.run(survive_all(only=asked.only, verbose=asked.verbose))
    sys.exit(0 if refused and survived else 1)


if __name__ == "__main__":
    main()
