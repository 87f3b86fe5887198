"""What the sidecar costs: requests/s and added latency, beside nginx, Envoy, Portkey and LiteLLM.

    python benchmarks/sidecar.py [--check] [--json FILE] [--seconds 4] [--rounds 3]

One run, one node, the same load in turn: nothing in front, nginx `proxy_pass`, the sidecar with
five matching hard budgets and its journal on disk, and each peer that can be installed. wrk with
64 connections saturates, with prompts of 0.7 and 32 KB; one connection and an open loop of 200
requests/s measure latency. What counts are microseconds of CPU for a request and their ratios in
one run: a busy machine changes them little. Medians of the rounds.

A second sidecar, of two workers on one port, tells what a second core brings: where load and node
share the cores with it, that is not seen in requests/s, but in the CPU time of a request, which a
worker beside it must not raise.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from common import (
    Result,
    arguments,
    conclude,
    get_json,
    median,
    percentile,
    scene,
    stack,
)
from peers import (
    BUDGETS,
    HERE,
    RATES,
    Target,
    cpu_s,
    envoy,
    free_port,
    listener_on,
    litellm,
    need,
    nginx,
    node,
    portkey,
    resident_mb,
    served,
)

OPEN_LOOP_RATE = 200
SMALL, LARGE = 700, 32_000  # bytes of the prompt
NGINX, OURS = "nginx proxy_pass", "sidecar, 5 budgets"
TWO, WORKERS = "sidecar, two workers", 2
WORKERS_GOAL = 1.7  # what two workers do together, of what one does
READY_S = 30

# ---------------------------------------------------------------------------- two workers


@contextmanager
def two_workers(upstream_port: int, *, control_url: str, token: str, key: str) -> Iterator[Target]:
    """The sidecar as an operator starts it for two cores, ready in all of its workers."""
    port, admin = free_port(), free_port()
    command = [sys.executable, "-m", "controlplane.cli.main", "sidecar", "run"]
    command += ["--listen", f"127.0.0.1:{port}", "--admin-listen", f"127.0.0.1:{admin}"]
    command += ["--workers", str(WORKERS), "--upstream", f"fast=http://127.0.0.1:{upstream_port}"]
    command += ["--control-url", control_url, "--book", "two"]
    with tempfile.TemporaryDirectory() as folder:
        command += ["--spool-dir", folder]
        with served(
            command, Target(TWO, port, key, []), COMPTROLLER_SIDECAR_TOKEN=token
        ) as running:
            for worker in range(WORKERS):
                wait_until_ready(admin + worker)
            yield running


def wait_until_ready(port: int) -> None:
    """Until the worker behind this port is in step with the control plane."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        try:
            if get_json(f"http://127.0.0.1:{port}/readyz")["ready"]:
                return
        except urllib.error.URLError:  # it does not listen, or is not ready, yet
            time.sleep(0.1)
    raise RuntimeError("a worker never was in step with the control plane")


# ---------------------------------------------------------------------------- load


class Storm(NamedTuple):
    """What wrk saw, and what it cost."""

    per_s: float
    cpu_us: float  # of the target, for a request
    p50_ms: float
    p99_ms: float
    bad: int


def storm(target: Target, seconds: int, *, size: int = SMALL, connections: int = 0) -> Storm:
    """Saturate with wrk; with one connection, see what each request takes."""
    environment = {**os.environ, "KEY": target.key, "MODEL": "fast", "SIZE": str(size)}
    environment["HEADERS"] = "\n".join(target.headers)
    command = ["wrk", "-t1", f"-c{connections or target.connections}", f"-d{seconds}"]
    command += ["--latency", "--timeout", "30", "-s", str(HERE / "post.lua")]
    before = cpu_s(target.pids)
    said = subprocess.run(
        [*command, f"http://127.0.0.1:{target.port}"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    used_s = cpu_s(target.pids) - before
    requests = max(int(_figure(r"(\d+) requests in", said)), 1)
    return Storm(
        per_s=_figure(r"Requests/sec:\s+([\d.]+)", said),
        cpu_us=1e6 * used_s / requests,
        p50_ms=_duration_ms("50%", said),
        p99_ms=_duration_ms("99%", said),
        bad=int(_figure(r"Non-2xx or 3xx responses: (\d+)", said)),
    )


def _figure(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    return float(found[1]) if found else 0.0


def _duration_ms(name: str, text: str) -> float:
    found = re.search(rf"{name}\s+([\d.]+)(us|ms|s)", text)
    return float(found[1]) * {"us": 1e-3, "ms": 1, "s": 1e3}[found[2]] if found else 0.0


class Client(asyncio.Protocol):
    """One keep-alive connection with one request at a time."""

    def __init__(self) -> None:
        self.answered: asyncio.Future[None] | None = None
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    async def ask(self, request: bytes) -> None:
        self.answered = asyncio.get_running_loop().create_future()
        self.tail = b""
        self.transport.write(request)  # type: ignore[attr-defined]
        await self.answered

    def data_received(self, data: bytes) -> None:
        self.tail += data
        head, _, body = self.tail.partition(b"\r\n\r\n")
        found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        whole = len(body) >= int(found[1]) if found else self.tail.endswith(b"\r\n0\r\n\r\n")
        if whole and self.answered is not None and not self.answered.done():
            assert head.startswith(b"HTTP/1.1 200"), head
            self.answered.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if self.answered is not None and not self.answered.done():
            self.answered.set_exception(ConnectionError("closed"))


async def open_loop(target: Target, seconds: int) -> list[float]:
    """Latencies in seconds at a fixed rate, whether or not answers come."""
    prompt = "lorem ipsum dolor sit amet " * 26
    message = {"role": "user", "content": prompt}
    body = {"model": "fast", "messages": [message], "max_tokens": 256, "stream": False}
    content = json.dumps(body, separators=(",", ":")).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {target.key}\r\n"
    )
    head += f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    request = head.encode() + content
    loop = asyncio.get_running_loop()
    idle: list[Client] = []
    latencies: list[float] = []

    async def one() -> None:
        if idle:
            client = idle.pop()
        else:
            _, client = await loop.create_connection(Client, "127.0.0.1", target.port)
        began = time.perf_counter()
        await client.ask(request)
        latencies.append(time.perf_counter() - began)
        idle.append(client)

    tasks = []
    start = time.perf_counter()
    for number in range(OPEN_LOOP_RATE * seconds):
        await asyncio.sleep(max(0.0, start + number / OPEN_LOOP_RATE - time.perf_counter()))
        tasks.append(asyncio.create_task(one()))
    await asyncio.gather(*tasks)
    for client in idle:
        client.transport.close()
    return latencies[OPEN_LOOP_RATE // 2 :]  # the first connections are opened meanwhile


# ---------------------------------------------------------------------------- the comparison


class Seen:
    """All rounds of one target."""

    def __init__(self) -> None:
        self.small: list[Storm] = []
        self.large: list[Storm] = []
        self.single: list[Storm] = []
        self.loops: list[list[float]] = []

    def of(self, storms: str, figure: str) -> float:
        found = [getattr(storm, figure) for storm in getattr(self, storms)]
        return median(found) if found else 0.0

    @property
    def bad(self) -> int:
        return sum(storm.bad for storm in (*self.small, *self.large, *self.single))

    def loop_ms(self, share: float) -> float:
        return median([1000 * percentile(times, share) for times in self.loops])


def measure(targets: list[Target], asked: Any) -> dict[str, Seen]:
    """Rounds in turn."""
    seen = {target.name: Seen() for target in targets}
    for _ in range(asked.rounds):
        for target in targets:
            found = seen[target.name]
            slow = target.connections < 64  # fewer clients, and no open loop to keep up
            found.small.append(storm(target, asked.seconds * (2 if slow else 1)))
            if not slow and target.name != TWO:  # of two workers only the saturated figure counts
                found.large.append(storm(target, asked.seconds, size=LARGE))
                found.single.append(storm(target, asked.seconds, connections=1))
                found.loops.append(asyncio.run(open_loop(target, asked.seconds)))
    return seen


COLUMNS = [
    "in front of the node",
    "req/s",
    "CPU us/req",
    "of nginx",
    "32 KB: CPU us/req",
    "32 KB: of nginx",
    "1 conn. p50/p99 ms",
    "200/s p50/p99 ms",
    "errors",
    "RSS MB",
]


def tabulate(targets: list[Target], seen: dict[str, Seen]) -> Result:
    result = Result("Sidecar beside its peers, chat requests of 1 KB", COLUMNS)
    best = seen[NGINX]
    for target in targets:
        found = seen[target.name]
        small, large = found.of("small", "cpu_us"), found.of("large", "cpu_us")
        cells = [f"{found.of('small', 'per_s'):.0f}", f"{small:.1f}"]
        cells += [f"{100 * best.of('small', 'cpu_us') / small:.0f} %"]
        if found.large:
            single = found.of("single", "p50_ms"), found.of("single", "p99_ms")
            cells += [f"{large:.1f}", f"{100 * best.of('large', 'cpu_us') / large:.0f} %"]
            cells += [f"{single[0]:.2f} / {single[1]:.2f}"]
            cells += [f"{found.loop_ms(0.5):.2f} / {found.loop_ms(0.99):.2f}"]
        else:
            cells += ["–"] * 4
        result.rows.append((target.name, *cells, str(found.bad), f"{resident_mb(target.pids):.0f}"))
    judge(result, seen)
    return result


def judge(result: Result, seen: dict[str, Seen]) -> None:
    """The goals, each with its figure."""
    ours, bare, best = seen[OURS], seen["nothing"], seen[NGINX]
    cost = ours.of("small", "cpu_us")
    result.goal("every answer of the sidecar is a 200", met=ours.bad == 0)
    for words, storms in (("1 KB", "small"), ("32 KB prompts", "large")):
        share = best.of(storms, "cpu_us") / ours.of(storms, "cpu_us")
        result.goal(f"{words}: ≥ 50 % of nginx per core: {100 * share:.0f} %", met=share >= 0.5)
    for name, least in (
        ("Envoy, plain route", 1),
        ("Portkey gateway", 20),
        ("LiteLLM proxy", 150),
    ):
        if name in seen:
            times = seen[name].of("small", "cpu_us") / cost
            result.goal(f"≥ {least} × {name} per core: {times:.1f} ×", met=times >= least)
    times = WORKERS * cost / seen[TWO].of("small", "cpu_us")
    words = f"two workers: {times:.2f} × one worker's requests by CPU time ≥ {WORKERS_GOAL} ×"
    result.goal(words, met=times >= WORKERS_GOAL and seen[TWO].bad == 0)
    for figure, most in (("p50_ms", 0.25), ("p99_ms", 1.0)):
        added = ours.of("single", figure) - bare.of("single", figure)
        words = f"one connection, added {figure[:3]}: {added:.2f} ms ≤ {most} ms"
        result.goal(words, met=added <= most)
    added = ours.loop_ms(0.99) - bare.loop_ms(0.99)
    words = f"{OPEN_LOOP_RATE} req/s, added p99: {added:.2f} ms ≤ 1.5 ms"
    result.goal(words, met=added <= 1.5)


async def run(asked: Any) -> Result:
    need("wrk", "nginx")
    with ExitStack() as peers:
        fast = peers.enter_context(node())
        async with stack(upstreams=[f"fast=http://127.0.0.1:{fast.port}"]) as running:
            made = await scene(
                running, "agent", slug="loaded", prices={"fast": RATES}, budgets=BUDGETS
            )
            port = running.installation.sidecar_port
            ours = Target(OURS, port, made["key"], [listener_on(port)])
            second = await scene(running, "sidecar", name="two")
            two = two_workers(
                fast.port,
                control_url=running.installation.web_url,
                token=second["token"],
                key=made["key"],
            )
            targets = [fast, peers.enter_context(nginx(fast.port, free_port())), ours]
            targets.append(peers.enter_context(two))
            for peer in () if asked.no_peers else (envoy, portkey, litellm):
                found = peers.enter_context(peer(fast.port, free_port()))
                targets += [found] if found is not None else []
            return tabulate(targets, await asyncio.to_thread(measure, targets, asked))


def main() -> None:
    asked = arguments(
        __doc__,
        seconds=lambda p: p.add_argument("--seconds", type=int, default=4),
        rounds=lambda p: p.add_argument("--rounds", type=int, default=3),
        no_peers=lambda p: p.add_argument(
            "--no-peers", action="store_true", help="only nginx beside the sidecar"
        ),
    )
    conclude([asyncio.run(run(asked))], asked)


if __name__ == "__main__":
    main()
