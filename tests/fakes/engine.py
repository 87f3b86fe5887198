"""A fast serving node that counts what it truly produced: the oracle of benchmarks.

    python -m tests.fakes.engine --port 0 --model fast --rate 0 --abort-tokens 3

It speaks the OpenAI dialect with llama.cpp's additions, as fast as it can or at a fixed rate, and
shares no code with the sidecar. `GET /truth` tells what it made, what it made after nobody
listened any more included: like a real engine it goes on for `--abort-tokens` after a disconnect.
With `--misbehave` it also serves models that are named after what goes wrong with them: MISDEEDS.
"""

import argparse
import asyncio
import json
import re
import signal
from typing import Any, cast

import httptools
import uvloop

CONTEXT = 32_768
WORD = "river "
TICK_S = 0.01
STREAMS = re.compile(rb'"stream"\s*:\s*true')  # whole answers are served without reading more


# Models of `--misbehave`. Each does what its name says, and counts truly all the same.
MISDEEDS = (
    "hangs",  # says nothing, ever
    "answers-html",  # a friendly page, with 200
    "fails",  # 500 before anything was made
    "dies",  # a few tokens, then the connection is reset
    "one-byte-chunks",  # all is well, but slowly framed
    "no-usage",  # the last chunk that was asked for is missing
    "no-done",  # as is the last line
    "negative-usage",
    "huge-usage",
    "fractional-usage",
    "shrinking-usage",  # first the truth, then one token
    "late",  # a second until the first token
)
DIES_AFTER = 5
LIES = {"negative-usage": -7, "huge-usage": 10**15, "fractional-usage": 2.5}


class Truth:
    """What was really produced."""

    def __init__(self) -> None:
        self.requests = 0
        self.prompt_tokens = 0
        self.output_tokens = 0
        self.after_disconnect = 0

    def as_dict(self) -> dict[str, int]:
        return dict(vars(self))


class Settings:
    """What the command line asked for."""

    def __init__(
        self,
        *,
        model: str,
        rate: float,
        abort_tokens: int,
        plain: bool = False,
        misbehave: bool = False,
    ) -> None:
        self.model = model
        self.models = (model, *(MISDEEDS if misbehave else ()))
        self.truth_of = {name: Truth() for name in self.models}
        self.plain = plain  # no engine that we know: it counts no prompts beforehand
        self.rate = rate  # tokens per second of each stream; 0: as fast as it goes
        self.abort_tokens = abort_tokens
        self.truth = Truth()
        self.json_answer = self._answer()

    def _answer(self) -> bytes:
        """About a kilobyte, ready to send."""
        message = {"role": "assistant", "content": WORD * 110}
        usage = {"prompt_tokens": 200, "completion_tokens": 110, "total_tokens": 310}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = {"id": "chatcmpl-fast", "object": "chat.completion", "created": 1}
        body |= {"model": self.model, "choices": [choice], "usage": usage}
        return http(json.dumps(body).encode())


def http(body: bytes, status: int = 200, *, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status} OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def prompt_tokens(body: dict[str, Any]) -> int:
    """A token for every four bytes of what was asked; exact by definition."""
    asked = body.get("messages", body.get("prompt", body.get("input", body.get("content", ""))))
    return len(json.dumps(asked)) // 4 + 1


class Connection(asyncio.Protocol):
    """One client connection."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.parser = httptools.HttpRequestParser(self)
        self.transport: asyncio.Transport | None = None
        self.url = b""
        self.parts: list[bytes] = []
        self.stream: Stream | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's has another base

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def eof_received(self) -> bool:
        """A half-close means that nobody wants more, as it does for real engines."""
        self._abandon()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self._abandon()

    def _abandon(self) -> None:
        if self.stream is not None:
            self.stream.abandon()
            self.stream = None

    def on_message_begin(self) -> None:
        self.url, self.parts = b"", []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_body(self, data: bytes) -> None:
        self.parts.append(data)

    def on_message_complete(self) -> None:
        body = b"".join(self.parts)
        if self.url == b"/v1/chat/completions" and not STREAMS.search(body):
            for truth in (self.settings.truth, self.settings.truth_of[self.settings.model]):
                truth.requests += 1
                truth.prompt_tokens += 200
                truth.output_tokens += 110
            self.write(self.settings.json_answer)
            return
        self._answer(json.loads(body) if body else {})

    def _answer(self, body: dict[str, Any]) -> None:
        path = self.url.decode()
        if path in ("/v1/chat/completions", "/v1/completions"):
            self._generate(body)
        elif path == "/v1/models":
            owner = "somebody" if self.settings.plain else "llamacpp"
            common = {"object": "model", "owned_by": owner, "max_model_len": CONTEXT}
            listed = [{"id": name, **common} for name in self.settings.models]
            self._send({"object": "list", "data": listed})
        elif path == "/props" and not self.settings.plain:
            generation = {"n_ctx": CONTEXT}
            self._send({"default_generation_settings": generation, "build_info": "fake"})
        elif path == "/v1/chat/completions/input_tokens":
            self._send({"input_tokens": prompt_tokens(body)})
        elif path == "/tokenize":
            self._send({"tokens": list(range(prompt_tokens(body)))})
        elif path == "/truth":
            models = {name: truth.as_dict() for name, truth in self.settings.truth_of.items()}
            self._send({**self.settings.truth.as_dict(), "models": models})
        elif path == "/metrics":
            self.write(metrics(self.settings.truth))
        elif path == "/health":
            self._send({"status": "ok"})
        else:
            self.write(http(b'{"error":{"message":"no such route"}}', 404))

    def _generate(self, body: dict[str, Any]) -> None:
        model = body.get("model")
        if model not in self.settings.models:
            self.write(http(b'{"error":{"message":"no such model"}}', 404))
        elif model == "answers-html":
            self.write(http(b"<html><body>Welcome!</body></html>", kind="text/html"))
        elif model == "fails":
            self.write(http(b'{"error":{"message":"out of memory"}}', 500))
        elif model != "hangs":
            self.stream = Stream(self, body)
            delay = 1.0 if model == "late" else 0.0
            self.stream.timer = asyncio.get_running_loop().call_later(delay, self.stream.start)

    def _send(self, value: Any) -> None:
        self.write(http(json.dumps(value).encode()))

    def write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


class Stream:
    """One generation. Never more tokens than the limit that stands in the request."""

    def __init__(self, connection: Connection, body: dict[str, Any]) -> None:
        self.connection = connection
        self.settings = connection.settings
        self.model: str = body["model"]
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or CONTEXT
        self.prompt = prompt_tokens(body)
        self.left = min(limit, CONTEXT - self.prompt)
        self.made = 0
        self.timings = bool(body.get("timings_per_token"))
        self.usage = bool((body.get("stream_options") or {}).get("include_usage"))
        self.timer: asyncio.TimerHandle | None = None
        self.owed = 0.0

    def start(self) -> None:
        for truth in self._truths():
            truth.requests += 1
            truth.prompt_tokens += self.prompt
        self.connection.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        self.step()

    def step(self) -> None:
        """Make the tokens of a moment; a slow reader holds the engine up."""
        transport = self.connection.transport
        rate = self.settings.rate
        self.owed += rate * TICK_S if rate else 8
        if transport is not None and transport.get_write_buffer_size() < 65_536:
            while self.owed >= 1 and self.left:
                self.owed -= 1
                self.make()
                if self.model == "dies" and self.made == DIES_AFTER and transport is not None:
                    self.left = 0
                    transport.abort()
                    return
        if self.left:
            loop = asyncio.get_running_loop()
            self.timer = loop.call_later(TICK_S if rate else 0, self.step)
        else:
            self.finish()

    def make(self) -> None:
        self.left -= 1
        self.made += 1
        for truth in self._truths():
            truth.output_tokens += 1
        delta = {"index": 0, "delta": {"content": WORD}, "finish_reason": None}
        self.event({"choices": [delta]})

    def event(self, content: dict[str, Any]) -> None:
        base: dict[str, Any] = {"id": "chatcmpl-fast", "object": "chat.completion.chunk"}
        base |= {"created": 1, "model": self.model} | content
        if self.timings:
            base["timings"] = {"cache_n": 0, "prompt_n": self.prompt, "predicted_n": self.made}
        line = b"data: " + json.dumps(base).encode() + b"\n\n"
        self._chunk(line)

    def _chunk(self, line: bytes) -> None:
        pieces = [line]
        if self.model == "one-byte-chunks":
            pieces = [line[n : n + 1] for n in range(len(line))]
        for piece in pieces:
            self.connection.write(b"%x\r\n%b\r\n" % (len(piece), piece))

    def finish(self) -> None:
        self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
        if self.usage and self.model != "no-usage":
            for completion in self._told():
                usage = {"prompt_tokens": self.prompt, "completion_tokens": completion}
                usage["total_tokens"] = self.prompt + completion
                self.event({"choices": [], "usage": usage})
        if self.model != "no-done":
            self._chunk(b"data: [DONE]\n\n")
        self.connection.write(b"0\r\n\r\n")
        self.connection.stream = None

    def _told(self) -> tuple[Any, ...]:
        """What it says of its output: the truth, but for some models."""
        if self.model == "shrinking-usage":
            return (self.made, 1)
        return (LIES.get(self.model, self.made),)

    def _truths(self) -> tuple[Truth, Truth]:
        return self.settings.truth, self.settings.truth_of[self.model]

    def abandon(self) -> None:
        """Nobody listens: a real engine makes a few more tokens before it notices."""
        if self.timer is not None:
            self.timer.cancel()
        more = min(self.settings.abort_tokens, self.left)
        self.left = 0
        for truth in self._truths():
            truth.output_tokens += more
            truth.after_disconnect += more


def metrics(truth: Truth) -> bytes:
    text = (
        f"llamacpp:prompt_tokens_total {truth.prompt_tokens}\n"
        "llamacpp:prompt_tokens_cached_total 0\n"
        f"llamacpp:tokens_predicted_total {truth.output_tokens}\n"
        "llamacpp:requests_processing 0\nllamacpp:requests_deferred 0\n"
    ).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%b" % (
        len(text),
        text,
    )


async def serve(settings: Settings, port: int) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(lambda: Connection(settings), "127.0.0.1", port, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 -- how the port is told
    await stop.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--model", default="fast")
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--abort-tokens", type=int, default=1)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--misbehave", action="store_true")
    asked = parser.parse_args()
    settings = Settings(
        model=asked.model,
        rate=asked.rate,
        abort_tokens=asked.abort_tokens,
        plain=asked.plain,
        misbehave=asked.misbehave,
    )
    uvloop.run(serve(settings, asked.port))


if __name__ == "__main__":
    main()
