"""What the sidecar costs: requests/s per core and added latency, beside nginx and LiteLLM.

    python benchmarks/sidecar.py [--check] [--json FILE] [--seconds 5] [--rounds 3]

One run, one upstream, the same load in turn: nothing in front, nginx `proxy_pass`, the sidecar
with five matching hard budgets and its journal on disk, LiteLLM proxy without a database. wrk
with 64 connections saturates; an open loop of 200 requests/s measures latency. Requests per core
are requests per second of CPU time of the measured processes, so a busy machine changes little.
nginx and wrk are Debian packages; LiteLLM is installed into a cache directory of its own.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from common import Result, arguments, conclude, engine, median, percentile, scene, stack

HERE = Path(__file__).resolve().parent
CACHE = Path.home() / ".cache" / "comptroller-bench" / "litellm"
OPEN_LOOP_RATE = 200
TICKS = os.sysconf("SC_CLK_TCK")
LIMIT = 10**15


class Target(NamedTuple):
    """Something to send requests to. `pids` are the processes whose CPU time counts."""

    name: str
    port: int
    key: str
    pids: list[int]
    connections: int = 64


# ---------------------------------------------------------------------------- processes


def cpu_s(pids: list[int]) -> float:
    """CPU seconds that these processes and their threads have used."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def resident_mb(pids: list[int]) -> float:
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * 4096 / 1e6


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in path.read_text().split():
            found += tree(int(child))
    return found


def listener_on(port: int) -> int:
    """The pid of the process that listens on a local port."""
    listed = subprocess.run(
        ["ss", "-Hltnp", f"sport = :{port}"], capture_output=True, text=True, check=True
    )
    found = re.search(r"pid=(\d+)", listed.stdout)
    assert found, f"nobody listens on port {port}"
    return int(found[1])


@contextlib.contextmanager
def nginx(upstream_port: int, port: int) -> Iterator[Target]:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "nginx.conf"
        config.write_text(
            f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error;\n"
            "events { worker_connections 4096; }\n"
            "http { access_log off; client_body_buffer_size 256k;\n"
            f"upstream node {{ server 127.0.0.1:{upstream_port}; keepalive 128; }}\n"
            f"server {{ listen 127.0.0.1:{port}; keepalive_requests 1000000000;\n"
            "location / { proxy_pass http://node; proxy_http_version 1.1;\n"
            'proxy_set_header Connection ""; proxy_buffering off; } } }\n'
        )
        process = subprocess.Popen(["nginx", "-c", str(config)], stderr=subprocess.DEVNULL)
        try:
            wait_for(port)
            yield Target("nginx proxy_pass", port, "any", tree(process.pid))
        finally:
            process.terminate()
            process.wait(10)


@contextlib.contextmanager
def litellm(upstream: str, port: int) -> Iterator[Target | None]:
    program = installed_litellm()
    if program is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"
        params = {"model": "openai/fast", "api_base": f"{upstream}/v1", "api_key": "none"}
        model = {"model_name": "fast", "litellm_params": params}
        settings = {"master_key": "sk-benchmark"}
        config.write_text(json.dumps({"model_list": [model], "general_settings": settings}))
        command = [str(program), "--config", str(config), "--host", "127.0.0.1"]
        command += ["--port", str(port), "--telemetry", "False"]
        environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
        log = (Path(folder) / "log").open("w")
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
        try:
            wait_for(port, patience_s=120)
            yield Target("LiteLLM proxy", port, "sk-benchmark", tree(process.pid), connections=16)
        finally:
            process.terminate()
            process.wait(20)
            log.close()


def installed_litellm() -> Path | None:
    """LiteLLM in a virtual environment of its own, installed once."""
    program = CACHE / "bin" / "litellm"
    if not program.exists():
        CACHE.parent.mkdir(parents=True, exist_ok=True)
        pip = [str(CACHE / "bin" / "pip"), "install", "-q", "litellm[proxy]", "prometheus_client"]
        try:
            subprocess.run([sys.executable, "-m", "venv", str(CACHE)], check=True)
            subprocess.run(pip, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"LiteLLM is not installed and cannot be: {error}")
            return None
    return program


def wait_for(port: int, patience_s: float = 20) -> None:
    """Until anything answers over HTTP, be it with an error."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=5).close()
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            time.sleep(0.2)
            continue
        return
    raise RuntimeError(f"nothing answers on port {port}")


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ---------------------------------------------------------------------------- load


class Storm(NamedTuple):
    """What wrk saw, and what it cost."""

    per_s: float
    per_core: float
    bad: int


def storm(target: Target, seconds: int) -> Storm:
    """Saturate with wrk."""
    environment = {**os.environ, "KEY": target.key, "MODEL": "fast"}
    command = ["wrk", "-t1", f"-c{target.connections}", f"-d{seconds}", "--timeout", "30", "-s"]
    command += [str(HERE / "post.lua"), f"http://127.0.0.1:{target.port}"]
    before = cpu_s(target.pids)
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    used_s = max(cpu_s(target.pids) - before, 1 / TICKS)
    requests = int(re.search(r"(\d+) requests in", said.stdout)[1])  # type: ignore[index]
    per_s = float(re.search(r"Requests/sec:\s+([\d.]+)", said.stdout)[1])  # type: ignore[index]
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", said.stdout)
    return Storm(per_s, requests / used_s, int(bad[1]) if bad else 0)


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
        whole = len(body) >= int(found[1]) if found else self.tail.endswith(b"0\r\n\r\n")
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


def measure(targets: list[Target], asked: Any) -> dict[str, dict[str, Any]]:
    """Rounds in turn; the median of each figure."""
    storms: dict[str, list[Storm]] = {target.name: [] for target in targets}
    loops: dict[str, list[list[float]]] = {target.name: [] for target in targets}
    for _ in range(asked.rounds):
        for target in targets:
            slow = target.connections < 64  # LiteLLM: fewer clients, and no open loop to keep up
            storms[target.name].append(storm(target, asked.seconds * (3 if slow else 1)))
            if not slow:
                loops[target.name].append(asyncio.run(open_loop(target, asked.seconds)))
    figures: dict[str, dict[str, Any]] = {}
    for target in targets:
        seen, latencies = storms[target.name], loops[target.name]
        figures[target.name] = {
            "per_s": median([s.per_s for s in seen]),
            "per_core": median([s.per_core for s in seen]),
            "bad": sum(s.bad for s in seen),
            "p50": median([median(x) for x in latencies]) if latencies else None,
            "p99": median([percentile(x, 0.99) for x in latencies]) if latencies else None,
            "rss": resident_mb(target.pids),
        }
    return figures


def tabulate(figures: dict[str, dict[str, Any]]) -> Result:
    result = Result(
        "Sidecar beside its peers, 1 KB chat requests",
        [
            "in front of the node",
            "req/s",
            "req/s per core",
            "of nginx",
            "p50 ms",
            "p99 ms",
            "errors",
            "RSS MB",
        ],
    )
    best = figures["nginx proxy_pass"]["per_core"]
    for name, seen in figures.items():
        times = [f"{1000 * seen[k]:.2f}" if seen[k] is not None else "–" for k in ("p50", "p99")]
        share = f"{100 * seen['per_core'] / best:.1f} %"
        cells = [f"{seen['per_s']:.0f}", f"{seen['per_core']:.0f}", share, *times, seen["bad"]]
        result.rows.append((name, *cells, f"{seen['rss']:.0f}"))
    ours, direct = figures["sidecar, 5 budgets"], figures["nothing"]
    added_ms = 1000 * (ours["p50"] - direct["p50"])
    result.goal(f"added p50 at {OPEN_LOOP_RATE} req/s: {added_ms:.2f} ms ≤ 1 ms", met=added_ms <= 1)
    result.goal("every answer of the sidecar is a 200", met=ours["bad"] == 0)
    if "LiteLLM proxy" in figures:
        times_litellm = ours["per_core"] / max(figures["LiteLLM proxy"]["per_core"], 0.1)
        result.goal(f"≥ 10 × LiteLLM per core: {times_litellm:.0f} ×", met=times_litellm >= 10)
    return result


async def run(asked: Any) -> Result:
    for program in ("wrk", "nginx"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is missing: apt-get install {program}")
    budgets = [
        {"name": "org usd", "unit": "usd", "limit": LIMIT, "scope": "organization"},
        {"name": "org tokens", "unit": "tokens", "limit": LIMIT, "scope": "organization"},
        {"name": "usd", "unit": "usd", "limit": LIMIT},
        {"name": "tokens", "unit": "tokens", "limit": LIMIT},
        {"name": "requests", "unit": "requests", "limit": LIMIT},
    ]
    rates = {"input": 10**9, "cached_input": 10**8, "cache_write": 10**9, "output": 4 * 10**9}
    with engine("--model", "fast", "--plain") as fast:
        port = int(fast.rsplit(":", 1)[1])
        node = Target("nothing", port, "any", [listener_on(port)])
        async with stack(upstreams=[f"fast={fast}"]) as running:
            made = await scene(
                running, "agent", slug="loaded", prices={"fast": rates}, budgets=budgets
            )
            ours_port = running.installation.sidecar_port
            ours = Target("sidecar, 5 budgets", ours_port, made["key"], [listener_on(ours_port)])
            with nginx(port, free_port()) as plain, litellm(fast, free_port()) as peer:
                targets = [node, plain, ours, *([peer] if peer else [])]
                return tabulate(await asyncio.to_thread(measure, targets, asked))


def main() -> None:
    asked = arguments(
        __doc__,
        seconds=lambda p: p.add_argument("--seconds", type=int, default=5),
        rounds=lambda p: p.add_argument("--rounds", type=int, default=3),
    )
    conclude([asyncio.run(run(asked))], asked)


if __name__ == "__main__":
    main()
