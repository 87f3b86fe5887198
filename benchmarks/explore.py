"""Questions about use of ninety days, by every two dimensions, and the export of it.

    python benchmarks/explore.py [--check] [--json FILE] [--events 10000000] [--rounds 3]
        [--export-days 20]

The stack's own PostgreSQL, filled as `./run seed --size large` does it. Each pair of dimensions
is asked `rounds` times over ninety days, each time from another day of the week on. Plans (all that
`EXPLAIN` tells but costs and numbers of rows) are compared with those that the planner makes when
it believes in ten times the cells.

Exports are of so many days, and of a tenth of them: memory is flat if ten times as much needs no
more than a fifth more (the tenth should have 20,000 rows, a row group of Parquet). Measured is the
peak of the process that writes one, and of the web process when a client reads it; then readers
stop half-way, more of them than there are connections of the database.
"""

import asyncio
import socket
import time
import urllib.request
from argparse import ArgumentParser
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit

from common import (
    Result,
    arguments,
    conclude,
    family,
    forget_peaks,
    peak_mb,
    run_beside,
    stack,
)

from controlplane.launcher import state
from controlplane.launcher.up import Running

SEED_S = 600
ASK_MS = 300
ASK_BESIDE_MS = 2_000
LARGE = 10_000_000
FLAT = 1.2
STOPPED = 12  # a web process has 10 connections
PIECE = 1_000_000


def _more(parser: ArgumentParser) -> None:
    parser.add_argument("--events", type=int, default=LARGE)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--export-days", type=int, default=20)


async def measure(asked: Any) -> dict[str, Any]:
    given = {"events": asked.events, "rounds": asked.rounds}
    async with stack() as running:
        found = await run_beside(running, "explore_load.py", given)
        spans = (max(1, asked.export_days // 10), asked.export_days)
        exports = [
            {
                "output": output,
                "days": days,
                "alone": await run_beside(
                    running, "export_load.py", {"days": days, "output": output}
                ),
                "web_mb": await _web_peak(running, found["token"], days=days, output=output),
            }
            for output in ("csv", "parquet")
            for days in spans
        ]
        stopped = await asyncio.to_thread(_beside_stopped, running, found["token"])
    return found | {"exports": exports} | stopped


def _web_pids(running: Running) -> list[int]:
    parts = state.current(running.installation.places)["parts"]
    return family(next(part["pid"] for part in parts if part["part"] == "web"))


async def _web_peak(running: Running, token: str, **wanted: Any) -> int:
    pids = _web_pids(running)
    forget_peaks(pids)
    await asyncio.to_thread(_read_all, running, _export(**wanted), token)
    return peak_mb(pids)


def _export(*, days: int, output: str) -> str:
    until = datetime.now(tz=UTC).date()
    span = {"since": str(until - timedelta(days=days)), "until": str(until)}
    return f"/api/v1/usage/export?{urlencode(span | {'output': output})}"


def _read_all(running: Running, path: str, token: str) -> None:
    request = urllib.request.Request(f"{running.installation.web_url}{path}")
    request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        while answer.read(PIECE):
            pass


def _beside_stopped(running: Running, token: str) -> dict[str, Any]:
    """How long a question takes beside exports that nobody reads on, and what they cost."""
    pids = _web_pids(running)
    place = urlsplit(running.installation.web_url)
    head = f"GET {_export(days=90, output='csv')} HTTP/1.1\r\nHost: {place.netloc}\r\n"
    with ExitStack() as readers:
        for _ in range(STOPPED):
            reader = readers.enter_context(socket.create_connection((place.hostname, place.port)))
            reader.sendall(f"{head}Authorization: Bearer {token}\r\n\r\n".encode())
            reader.recv(PIECE)
        time.sleep(5)
        begun = time.perf_counter()
        _read_all(running, "/api/v1/usage/query", token)
        beside_ms = (time.perf_counter() - begun) * 1_000
        return {"beside_ms": beside_ms, "stopped_mb": peak_mb(pids)}


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


def told_of_exports(found: dict[str, Any]) -> Result:
    columns = ["export", "days", "size", "CPU", "peak alone", "peak of web"]
    result = Result("FOCUS 1.4", columns)
    for one in found["exports"]:
        alone = one["alone"]
        sizes = [f"{alone['mb']:.1f} MB", f"{alone['cpu_s']:.0f} s", f"{alone['peak_mb']} MB"]
        result.rows.append([one["output"], one["days"], *sizes, f"{one['web_mb']} MB"])
    for less, more in zip(found["exports"][::2], found["exports"][1::2], strict=True):
        for where, before, after in (
            ("alone", less["alone"]["peak_mb"], more["alone"]["peak_mb"]),
            ("in the web process", less["web_mb"], more["web_mb"]),
        ):
            words = f"{less['output']} {where}: ten times as much in {after / before:.2f} × memory"
            result.goal(f"{words} (≤ {FLAT})", met=after <= FLAT * before)
    words = f"{found['beside_ms']:.0f} ms (≤ 2,000) beside {STOPPED} exports that nobody reads on"
    result.goal(
        f"a question in {words}; web {found['stopped_mb']} MB", met=found["beside_ms"] <= 2_000
    )
    return result


if __name__ == "__main__":
    wishes = arguments(__doc__, more=_more)
    figures = asyncio.run(measure(wishes))
    conclude([told(figures), told_of_exports(figures)], wishes)
