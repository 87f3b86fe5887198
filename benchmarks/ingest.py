"""Usage events into PostgreSQL: our booking beside Django's `bulk_create`, and over real HTTP.

    python benchmarks/ingest.py [--check] [--json FILE] [--seconds 5] [--rounds 3]
                                [--connections 4] [--batch 2000] [--long 60]

The own stack with its worker, durable PostgreSQL (`synchronous_commit = on`); batches as sidecars
send them, each repeating a tenth of the batch before it. Booking stores an event once, charges
the budgets that no lease pays and tells contradictions apart; `bulk_create(ignore_conflicts=True)`
only stores. Both run in one process, in turns, each on one connection and on several; only new
events count. The last part posts for `long` seconds to the web process, while the worker folds: its
lag is the age of the rollups' watermark, the worst that was seen.
"""

import asyncio
from argparse import ArgumentParser
from typing import Any

from common import Result, arguments, conclude, median, run_load

EVENTS_PER_S = 20_000
TIMES_PLAIN = 5
LAG_S = 60


def _more(parser: ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=5, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--batch", type=int, default=2_000, help="new events of a batch")
    parser.add_argument("--long", type=float, default=60, help="seconds of posting over HTTP")


def told(found: dict[str, Any], connections: int) -> Result:
    result = Result(
        "Usage events into PostgreSQL", ["what", "events/s", "p50 ms", "p99 ms", "CPU µs/event"]
    )
    middle = {
        name: {key: median([row[key] for row in rows]) for key in rows[0]}
        for name, rows in found["turns"].items()
    }
    for name, row in middle.items():
        result.rows.append(
            [
                name,
                f"{row['rate']:,.0f}",
                f"{row['p50_ms']:.1f}",
                f"{row['p99_ms']:.1f}",
                f"{row['cpu_us']:.0f}",
            ]
        )
    many = middle[f"booking, {connections} connections"]["rate"]
    plain = middle[f"bulk_create, {connections} connections"]["rate"]
    posted = middle[f"booking over HTTP, {connections} connections"]["rate"]
    best, times = max(many, posted), many / plain
    result.goal(f"{best:,.0f} events/s (≥ {EVENTS_PER_S:,})", met=best >= EVENTS_PER_S)
    result.goal(f"{times:.1f} × bulk_create (≥ {TIMES_PLAIN})", met=times >= TIMES_PLAIN)
    lag = found["lag_s"]
    result.goal(f"rollups {lag:.0f} s behind at worst (≤ {LAG_S})", met=lag <= LAG_S)
    result.goal(
        f"each event once: {found['sent']:,} sent, {found['stored']:,} stored,"
        f" {found['folded']:,} in rollups, {found['charged']:,} charged",
        met=len({found[name] for name in ("sent", "stored", "folded", "charged")}) == 1,
    )
    return result


if __name__ == "__main__":
    asked = arguments(__doc__, more=_more)
    given = {
        name: getattr(asked, name) for name in ("seconds", "rounds", "connections", "batch", "long")
    }
    conclude([told(asyncio.run(run_load("ingest_load.py", given)), asked.connections)], asked)
