"""The engine's end of a request inside a serving node: a call of the wrapped application.

1. What was admitted is called with a scope and a body of our own; nothing of the client's request
   reaches the engine but what was understood.
2. A stop: vLLM's own abort by request id, after which it still tells its final usage; else, and
   when that does not end it in time, `http.disconnect`. An exception out of `send` would be no
   stop: vLLM runs on for hundreds of tokens behind any but OSError (measured on 0.32.0).
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from enforcement.inprocess.asgi import App, Message, Scope
from enforcement.inprocess.exchange import Outbox
from enforcement.sidecar.http1 import ResponseHead
from enforcement.sidecar.upstream import Sink

LAST_WORD_S = 1.0  # from a disconnect to the cancellation of what did not heed it
_CALL: Scope = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "scheme": "http",
    "server": ("127.0.0.1", None),
    "client": ("127.0.0.1", 0),
    "query_string": b"",
    "root_path": "",
}

log = logging.getLogger(__name__)


class _Prompts(msgspec.Struct):
    prompt: str | list[Any] = ""


class Inside:
    """How the wrapped application is reached. `Line` of its `Upstream`."""

    def __init__(self, app: App, outbox: Outbox) -> None:
        self.app = app
        self.outbox = outbox
        self._base = dict(_CALL)
        self._state: dict[str, Any] | None = None
        self._calls: set[asyncio.Task[None]] = set()

    def learn(self, scope: Scope) -> None:
        """Take from the server's own scope what every call of the application needs."""
        if "app" in scope:
            self._base["app"] = scope["app"]
        if "state" in scope:
            self._state = scope["state"]

    @property
    def abort(self) -> Callable[[list[str]], Any] | None:
        """The abort of vLLM's engine client, if the application is vLLM."""
        state = getattr(self._base.get("app"), "state", None)
        return getattr(getattr(state, "engine_client", None), "abort", None)

    # ------------------------------------------------------------------ Line

    def send(self, sink: Sink, pieces: list[bytes]) -> "InsideCall":
        """Call the application with a request that was written for it."""
        head, _, body = b"".join(pieces).partition(b"\r\n\r\n")
        start, *lines = head.split(b"\r\n")
        method, target, _ = start.split(b" ")
        scope = self._base | {
            "method": method.decode(),
            "path": target.decode(),
            "raw_path": target,
            "headers": [tuple(line.split(b": ", 1)) for line in lines],
        }
        if self._state is not None:
            scope["state"] = dict(self._state)
        call = InsideCall(self, sink, scope, body)
        self.spawn(call.run())
        return call

    def spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return task

    def sweep(self, now_ns: int) -> None:
        """Nothing is kept open between two calls."""

    def close(self) -> None:
        """Stop what still runs."""
        for task in self._calls:
            task.cancel()


class InsideCall:
    """One call of the application. `sink` hears its answer until it is dropped."""

    __slots__ = ("_body", "_given", "_gone", "_line", "_scope", "_task", "sink")

    def __init__(self, line: Inside, sink: Sink, scope: Scope, body: bytes) -> None:
        self.sink: Sink | None = sink
        self._line = line
        self._scope = scope
        self._body = body
        self._given = False
        self._gone = asyncio.Event()
        self._task: asyncio.Task[Any] | None = None

    async def run(self) -> None:
        """Call the application to its end; an end without an answer is a failure."""
        self._task = asyncio.current_task()
        reason = "the engine ended without an answer"
        try:
            await self._line.app(self._scope, self._receive, self._send)
        except asyncio.CancelledError:
            reason = "the engine's answer was cancelled"
        except Exception as error:
            reason = "the engine failed"
            if not self._gone.is_set():
                log.exception("the application failed", exc_info=error)
        self._fail(reason, closed=True)

    # ------------------------------------------------------------------ ASGI, as the server

    async def _receive(self) -> Message:
        if not self._given:
            self._given = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        sink, outbox = self.sink, self._line.outbox
        if sink is None:
            if self._gone.is_set():
                raise OSError("nobody listens any more")
            return
        outbox.open()
        try:
            if message["type"] == "http.response.start":
                sink.on_head(_head_of(message))
            elif message["type"] == "http.response.body":
                body = message.get("body")
                if body:
                    sink.on_body(body)
                if not message.get("more_body", False) and self.sink is sink:
                    self.sink = None
                    sink.on_end()
        except Exception:
            log.exception("an answer of the engine could not be handled")
            self._gone.set()
            self._fail("internal error")
        exchange = outbox.close()
        if exchange is not None:
            await exchange.flush()

    def _fail(self, reason: str, *, closed: bool = False) -> None:
        sink, self.sink = self.sink, None
        if sink is not None:
            sink.on_failure(reason, sent=True, closed=closed)

    # ------------------------------------------------------------------ UpstreamConnection

    def half_close(self) -> bool:
        """Stop the engine, and go on hearing what it still says."""
        abort, ids = self._line.abort, self._vllm_ids()
        if abort is None or not ids:
            self._gone.set()
        else:
            self._line.spawn(self._abort(abort, ids))
        return self.sink is not None

    def _vllm_ids(self) -> list[str]:
        """How vLLM names what this call makes the engine do; empty where we do not know."""
        given = dict(self._scope["headers"]).get(b"x-request-id", b"").decode()
        path = self._scope["path"]
        if path in ("/v1/chat/completions", "/v1/messages"):
            return [f"chatcmpl-{given}"]
        if path == "/v1/completions":
            prompt = msgspec.json.decode(self._body, type=_Prompts).prompt
            several = isinstance(prompt, list) and bool(prompt) and type(prompt[0]) is not int
            return [f"cmpl-{given}-{n}" for n in range(len(prompt) if several else 1)]
        return []

    async def _abort(self, abort: Callable[[list[str]], Any], ids: list[str]) -> None:
        try:
            await abort(ids)
        except Exception:
            log.exception("the engine's abort failed")
            self._gone.set()

    def drop(self) -> None:
        """Forget the request: its answer is of no interest any more."""
        self.sink = None
        self._gone.set()
        if self._task is not None and not self._task.done():
            asyncio.get_running_loop().call_later(LAST_WORD_S, self._task.cancel)

    def pause_reading(self) -> None:
        """A slow client holds back the engine by itself: its `send` waits."""

    def resume_reading(self) -> None:
        """See `pause_reading`."""


def _head_of(message: Message) -> ResponseHead:
    headers = {bytes(name).lower(): bytes(value) for name, value in message.get("headers", ())}
    return ResponseHead(
        status=message["status"], headers=headers, length=None, chunked=False, keep_alive=True
    )
