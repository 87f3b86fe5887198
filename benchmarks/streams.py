"""What streams cost: chunks/s, time to the first chunk, gaps between chunks, memory.

    python benchmarks/streams.py [--check] [--json FILE] [--rounds 3]

One run, one node, the same load in turn: nothing in front, nginx `proxy_pass` without buffering,
the sidecar with five matching hard budgets and its journal on disk. 32 streams saturate; 100 and
500 streams of a chunk every 20 ms show what a reader feels; 1,000 open streams show what they
keep in memory. Medians of the rounds. Microseconds of CPU for a chunk are what counts where other
work shares the machine.
"""

import asyncio
import json
import subprocess
import sys
from contextlib import ExitStack
from typing import Any

from common import Result, arguments, conclude, median, scene, stack
from peers import (
    BUDGETS,
    HERE,
    RATES,
    Target,
    cpu_s,
    free_port,
    listener_on,
    need,
    nginx,
    node,
    resident_mb,
)

SATURATING, CHUNKS = 32, 2_000
GAP_US, GAPS = 20_000, 60
READERS = (100, 500)
OPEN = 1_000
NGINX, OURS = "nginx proxy_pass", "sidecar, 5 budgets"
COLUMNS = [
    "in front of the node",
    "chunks/s",
    "CPU us/chunk",
    "100 streams: TTFT p50/p99 ms",
    "100: gap p99 ms",
    "500 streams: TTFT p50/p99 ms",
    "500: gap p99 ms",
    "RSS idle MB",
    "1,000 open: + MB",
]


def load(target: Target, **wanted: Any) -> subprocess.Popen[str]:
    """The load in a process of its own, so that it measures nothing but the target."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "stream_load.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    given = {"port": target.port, "key": target.key, "rounds": 1, **wanted}
    process.stdin.write(json.dumps(given) + "\n")
    process.stdin.flush()
    return process


def figures(target: Target, **wanted: Any) -> dict[str, float]:
    """One load to its end, with the CPU time that the target took for a chunk."""
    before = cpu_s(target.pids)
    process = load(target, **wanted)
    said, _ = process.communicate()
    used_s = cpu_s(target.pids) - before
    if process.returncode:
        sys.exit(f"the load on {target.name} failed")
    seen: dict[str, float] = json.loads(said)
    return {**seen, "cpu_us": 1e6 * used_s / max(seen["chunks"], 1)}


def held_mb(target: Target) -> float:
    """What so many open streams add to the target's memory."""
    idle = resident_mb(target.pids)
    process = load(target, streams=OPEN, chunks=600, gap_us=1_000_000, hold=True)
    assert process.stdout is not None
    if process.stdout.readline().strip() != "open":
        sys.exit(f"{target.name} does not hold {OPEN} streams")
    held = resident_mb(target.pids) - idle
    process.communicate("\n")
    return held


class Seen:
    """All rounds of one target."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.idle_mb = resident_mb(target.pids)
        self.open_mb = 0.0
        self.rounds: dict[int, list[dict[str, float]]] = {}

    def take(self, streams: int, seen: dict[str, float]) -> None:
        self.rounds.setdefault(streams, []).append(seen)

    def of(self, streams: int, figure: str) -> float:
        return median([seen[figure] for seen in self.rounds[streams]])


def measure(targets: list[Target], asked: Any) -> dict[str, Seen]:
    """Rounds in turn; a first one, which opens connections and leases, does not count."""
    seen = {target.name: Seen(target) for target in targets}
    for found in seen.values():  # before memory that was used once is free again
        figures(found.target, streams=SATURATING, chunks=CHUNKS, gap_us=0)  # leases, connections
        found.open_mb = held_mb(found.target)
    for number in range(asked.rounds + 1):
        for target in targets:
            for streams in (SATURATING, *READERS):
                shape = {"chunks": GAPS, "gap_us": GAP_US}
                if streams == SATURATING:
                    shape = {"chunks": CHUNKS, "gap_us": 0}
                found = figures(target, streams=streams, **shape)
                if number:
                    seen[target.name].take(streams, found)
    return seen


def tabulate(seen: dict[str, Seen]) -> Result:
    result = Result("Streams beside nginx", COLUMNS)
    for name, found in seen.items():
        cells = [f"{found.of(SATURATING, 'per_s'):.0f}", f"{found.of(SATURATING, 'cpu_us'):.2f}"]
        for streams in READERS:
            first = [found.of(streams, f"ttft_{p}_ms") for p in ("p50", "p99")]
            cells += [f"{first[0]:.1f} / {first[1]:.1f}", f"{found.of(streams, 'gap_p99_ms'):.1f}"]
        cells += [f"{found.idle_mb:.0f}", f"{found.open_mb:.0f}"]
        result.rows.append((name, *cells))
    judge(result, seen[OURS], seen[NGINX])
    return result


def judge(result: Result, ours: Seen, best: Seen) -> None:
    """The goals, each with its figure."""
    share = best.of(SATURATING, "cpu_us") / ours.of(SATURATING, "cpu_us")
    result.goal(
        f"saturated: ≥ 80 % of nginx's chunks per core: {100 * share:.0f} %", met=share >= 0.8
    )
    few, many = READERS
    for figure, most in (("ttft_p99_ms", 1.0), ("gap_p99_ms", 0.5)):
        added = ours.of(few, figure) - best.of(few, figure)
        words = f"{few} streams, {figure[:-3]}: {added:+.1f} ms against nginx, ≤ +{most} ms"
        result.goal(words, met=added <= most)
    for figure in ("ttft_p99_ms", "gap_p99_ms"):
        times = ours.of(many, figure) / best.of(many, figure)
        words = f"{many} streams, {figure[:-3]}: {times:.2f} × nginx, ≤ 1.2 ×"
        result.goal(words, met=times <= 1.2)
    result.goal(f"idle: {ours.idle_mb:.0f} MB ≤ 60 MB", met=ours.idle_mb <= 60)
    result.goal(f"{OPEN} open streams: {ours.open_mb:.0f} MB ≤ 40 MB", met=ours.open_mb <= 40)


async def run(asked: Any) -> Result:
    need("nginx")
    with ExitStack() as peers:
        fast = peers.enter_context(node())
        async with stack(upstreams=[f"fast=http://127.0.0.1:{fast.port}"]) as running:
            made = await scene(
                running, "agent", slug="loaded", prices={"fast": RATES}, budgets=BUDGETS
            )
            port = running.installation.sidecar_port
            ours = Target(OURS, port, made["key"], [listener_on(port)])
            targets = [fast, peers.enter_context(nginx(fast.port, free_port())), ours]
            return tabulate(await asyncio.to_thread(measure, targets, asked))


def main() -> None:
    asked = arguments(__doc__, rounds=lambda p: p.add_argument("--rounds", type=int, default=3))
    conclude([asyncio.run(run(asked))], asked)


if __name__ == "__main__":
    main()
