# ruff: noqa: T201 -- a command that prints
"""Send every hostile case to a real sidecar, and let serving nodes misbehave; count what holds.

    ./run hostile [--only WORD] [--verbose]
    ./run hostile --resources [--rounds 3] [--seconds 5]

Refused means: the expected status or a closed connection, not a byte sent upstream, and nothing
behind an ambiguous request answered. Survived means: a clean end or a clear error, the expected
charge, and the next call is served. With --resources attacks on time and memory run instead, and
another tenant calls beside them: no call may fail, its p99 may double, be 50 ms right behind an
attack, and memory is bounded. Exits 1 if anything does not hold.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.hostile.attackers import ATTACKS
from tests.hostile.case import Case
from tests.hostile.cases import GROUPS, harmless, upstreams
from tests.hostile.cases.upstreams import Misdeed
from tests.hostile.refusing import guarded, leak_of, problem_of, proper_call_is_served
from tests.hostile.resources import (
    Verdict,
    attacked,
    enough_descriptors,
    judged,
    leave_a_core_to_attackers,
)
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
            tricks = [case for case in harmless.CASES if only in case.name]
            held = await count("harmless", tricks, partial(leak_of, world=world), verbose=verbose)
            served = await proper_call_is_served(world)
    print(f"{refused} refused of {asked}, {held} served without their trick of {len(tricks)}\n")
    if not served:
        print("and a proper call is not served any more")
    return served and refused == asked and held == len(tricks)


async def survive_all(*, only: str, verbose: bool) -> bool:
    """Let nodes misbehave; whether the sidecar survived all of it."""
    chosen = [misdeed for misdeed in upstreams.CASES if only in misdeed.name]
    with tempfile.TemporaryDirectory() as spool_dir:
        async with suffering(Path(spool_dir)) as world:
            suffer = partial(trouble_of, world=world)
            survived = await count("upstreams", chosen, suffer, verbose=verbose)
    print(f"{survived} survived of {len(chosen)}")
    return survived == len(chosen)


async def resist_all(*, only: str, rounds: int, seconds: float) -> bool:
    """Attack what the sidecar has; whether another tenant was served all the same."""
    names = [name for name in ATTACKS if only in name]
    if not names:
        print(f"no attack has {only!r} in its name; there are: {', '.join(ATTACKS)}")
        return False
    if not enough_descriptors(max(ATTACKS[name].size for name in names)):
        print("the limit of open files is too low here for all connections: ulimit -Hn")
    leave_a_core_to_attackers()
    good = 0
    print(f"{'attack':<24} size   p99 quiet  attacked    behind  failed  memory")
    for tls in (False, True):
        chosen = [name for name in names if ATTACKS[name].tls == tls]
        with tempfile.TemporaryDirectory() as spool_dir:
            async with attacked(Path(spool_dir), tls=tls) as guarded:
                for name in chosen:
                    found = await judged(name, guarded, rounds=rounds, seconds=seconds)
                    good += found.holds
                    print(_line_of(found), flush=True)
    print(f"{good} resisted of {len(names)}")
    return good == len(names)


def _line_of(found: Verdict) -> str:
    return (
        f"{found.name:<24} {found.size:>5}  {found.quiet_p99_ms:>6.1f} ms {found.p99_ms:>6.1f} ms"
        f" {found.behind_p99_ms:>6.1f} ms  {found.failed:>6}  {found.resident_mb:>3.0f} MB  {'holds' if found.holds else 'MISSED'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="./run hostile", description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", metavar="WORD", help="cases with this in their name")
    parser.add_argument("--verbose", action="store_true", help="name every case and its reason")
    parser.add_argument("--resources", action="store_true", help="attacks on time and memory")
    parser.add_argument("--rounds", type=int, default=3, help="of each such attack")
    parser.add_argument("--seconds", type=float, default=5, help="of each round")
    asked = parser.parse_args()
    if asked.resources:
        attacks = resist_all(only=asked.only, rounds=asked.rounds, seconds=asked.seconds)
        sys.exit(0 if asyncio.run(attacks) else 1)
    refused = asyncio.run(refuse_all(only=asked.only, verbose=asked.verbose))
    survived = asyncio.run(survive_all(only=asked.only, verbose=asked.verbose))
    sys.exit(0 if refused and survived else 1)


if __name__ == "__main__":
    main()
