"""Matching and explaining among many budgets of one organization.

    python benchmarks/explain.py [--check] [--json FILE] [--budgets 1000] [--rounds 300]

The stack's own PostgreSQL; a hundred agents with four budgets each, the others filter on model,
node, user or tag. `first`: facts that were not seen before, `again`: facts of an earlier
call. Medians.
"""

import asyncio
from argparse import ArgumentParser

from common import Result, arguments, conclude, run_load

MATCH_US = 20
EXPLAIN_MS = 5


def _more(parser: ArgumentParser) -> None:
    parser.add_argument("--budgets", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=300)


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
    given = {"budgets": asked.budgets, "rounds": asked.rounds}
    conclude([told(asyncio.run(run_load("explain_load.py", given)), asked.budgets)], asked)
