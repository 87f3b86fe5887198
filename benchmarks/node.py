"""The node behind every target of the benchmarks of speed: as fast as Python answers.

    python benchmarks/node.py            prints its port

It knows one model, `fast`. A whole answer is about a kilobyte, ready to send. A stream is asked
for by `"user":"stream-CHUNKS-GAP_US"`, which every proxy passes on: so many chunks, so many
microseconds apart; without a gap they come as fast as the connection takes them.
"""

import asyncio
import json
import re
import signal
import sys
from typing import cast

import uvloop

MODEL = "fast"
CONTEXT = 32_768
BACKLOG = 4096
BURST = 16  # chunks that are written before others get their turn
HIGH_WATER = 128 * 1024

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream": ?true')
_SHAPE = re.compile(rb"stream-(\d+)-(\d+)")
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def whole(value: object) -> bytes:
    body = json.dumps(value, separators=(",", ":")).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def event(**content: object) -> bytes:
    """One server-sent event of a stream."""
    base = {"id": "chatcmpl-0123456789abcdef", "object": "chat.completion.chunk", "created": 1}
    value = {**base, "model": MODEL, **content}
    return b"data: %b\n\n" % json.dumps(value, separators=(",", ":")).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def choice(**fields: object) -> dict[str, object]:
    return {"index": 0, "finish_reason": None, **fields}


ANSWER = whole(
    {
        "id": "chatcmpl-0123456789abcdef",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [
            choice(message={"role": "assistant", "content": "river " * 110}, finish_reason="stop")
        ],
        "usage": {"prompt_tokens": 200, "completion_tokens": 110, "total_tokens": 310},
    }
)
MODELS = whole(
    {"object": "list", "data": [{"id": MODEL, "object": "model", "max_model_len": CONTEXT}]}
)
CHUNK = chunk(event(choices=[choice(delta={"content": "river "})]))


def ending(chunks: int) -> bytes:
    usage = {"prompt_tokens": 200, "completion_tokens": chunks, "total_tokens": 200 + chunks}
    last = event(choices=[choice(delta={}, finish_reason="stop")])
    return chunk(last + event(choices=[], usage=usage) + b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self.buffer = b""
        self.left = self.chunks = 0
        self.gap_s = self.due_s = 0.0
        self.stalled = False
        self.timer: asyncio.Handle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's has another base
        self.transport.set_write_buffer_limits(high=HIGH_WATER)

    def connection_lost(self, error: Exception | None) -> None:
        self.left = 0
        if self.timer is not None:
            self.timer.cancel()

    def pause_writing(self) -> None:
        self.stalled = True

    def resume_writing(self) -> None:
        self.stalled = False
        if self.left and not self.gap_s:
            self.flood()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        found = _LENGTH.search(self.buffer, 0, end)
        whole = end + (int(found[1]) if found else 0)
        if len(self.buffer) < whole:
            return
        body, self.buffer = self.buffer[end:whole], self.buffer[whole:]
        if not body:
            self.transport.write(MODELS)
        elif _STREAM.search(body):
            self.begin(body)
        else:
            self.transport.write(ANSWER)

    def begin(self, body: bytes) -> None:
        found = _SHAPE.search(body)
        self.chunks = self.left = int(found[1]) if found else 16
        self.gap_s = int(found[2]) / 1e6 if found else 0.0
        self.due_s = asyncio.get_running_loop().time()
        self.transport.write(_STREAM_HEAD)
        if self.gap_s:
            self.step()
        else:
            self.flood()

    def step(self) -> None:
        """One chunk, and when the next is due."""
        if not self.left:
            self.transport.write(ending(self.chunks))
            return
        self.left -= 1
        self.transport.write(CHUNK)
        self.due_s += self.gap_s
        self.timer = asyncio.get_running_loop().call_at(self.due_s, self.step)

    def flood(self) -> None:
        """As many chunks as the connection takes, a burst at a time."""
        count = min(BURST, self.left)
        for _ in range(count):
            self.transport.write(CHUNK)
        self.left -= count
        if not self.left:
            self.transport.write(ending(self.chunks))
        elif not self.stalled:
            self.timer = asyncio.get_running_loop().call_soon(self.flood)


async def serve() -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=BACKLOG)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await stop.wait()


if __name__ == "__main__":
    uvloop.run(serve())
