# ruff: noqa: T201 -- a command that prints
"""Send every hostile case to a real sidecar, and count what is refused.

    ./run hostile [--only WORD] [--verbose]

Refused means: the expected status or a closed connection, not a byte sent upstream, and nothing
behind an ambiguous request answered. Exits 1 if any case is not refused.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.hostile.cases import GROUPS
from tests.hostile.refusing import guarded, problem_of, proper_call_is_served


async def refuse_all(*, only: str, verbose: bool) -> bool:
    """Run the cases whose name has a word in it; whether all were refused."""
    asked = refused = 0
    with tempfile.TemporaryDirectory() as spool_dir:
        async with guarded(Path(spool_dir)) as world:
            for group, cases in GROUPS.items():
                chosen = [case for case in cases if only in case.name]
                good = 0
                for case in chosen:
                    problem = await problem_of(case, world)
                    good += not problem
                    if problem:
                        print(f"NOT REFUSED  {case.name}: {problem}\n             {case.why}")
                    elif verbose:
                        print(f"refused      {case.name} ({case.status}): {case.why}")
                print(f"{group:<10} {good} of {len(chosen)}")
                asked, refused = asked + len(chosen), refused + good
            served = await proper_call_is_served(world)
    print(f"\n{refused} refused of {asked}")
    if not served:
        print("and a proper call is not served any more")
    return served and refused == asked > 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="./run hostile", description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", metavar="WORD", help="cases with this in their name")
    parser.add_argument("--verbose", action="store_true", help="name every case and its reason")
    asked = parser.parse_args()
    good = asyncio.run(refuse_all(only=asked.only, verbose=asked.verbose))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
