"""Streams against one target: chunks/s, time to the first chunk, gaps between chunks.

    python benchmarks/stream_load.py < GIVEN.json > FIGURES.json

Given: port, key, streams, chunks, gap_us, rounds; with `hold`, the streams stay open until a line
comes on standard input, after a line was printed that says that all are open.
"""

import asyncio
import json
import sys
import time
from typing import Any

import uvloop

PROMPT = "lorem ipsum dolor sit amet " * 26


class Stream(asyncio.Protocol):
    """One connection, one stream at a time."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.first_s: list[float] = []
        self.gaps_s: list[float] = []
        self.chunks = 0
        self.tail = b""
        self.last = self.began = 0.0
        self.done: asyncio.Future[None] | None = None
        self.opened: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def ask(self) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        self.done, self.opened = loop.create_future(), loop.create_future()
        self.tail, self.last = b"", 0.0
        self.began = time.perf_counter()
        self.transport.write(self.request)  # type: ignore[attr-defined]
        return self.done

    def data_received(self, data: bytes) -> None:
        count = data.count(b"data: ")
        if count:
            now = time.perf_counter()
            if not self.last:
                self.first_s.append(now - self.began)
                if self.opened is not None and not self.opened.done():
                    self.opened.set_result(None)
            else:
                self.gaps_s.append(now - self.last)
            self.last = now
            self.chunks += count
        seen = self.tail + data
        self.tail = seen[-64:]
        if seen.endswith(b"\r\n0\r\n\r\n") and self.done is not None and not self.done.done():
            if b"[DONE]" in seen:
                self.done.set_result(None)
            else:
                self.done.set_exception(ConnectionError(seen[-200:].decode("latin-1")))

    def connection_lost(self, error: Exception | None) -> None:
        for waiting in (self.done, self.opened):
            if waiting is not None and not waiting.done():
                waiting.set_exception(error or ConnectionError("closed"))


def request_of(given: dict[str, Any]) -> bytes:
    body = {
        "model": "fast",
        "user": f"stream-{given['chunks']}-{given['gap_us']}",
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": 4096,
        "stream": True,
    }
    content = json.dumps(body, separators=(",", ":")).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {given['key']}\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def percentile_ms(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


async def run(given: dict[str, Any]) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    request = request_of(given)
    streams = []
    for _ in range(given["streams"]):
        _, stream = await loop.create_connection(
            lambda: Stream(request), "127.0.0.1", given["port"]
        )
        streams.append(stream)

    async def one(number: int, stream: Stream) -> None:
        await asyncio.sleep(number * 0.02 / len(streams))
        for _ in range(given["rounds"]):
            await stream.ask()

    began = time.perf_counter()
    tasks = [loop.create_task(one(*pair)) for pair in enumerate(streams)]
    if given.get("hold"):
        await asyncio.sleep(0.1)
        await asyncio.gather(
            *(s.opened for s in streams if s.opened is not None), return_exceptions=True
        )
        broken = sum(not s.first_s for s in streams)
        if broken:
            raise ConnectionError(f"{broken} of {len(streams)} streams did not begin")
        sys.stdout.write("open\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
        for task in tasks:
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=bool(given.get("hold")))
    took_s = time.perf_counter() - began
    first = [x for stream in streams for x in stream.first_s]
    gaps = [x for stream in streams for x in stream.gaps_s]
    chunks = sum(stream.chunks for stream in streams)
    return {
        "chunks": chunks,
        "per_s": chunks / took_s,
        "ttft_p50_ms": percentile_ms(first, 0.5),
        "ttft_p99_ms": percentile_ms(first, 0.99),
        "gap_p99_ms": percentile_ms(gaps, 0.99),
    }


if __name__ == "__main__":
    asked = json.loads(sys.stdin.readline())
    print(json.dumps(uvloop.run(run(asked))))
