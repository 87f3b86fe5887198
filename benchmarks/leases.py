"""Durable grants of one hot balance: the coordinator beside a plain `SELECT … FOR UPDATE`.

    python benchmarks/leases.py [--check] [--json FILE] [--clients 32] [--seconds 4] [--rounds 3]

One process, the stack's own PostgreSQL with `synchronous_commit = on`. A grant is a lease of one
balance, answered after its commit; each client asks again as soon as it was answered. A watermark
is the raised total of one lease, a hundred of them in a Sync. Rows are medians of rounds that are
interleaved, so that what else the machine does falls on all alike.
"""

import asyncio
from argparse import ArgumentParser

from common import Result, arguments, conclude, median, run_load

GRANTS_PER_S = 3_000
GRANT_P99_MS = 25
WATERMARKS_PER_S = 10_000
TIMES_PLAIN = 5


def _more(parser: ArgumentParser) -> None:
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)


def told(found: dict[str, list[dict[str, float]]], clients: int) -> Result:
    result = Result("Durable grants and watermarks", ["what", "per second", "p50 ms", "p99 ms"])
    middle = {
        name: {key: median([row[key] for row in rows]) for key in rows[0]}
        for name, rows in found.items()
    }
    for name, row in middle.items():
        result.rows.append(
            [name, f"{row['rate']:,.0f}", f"{row['p50_ms']:.1f}", f"{row['p99_ms']:.1f}"]
        )
    many, plain = middle[f"coordinator, {clients} clients"], middle[f"plain, {clients} clients"]
    marks = middle["watermarks, 100 in a Sync"]["rate"]
    times = many["rate"] / plain["rate"]
    result.goal(
        f"{many['rate']:,.0f} grants/s (≥ {GRANTS_PER_S:,})", met=many["rate"] >= GRANTS_PER_S
    )
    result.goal(
        f"p99 {many['p99_ms']:.1f} ms (≤ {GRANT_P99_MS})", met=many["p99_ms"] <= GRANT_P99_MS
    )
    result.goal(f"{times:.1f} × plain (≥ {TIMES_PLAIN})", met=times >= TIMES_PLAIN)
    result.goal(
        f"{marks:,.0f} watermarks/s (≥ {WATERMARKS_PER_S:,})", met=marks >= WATERMARKS_PER_S
    )
    return result


if __name__ == "__main__":
    asked = arguments(__doc__, more=_more)
    given = {"clients": asked.clients, "seconds": asked.seconds, "rounds": asked.rounds}
    conclude([told(asyncio.run(run_load("ledger_load.py", given)), asked.clients)], asked)
