"""A small real ASGI model server: streams what it is told to, and counts what it truly produced.

Like Starlette's streams it listens for `http.disconnect` beside its answer. With `aborts` it has
vLLM's engine client: `scope["app"].state.engine_client.abort`, after which a stream tells its final
usage.
"""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

from enforcement.inprocess.asgi import Message, Receive, Scope, Send

PROMPT_TOKENS = 7


class Toy:
    """The application."""

    def __init__(
        self,
        *,
        delay: float = 0.0,
        context: int = 1000,
        aborts: bool = False,
        size: int = 0,
        lifespan: bool = True,
    ) -> None:
        self.delay = delay
        self.context = context
        self.size = size  # of each token's text
        self.lifespan = lifespan
        self.calls = 0
        self.bodies: list[dict[str, Any]] = []
        self.heads: list[dict[bytes, bytes]] = []
        self.output_tokens = 0
        self.disconnects = 0
        self.aborted: list[str] = []
        self.failing = False
        self._stopped: set[str] = set()
        self.state = SimpleNamespace(engine_client=self) if aborts else SimpleNamespace()

    async def abort(self, request_ids: list[str]) -> None:
        """As `AsyncLLM.abort` of vLLM 0.32."""
        self.aborted += request_ids
        self._stopped.update(request_ids)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        path = scope["path"]
        if path == "/v1/chat/completions":
            await self._call(scope, receive, send)
        elif path == "/v1/models":
            model = {"id": "toy", "owned_by": "vllm", "max_model_len": self.context}
            await _json(send, {"object": "list", "data": [model]})
        elif path == "/version":
            await _json(send, {"version": "0.32.0"})
        elif path == "/tokenize":
            await _json(send, {"count": PROMPT_TOKENS})
        elif path == "/metrics":
            await _json(send, {"output_tokens": self.output_tokens})
        else:
            await _json(send, {"secret": path}, status=200)

    async def _live(self, receive: Receive, send: Send) -> None:
        if not self.lifespan:
            raise RuntimeError("no lifespan here")
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    # ------------------------------------------------------------------ generating

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        body = json.loads(message["body"])
        self.calls += 1
        self.bodies.append(body)
        self.heads.append(dict(scope["headers"]))
        if self.failing:
            raise RuntimeError("the engine is broken")
        generating = asyncio.ensure_future(self._generate(scope, body, send))
        hearing = asyncio.ensure_future(self._hear(receive))
        try:
            await asyncio.wait([generating, hearing], return_when=asyncio.FIRST_COMPLETED)
        finally:
            hearing.cancel()
            if not generating.done():
                generating.cancel()
            await asyncio.gather(generating, hearing, return_exceptions=True)

    async def _hear(self, receive: Receive) -> None:
        message: Message = await receive()
        assert message["type"] == "http.disconnect"
        self.disconnects += 1

    async def _generate(self, scope: Scope, body: dict[str, Any], send: Send) -> None:
        name = "chatcmpl-" + dict(scope["headers"])[b"x-request-id"].decode()
        count = min(body["max_tokens"], self.context - PROMPT_TOKENS)
        if not body.get("stream"):
            await asyncio.sleep(self.delay)
            self.output_tokens += count
            answer = {"id": name, "choices": [{"index": 0, "finish_reason": "length"}]}
            await _json(send, answer | {"usage": usage(count)})
            return
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"text/event-stream")],
            }
        )
        n, reason = 0, "length"
        while n < count:
            await asyncio.sleep(self.delay)
            if name in self._stopped:
                reason = "abort"
                break
            n += 1
            self.output_tokens += 1
            text = "x" * self.size or "word "
            await self._event(send, n, name, delta={"content": text})
        await self._event(send, n, name, delta={}, reason=reason)
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    async def _event(
        self, send: Send, n: int, name: str, *, delta: dict[str, str], reason: str = ""
    ) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": reason or None}
        event = {"id": name, "model": "toy", "created": 1, "choices": [choice], "usage": usage(n)}
        text = json.dumps(event, separators=(",", ":")).encode()
        message = {"type": "http.response.body", "body": b"data: %b\n\n" % text, "more_body": True}
        await send(message)


def usage(n: int) -> dict[str, int]:
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": n,
        "total_tokens": PROMPT_TOKENS + n,
    }


async def _json(send: Send, value: Any, *, status: int = 200) -> None:
    body = json.dumps(value).encode()
    fields = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})
