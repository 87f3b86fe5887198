"""From the answer of the kill API to the last byte of the killed agent's streams.

    python benchmarks/kill.py [--check] [--json FILE] [--streams 20] [--rounds 5]

Real control plane, real sidecar; a fake engine that would stream for minutes. Last bytes are
timed at the client.
"""

import asyncio
import json
import sys
import time
import urllib.request
from typing import Any

from common import Result, arguments, conclude, engine, median, percentile, scene, stack

GOAL_S = 1.0


class Listener(asyncio.Protocol):
    """One streaming client that notes when its last byte came."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.bytes = 0
        self.first = b""
        self.last_byte_s = 0.0
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.bytes += len(data)
        self.first = self.first or data
        self.last_byte_s = time.monotonic()
        if data.endswith(b"\r\n0\r\n\r\n") or data == b"0\r\n\r\n":  # a head may end in a zero too
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


def request_of(key: str) -> bytes:
    body = {"model": "fast", "stream": True, "max_tokens": 20_000}
    body["messages"] = [{"role": "user", "content": "Count to a million."}]
    content = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    return head.encode() + content


def post(url: str, token: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), method="POST")
    request.add_header("authorization", f"Bearer {token}")
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request, timeout=10) as answer:
        said: dict[str, Any] = json.load(answer)
    return said


async def one_round(running: Any, made: dict[str, Any], token: str, streams: int) -> list[float]:
    """Start the streams, kill the agent, and time each stream's end after the API's answer."""
    loop = asyncio.get_running_loop()
    port = running.installation.sidecar_port
    listeners = []
    for _ in range(streams):
        _, listener = await loop.create_connection(
            lambda: Listener(request_of(made["key"])), "127.0.0.1", port
        )
        listeners.append(listener)
    try:
        async with asyncio.timeout(30):
            while any(listener.bytes < 5_000 for listener in listeners):
                await asyncio.sleep(0.05)
    except TimeoutError:
        sys.exit(f"the streams did not begin: {min(x.first for x in listeners).decode()}")
    url = f"{running.installation.web_url}/api/v1/agents/{made['agent']}"
    await asyncio.to_thread(post, f"{url}/kill", token, {"reason": "benchmark"})
    answered_s = time.monotonic()
    async with asyncio.timeout(30):
        await asyncio.gather(*(listener.ended for listener in listeners))
    await asyncio.to_thread(post, f"{url}/resume", token, {"reason": "benchmark"})
    await asyncio.sleep(0.5)
    return [max(0.0, listener.last_byte_s - answered_s) for listener in listeners]


async def run(asked: Any) -> Result:
    result = Result(
        f"Kill: API's answer to last byte, {asked.streams} streams",
        ["rounds", "streams", "p50 ms", "p99 ms", "max ms"],
    )
    with engine("--model", "fast", "--rate", "100") as fast:
        async with stack(upstreams=[f"fast={fast}"]) as running:
            budgets = [{"name": "cap", "unit": "requests", "limit": 1_000_000}]
            made = await scene(running, "agent", slug="killed", budgets=budgets)
            token = (await scene(running, "token", scopes=["read", "kill"]))["token"]
            times: list[float] = []
            for _ in range(asked.rounds):
                times += await one_round(running, made, token, asked.streams)
    p99 = percentile(times, 0.99)
    cells = [median(times), p99, max(times)]
    result.rows.append((asked.rounds, len(times), *(f"{1000 * t:.1f}" for t in cells)))
    result.goal(f"p99 ≤ {GOAL_S:.0f} s", met=p99 <= GOAL_S)
    return result


def main() -> None:
    asked = arguments(
        __doc__,
        streams=lambda p: p.add_argument("--streams", type=int, default=20),
        rounds=lambda p: p.add_argument("--rounds", type=int, default=5),
    )
    conclude([asyncio.run(run(asked))], asked)


if __name__ == "__main__":
    main()
