"""What the in-process mode adds to a model server: processor time per request and per chunk.

    python benchmarks/inprocess.py [--check] [--json FILE] [--requests 4000] [--rounds 5]

One run, servers of one kind in turn, without and with the middleware: the same requests, five
matching hard budgets, the journal on disk, the real control plane beside them. The server tells
the processor time of its own process, so that a busy machine changes little. The goals are for
prompts that are bounded by the context window, as in `benchmarks/sidecar.py`. The last server says
that it is vLLM: each prompt is counted by the engine beforehand, and each chunk tells the running
usage; what the server does for that is part of what is added.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from common import Result, arguments, conclude, get_json, median, scene, stack

HERE = Path(__file__).resolve().parent
LIMIT = 10**15
CONNECTIONS = 16
CHUNKS = 400
REQUEST_GOAL_US = 60
CHUNK_GOAL_US = 3


class Node(NamedTuple):
    """One server."""

    name: str
    port: int
    key: str

    def cpu_us(self) -> float:
        return float(get_json(f"http://127.0.0.1:{self.port}/cpu")["cpu_ns"]) / 1000


@contextlib.contextmanager
def node(name: str, key: str, *flags: str, **environment: str) -> Iterator[Node]:
    """A server in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "inprocess_node.py"), *flags],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        assert process.stdout is not None
        yield Node(name, int(process.stdout.readline()), key)
    finally:
        process.terminate()
        process.wait(20)


def wait_until_ready(governed: Node, *, patience_s: float = 30) -> None:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.HTTPError):
            if get_json(f"http://127.0.0.1:{governed.port}/comptroller/readyz")["ready"]:
                return
        time.sleep(0.1)
    raise RuntimeError("the middleware never was in step with the control plane")


# ---------------------------------------------------------------------------- load


def request_bytes(target: Node, *, streaming: bool) -> bytes:
    prompt = "lorem ipsum dolor sit amet " * 26
    body = {
        "model": "fast",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": CHUNKS if streaming else 256,
        "stream": streaming,
    }
    content = json.dumps(body, separators=(",", ":")).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {target.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def ask(target: Node, request: bytes, times: int) -> None:
    """Some requests, one behind the other, on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port, limit=1 << 22)
    try:
        for _ in range(times):
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert head.startswith(b"http/1.1 200"), head
            _, found, rest = head.partition(b"content-length: ")
            if found:
                await reader.readexactly(int(rest.partition(b"\r\n")[0]))
            else:
                await reader.readuntil(b"\r\n0\r\n\r\n")
    finally:
        writer.close()


async def cost_us(target: Node, *, streaming: bool, requests: int) -> float:
    """Processor time of the server per request, in microseconds."""
    request = request_bytes(target, streaming=streaming)
    times = max(requests // CONNECTIONS, 1)
    before = target.cpu_us()
    await asyncio.gather(*(ask(target, request, times) for _ in range(CONNECTIONS)))
    return (target.cpu_us() - before) / (times * CONNECTIONS)


async def measure(nodes: list[Node], asked: Any) -> dict[str, tuple[float, float]]:
    """Rounds in turn; the median cost of a whole answer and of a stream, by server."""
    seen: dict[str, tuple[list[float], list[float]]] = {n.name: ([], []) for n in nodes}
    for target in nodes:
        await cost_us(target, streaming=False, requests=500)  # warm
    for _ in range(asked.rounds):
        for target in nodes:
            plain, streams = seen[target.name]
            plain.append(await cost_us(target, streaming=False, requests=asked.requests))
            streams.append(await cost_us(target, streaming=True, requests=asked.requests // 40))
    return {name: (median(plain), median(streams)) for name, (plain, streams) in seen.items()}


def tabulate(found: dict[str, tuple[float, float]]) -> Result:
    result = Result(
        f"In-process mode, 1 KB chat requests, streams of {CHUNKS} chunks, µs of processor time",
        ["server", "whole answer", "stream", "per chunk"],
    )
    for name, (whole, stream) in found.items():
        result.rows.append(
            (name, f"{whole:.1f}", f"{stream:.0f}", f"{(stream - whole) / CHUNKS:.2f}")
        )
    (plain, plain_stream), *others = found.values()
    costs = [(whole - plain, (s - plain_stream - whole + plain) / CHUNKS) for whole, s in others]
    for name, (added, chunk) in zip(list(found)[1:], costs, strict=True):
        result.rows.append((f"added by {name}", f"{added:.1f}", "", f"{chunk:.2f}"))
    added, chunk = costs[0]
    result.goal(
        f"added per request: {added:.1f} µs ≤ {REQUEST_GOAL_US} µs", met=added <= REQUEST_GOAL_US
    )
    result.goal(f"added per chunk: {chunk:.2f} µs ≤ {CHUNK_GOAL_US} µs", met=chunk <= CHUNK_GOAL_US)
    return result


async def run(asked: Any) -> Result:
    budgets = [
        {"name": "org usd", "unit": "usd", "limit": LIMIT, "scope": "organization"},
        {"name": "org tokens", "unit": "tokens", "limit": LIMIT, "scope": "organization"},
        {"name": "usd", "unit": "usd", "limit": LIMIT},
        {"name": "tokens", "unit": "tokens", "limit": LIMIT},
        {"name": "requests", "unit": "requests", "limit": LIMIT},
    ]
    rates = {"input": 10**9, "cached_input": 10**8, "cache_write": 10**9, "output": 4 * 10**9}
    async with stack() as running:
        made = await scene(running, "agent", slug="bench", budgets=budgets, prices={"fast": rates})
        enrolled = await scene(running, "sidecar", name="inside")
        environment = {
            "COMPTROLLER_CONTROL_URL": running.installation.web_url,
            "COMPTROLLER_SIDECAR_TOKEN": enrolled["token"],
            "COMPTROLLER_CONTEXT_WINDOW": "8192",
            "COMPTROLLER_PAGES": "/cpu",
        }
        with (
            tempfile.TemporaryDirectory() as folder,
            node("nothing", "any") as plain,
            node("5 budgets", made["key"], "--governed", **environment, **own("a", folder)) as one,
            node(
                "5 budgets, exact prompts and running usage",
                made["key"],
                "--governed",
                "--vllm",
                **environment,
                **own("b", folder),
            ) as two,
        ):
            wait_until_ready(one)
            wait_until_ready(two)
            return tabulate(await measure([plain, one, two], asked))


def own(name: str, folder: str) -> dict[str, str]:
    """What two servers may not share."""
    return {"COMPTROLLER_NODE": f"node-{name}", "COMPTROLLER_SPOOL_DIR": f"{folder}/{name}"}


def main() -> None:
    asked = arguments(
        __doc__,
        requests=lambda p: p.add_argument("--requests", type=int, default=4_000),
        rounds=lambda p: p.add_argument("--rounds", type=int, default=5),
    )
    conclude([asyncio.run(run(asked))], asked)


if __name__ == "__main__":
    main()
