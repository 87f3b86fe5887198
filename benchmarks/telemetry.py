"""What OpenTelemetry costs the sidecar: CPU for a request without it, with all calls, with 5 %.

    python benchmarks/telemetry.py [--check] [--json FILE] [--seconds 4] [--rounds 3]

wrk with 8 connections against three sidecars of one stack in turn, with five hard budgets; the
collector is a receiver in a process of its own that decodes everything. CPU is that of the sidecar
with its thread, until the queue is told. Medians of the rounds.
"""

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from common import ROOT, Result, arguments, conclude, median, scene, stack
from peers import BUDGETS, RATES, Target, cpu_s, free_port, need, node, resident_mb
from sidecar import Storm, storm

COLUMNS = ["setting", "CPU µs/request", "requests/s", "p50 ms", "exported", "dropped", "RSS MB"]
CONNECTIONS = 8
READY_S = 60
SETTLE_S = 2.0  # until what is queued is told
FIVE_PERCENT = {
    "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
    "OTEL_TRACES_SAMPLER_ARG": "0.05",
}
COLLECTOR = """
import time
from tests.otel.receiver import receiver
with receiver() as found:
    print(found.url, flush=True)
    time.sleep(3600)
"""


@contextlib.contextmanager
def collector() -> Iterator[str]:
    """A receiver in a process of its own; its address."""
    command = [sys.executable, "-c", COLLECTOR]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate(timeout=10)


def counted(port: int) -> dict[str, int]:
    """Spans by result, as `/metrics` tells."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.findall(r'telemetry_spans_total\{result="(\w+)"\} (\S+)', text)
    return {result: int(float(count)) for result, count in found}


async def one(target: Target, seconds: int) -> tuple[Storm, float]:
    """A storm, and the CPU for each request with what follows it."""
    before = cpu_s(target.pids)
    seen = await asyncio.to_thread(storm, target, seconds, connections=CONNECTIONS)
    await asyncio.sleep(SETTLE_S)
    return seen, 1e6 * (cpu_s(target.pids) - before) / (seen.per_s * seconds)


@contextlib.contextmanager
def sidecar(name: str, key: str, *flags: str, **environment: str) -> Iterator[Target]:
    """Another sidecar of the stack, ready to serve."""
    port = free_port()
    with tempfile.TemporaryDirectory() as spool:
        command = [sys.executable, "-m", "controlplane.cli.main", "sidecar", "run", *flags]
        command += ["--listen", f"127.0.0.1:{port}", "--spool-dir", spool]
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stderr=subprocess.DEVNULL
        )
        try:
            _wait_ready(port)
            yield Target(name, port, key, [process.pid])
        finally:
            process.terminate()
            process.wait(30)


def _wait_ready(port: int) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
            return
        time.sleep(0.2)
    raise RuntimeError("a sidecar is not ready in time")


async def run(asked: Any) -> Result:
    need("wrk")
    with contextlib.ExitStack() as ends:
        fast, url = ends.enter_context(node()), ends.enter_context(collector())
        upstream = f"fast=http://127.0.0.1:{fast.port}"
        async with stack(upstreams=[upstream]) as running:
            made = await scene(
                running, "agent", slug="told", prices={"fast": RATES}, budgets=BUDGETS
            )
            flags = ("--upstream", upstream, "--control-url", running.installation.web_url)
            told = ("--otlp-endpoint", url)
            targets = []
            for name, more, environment in (
                ("off", (), {}),
                ("all calls", told, {}),
                ("5 % of traces", told, FIVE_PERCENT),
            ):
                token = (await scene(running, "sidecar", name=name))["token"]
                secrets = {"COMPTROLLER_SIDECAR_TOKEN": token, **environment}
                started = sidecar(name, made["key"], *flags, *more, **secrets)
                targets.append(await asyncio.to_thread(ends.enter_context, started))
            return await compare(targets, asked)


async def compare(targets: list[Target], asked: Any) -> Result:
    """The settings in turn, round by round."""
    seen: dict[str, list[tuple[Storm, float]]] = {target.name: [] for target in targets}
    for _ in range(asked.rounds):
        for target in targets:
            seen[target.name].append(await one(target, asked.seconds))
    result = Result("OpenTelemetry in the sidecar", COLUMNS)
    for target in targets:
        rounds, spans = seen[target.name], await asyncio.to_thread(counted, target.port)
        cpu_us = round(median([cpu_us for _, cpu_us in rounds]))
        per_s = round(median([storm.per_s for storm, _ in rounds]))
        p50_ms = f"{median([storm.p50_ms for storm, _ in rounds]):.2f}"
        counts = spans.get("exported", 0), spans.get("dropped", 0)
        memory = f"{resident_mb(target.pids):.0f}"
        result.rows.append((target.name, cpu_us, per_s, p50_ms, *counts, memory))
    off, every, some = (row[1] for row in result.rows)
    result.goal(f"all calls: at most 1 ms of CPU more: {every - off} µs", met=every - off <= 1_000)
    result.goal(f"5 %: less than all: {some - off} µs", met=some < every)
    return result


def main() -> None:
    asked = arguments(
        __doc__,
        seconds=lambda p: p.add_argument("--seconds", type=int, default=4),
        rounds=lambda p: p.add_argument("--rounds", type=int, default=3),
    )
    conclude([asyncio.run(run(asked))], asked)


if __name__ == "__main__":
    main()
