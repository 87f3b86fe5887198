"""Checking the journal: all balances again from their transfers, and the hash chain over those.

    python benchmarks/verify.py [--check] [--json FILE] [--transfers 1000000] [--rounds 3]

What `comptroller audit verify` does, on the stack's own PostgreSQL. Medians.
"""

import asyncio
from argparse import ArgumentParser

from common import Result, arguments, conclude, run_load

VERIFY_S_A_MILLION = 10


def _more(parser: ArgumentParser) -> None:
    parser.add_argument("--transfers", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)


def told(found: dict[str, float]) -> Result:
    count = int(found["transfers"])
    result = Result(f"A journal of {count:,} transfers", ["what", "seconds"])
    for name, words in (
        ("balances_s", "balances from transfers and leases"),
        ("chain_s", "hash chain"),
        ("seal_s", "sealing all of it, once"),
    ):
        result.rows.append([words, f"{found[name]:.2f}"])
    whole = found["balances_s"] + found["chain_s"]
    most = VERIFY_S_A_MILLION * max(count, 1) / 1_000_000
    result.goal(f"verified in {whole:.1f} s (≤ {most:.0f})", met=whole <= most)
    return result


if __name__ == "__main__":
    asked = arguments(__doc__, more=_more)
    given = {"transfers": asked.transfers, "rounds": asked.rounds}
    conclude([told(asyncio.run(run_load("verify_load.py", given)))], asked)
