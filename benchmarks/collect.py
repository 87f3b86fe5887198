"""A thousand serving nodes read again and again by one worker process on one core.

    python benchmarks/collect.py [--check] [--json FILE] [--nodes 1000] [--every 15] [--rounds 8]

The own Celery worker of the stack with its beat, held on one core, its broker and PostgreSQL, and
simulated exporters: real sockets, the page of a real vLLM (44 KB), totals that grow. A node
is due `every` seconds after it was last read; what it is read later than that is its lateness. A
node that is not read again counts as late until the end.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import (
    ROOT,
    Result,
    arguments,
    conclude,
    cpu_s,
    family,
    percentile,
    scene,
    stack,
)

from controlplane.launcher import state

LATENESS_P99_S = 5


def _more(parser: ArgumentParser) -> None:
    parser.add_argument("--nodes", type=int, default=1_000)
    parser.add_argument("--every", type=int, default=15, help="seconds between two visits")
    parser.add_argument("--rounds", type=int, default=8, help="visits of each node")


@contextlib.contextmanager
def exporters(count: int) -> Iterator[list[int]]:
    command = [sys.executable, str(ROOT / "benchmarks" / "exporters.py"), str(count)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.communicate(timeout=10)


def hold_on_one_core(pids: list[int]) -> None:
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {0})


async def measure(asked: Any) -> dict[str, Any]:
    with exporters(asked.nodes) as ports:
        async with stack(COMPTROLLER_GATHER_EVERY_S=str(asked.every)) as running:
            places = running.installation.places
            parts = state.current(places)["parts"]
            worker = family(next(part["pid"] for part in parts if part["part"] == "worker"))
            hold_on_one_core(worker)
            await scene(running, "nodes", ports=ports)
            await asyncio.sleep(asked.every)  # first visits also ask for versions
            before, began = cpu_s(worker), time.monotonic()
            await asyncio.sleep(asked.every * asked.rounds)
            used = (cpu_s(worker) - before) / (time.monotonic() - began)
            found = await scene(running, "visits", every_s=asked.every)
    return {**found, "cores": used, "processes": len(worker)}


def told(found: dict[str, Any], asked: Any) -> Result:
    result = Result("Reading nodes by one worker on one core", ["what", "measured"])
    late = found["lateness_s"]
    rows = {
        "nodes, every": f"{asked.nodes:,}, {asked.every} s",
        "visits stored": f"{found['samples']:,}",
        "nodes with an error": found["failing"],
        "lateness p50 s": f"{percentile(late, 0.5):.2f}",
        "lateness p99 s": f"{percentile(late, 0.99):.2f}",
        "lateness worst s": f"{max(late):.2f}",
        "CPU of the worker, cores": f"{found['cores']:.2f}",
    }
    result.rows.extend([name, value] for name, value in rows.items())
    p99 = percentile(late, 0.99)
    result.goal(f"p99 lateness {p99:.2f} s (≤ {LATENESS_P99_S})", met=p99 <= LATENESS_P99_S)
    result.goal(
        f"every node read, {found['unread']} were not, {found['failing']} have an error",
        met=found["unread"] == found["failing"] == 0,
    )
    return result


if __name__ == "__main__":
    wishes = arguments(__doc__, more=_more)
    conclude([told(asyncio.run(measure(wishes)), wishes)], wishes)
