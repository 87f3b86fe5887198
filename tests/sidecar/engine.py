"""A serving node for tests: streams what it is told to, and counts what it truly produced."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

Writer = asyncio.StreamWriter
Script = Callable[["FakeEngine", dict[str, Any], Writer], Awaitable[None]]

PROMPT_TOKENS = 7


class FakeEngine:
    """OpenAI-compatible. `script` replaces the answer to model calls."""

    def __init__(
        self,
        *,
        kind: str = "plain",
        model: str = "toy",
        delay: float = 0.0,
        context: int = 1000,
        script: Script | None = None,
    ) -> None:
        self.kind = kind  # plain, llamacpp, vllm
        self.model = model
        self.more_models: list[str] = []
        self.delay = delay
        self.context = context
        self.script = script
        self.natural_length = 1_000_000  # where an answer would end by itself
        self.calls = 0
        self.requests: list[dict[str, Any]] = []
        self.heads: list[str] = []
        self.output_tokens = 0
        self.prompt_tokens = 0
        self.url = ""
        self._server: asyncio.Server | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator["FakeEngine"]:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, path, _ = head.split(" ", 2)
                body: dict[str, Any] = {}
                if method == "POST":
                    length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
                    body = json.loads(await reader.readexactly(length))
                await self._answer(path, head, body, reader, writer)
                await writer.drain()
        except (EOFError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(
        self,
        path: str,
        head: str,
        body: dict[str, Any],
        reader: asyncio.StreamReader,
        writer: Writer,
    ) -> None:
        if path == "/v1/models":
            owner = {"plain": "somebody", "vllm": "vllm", "llamacpp": "llamacpp"}[self.kind]
            models: list[dict[str, Any]] = [
                {"id": name, "object": "model", "owned_by": owner}
                for name in (self.model, *self.more_models)
            ]
            for model in models if self.kind == "vllm" else ():
                model["max_model_len"] = self.context
            send_json(writer, {"object": "list", "data": models})
        elif path == "/version" and self.kind == "vllm":
            send_json(writer, {"version": "0.32.0"})
        elif path == "/props" and self.kind == "llamacpp":
            settings = {"n_ctx": self.context}
            send_json(writer, {"default_generation_settings": settings, "build_info": "b1"})
        elif path == "/v1/chat/completions/input_tokens" and self.kind == "llamacpp":
            send_json(writer, {"input_tokens": PROMPT_TOKENS})
        elif path == "/tokenize" and self.kind in ("llamacpp", "vllm"):
            key = "tokens" if self.kind == "llamacpp" else "count"
            value: Any = list(range(PROMPT_TOKENS)) if key == "tokens" else PROMPT_TOKENS
            send_json(writer, {key: value})
        elif path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings"):
            self.calls += 1
            self.requests.append(body)
            self.heads.append(head)
            await (self.script or FakeEngine.generate)(self, body, writer)
        else:
            send_json(writer, {"error": {"message": "no such route"}}, status=404)

    # ------------------------------------------------------------------ generating

    async def generate(self, body: dict[str, Any], writer: Writer) -> None:
        """An honest answer of as many tokens as are allowed."""
        limit = min(body.get("max_tokens") or self.context, self.natural_length)
        self.prompt_tokens += PROMPT_TOKENS
        if "input" in body:
            usage = {"prompt_tokens": PROMPT_TOKENS, "total_tokens": PROMPT_TOKENS}
            send_json(writer, {"object": "list", "data": [], "usage": usage})
            return
        count = min(limit, self.context - PROMPT_TOKENS)
        if not body.get("stream"):
            await asyncio.sleep(self.delay)
            self.output_tokens += count
            send_json(writer, self.answer(count, "length"))
            return
        start_stream(writer)
        produced = 0
        async for n in self.tokens(count, writer):
            produced = n
        reason = "stop" if produced == self.natural_length else "length"
        self.send(writer, self.event({}, produced, body, reason=reason))
        options = body.get("stream_options") or {}
        if options.get("include_usage"):
            event = self.event(None, produced, body)
            event |= {"choices": [], "usage": self.usage(produced)}
            self.send(writer, event)
        send_chunk(writer, b"data: [DONE]\n\n")
        end_chunks(writer)

    async def tokens(self, count: int, writer: Writer) -> AsyncIterator[int]:
        """Produce tokens one by one until there are enough or nobody listens."""
        body = self.requests[-1]
        self.send(writer, self.event({"role": "assistant", "content": ""}, 0, body))
        for n in range(1, count + 1):
            if self.delay:
                await asyncio.sleep(self.delay)
            elif n % 16 == 0:
                await asyncio.sleep(0)
            if writer.is_closing() or self._gone(writer):
                raise ConnectionError
            self.output_tokens += 1
            self.send(writer, self.event({"content": "word "}, n, body))
            if n % 16 == 0:
                await writer.drain()
            yield n

    def _gone(self, writer: Writer) -> bool:
        """Whether the client has half-closed: engines stop then."""
        reader = writer._protocol._stream_reader  # type: ignore[attr-defined]
        return bool(reader is not None and reader.at_eof())

    def event(
        self, delta: dict[str, Any] | None, n: int, body: dict[str, Any], reason: str | None = None
    ) -> dict[str, Any]:
        event: dict[str, Any] = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": self.model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
        }
        options = body.get("stream_options") or {}
        if options.get("continuous_usage_stats"):
            event["usage"] = self.usage(n)
        if body.get("timings_per_token"):
            event["timings"] = {"cache_n": 0, "prompt_n": PROMPT_TOKENS, "predicted_n": n}
        return event

    def usage(self, n: int) -> dict[str, Any]:
        return {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": n,
            "total_tokens": PROMPT_TOKENS + n,
        }

    def answer(self, n: int, reason: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": "word " * n}
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": self.model,
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": self.usage(n),
        }

    def send(self, writer: Writer, event: dict[str, Any]) -> None:
        text = json.dumps(event, separators=(",", ":"))
        send_chunk(writer, f"data: {text}\n\n".encode())


def send_json(writer: Writer, value: Any, *, status: int = 200) -> None:
    body = json.dumps(value).encode()
    send_raw(writer, body, b"application/json", status=status)


def send_raw(writer: Writer, body: bytes, content_type: bytes, *, status: int = 200) -> None:
    writer.write(
        b"HTTP/1.1 %d X\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b"
        % (status, content_type, len(body), body)
    )


def start_stream(writer: Writer) -> None:
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )


def send_chunk(writer: Writer, data: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))


def end_chunks(writer: Writer) -> None:
    writer.write(b"0\r\n\r\n")
