"""Matching and explaining among many budgets of one organization.

    python benchmarks/explain.py [--check] [--json FILE] [--budgets 1000] [--rounds 300]

The stack's own PostgreSQL; a hundred agents with four budgets each, the others filter on model,
node, user or tag. `first`: facts that were not seen before, `again`: facts of an earlier
call. Medians.
"""

import asyncio
import json
import sys
from argparse import ArgumentParser
from typing import Any

from common import ROOT, Result, arguments, conclude, stack

MATCH_US = 20
EXPLAIN_MS = 5


def _more(parser: ArgumentParser) -> None:
    parser.add_argument("--budgets", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=300)


async def measure(asked: Any) -> dict[str, float]:
    async with stack() as running:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(ROOT / "benchmarks" / "explain_load.py"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**running.installation.environment(), "PYTHONPATH": str(ROOT)},
        )
        given = {"budgets": asked.budgets, "rounds": asked.rounds}
        printed, _ = await process.communicate(json.dumps(given).encode())
    if process.returncode != 0:
        raise RuntimeError("the load failed")
    found: dict[str, float] = json.loads(printed)
    return found


def told(found: dict[str, float], budgets: int) -> Result:
    result = Result(f"One request among {budgets:,} budgets", ["what", "median"])
    result.rows += [
        ["budgets that it matches", f"{found['matched']:.0f}"],
        ["match, facts seen first", f"{found['first_us']:.1f} µs"],
        ["match, facts seen before", f"{found['again_us']:.1f} µs"],
        ["explain, from the database", f"{found['explain_us'] / 1_000:.2f} ms"],
    ]
    again, explain = found["again_us"], found["explain_us"] / 1_000
    result.goal(f"match {again:.1f} µs (≤ {MATCH_US})", met=again <= MATCH_US)
    result.goal(f"explain {explain:.2f} ms (≤ {EXPLAIN_MS})", met=explain <= EXPLAIN_MS)
    return result


if __name__ == "__main__":
    asked = arguments(__doc__, more=_more)
    conclude([told(asyncio.run(measure(asked)), asked.budgets)], asked)
