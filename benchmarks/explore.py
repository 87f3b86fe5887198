"""Questions about use of ninety days, by every two dimensions, and the export of it.

    python benchmarks/explore.py [--check] [--json FILE] [--events 10000000] [--rounds 3]

The stack's own PostgreSQL, filled as `./run seed --size large` does it. Each pair of dimensions
is asked `rounds` times over ninety days, each time from another day of the week on. Plans (all that
`EXPLAIN` tells but costs and numbers of rows) are compared with those that the planner makes when
it believes in ten times the cells.
"""

import asyncio
from argparse import ArgumentParser
from typing import Any

from common import Result, arguments, conclude, run_load

SEED_S = 600
ASK_MS = 300
LARGE = 10_000_000


def _more(parser: ArgumentParser) -> None:
    parser.add_argument("--events", type=int, default=LARGE)
    parser.add_argument("--rounds", type=int, default=3)


def told(found: dict[str, Any]) -> Result:
    result = Result(f"{found['events']:,} events of 90 days", ["what", "measured"])
    result.rows += [
        ["made and folded", f"{found['seed_s']:.0f} s"],
        ["cells of days and weeks", f"{found['cells']:,}"],
        ["pairs of dimensions asked", f"{found['pairs']}, {found['asked']} questions"],
        ["answer, median", f"{found['p50_ms']:.0f} ms"],
        ["answer, p95", f"{found['p95_ms']:.0f} ms"],
        ["answer, slowest", f"{found['worst_ms']:.0f} ms ({found['worst_pair']})"],
        ["plans that differ at ten times the cells", str(len(found["other_plans"]))],
    ]
    seed_s, p95 = found["seed_s"], found["p95_ms"]
    if found["events"] >= LARGE:
        result.goal(f"seeded in {seed_s:.0f} s (≤ {SEED_S})", met=seed_s <= SEED_S)
    result.goal(f"p95 of {p95:.0f} ms (≤ {ASK_MS})", met=p95 <= ASK_MS)
    others = ", ".join(found["other_plans"]) or "none"
    result.goal(f"plans that differ at ten times: {others}", met=not found["other_plans"])
    return result


if __name__ == "__main__":
    asked = arguments(__doc__, more=_more)
    given = {"events": asked.events, "rounds": asked.rounds}
    conclude([told(asyncio.run(run_load("explore_load.py", given)))], asked)
