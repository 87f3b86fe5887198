"""The client's end of a request inside a serving node: what is answered goes to ASGI's `send`.

1. Answers are decided synchronously and queued; one sender at a time passes them on, so that no
   message overtakes another.
2. What the engine's own task has to say is sent by that task: a slow client holds back the engine.
3. A client that reads nothing for the body timeout is given up.
"""

import asyncio
import logging
from collections import deque

from enforcement.inprocess.asgi import Message, Receive, Send
from enforcement.sidecar.front import Running
from enforcement.sidecar.http1 import HttpError

_JSON = b"content-type: application/json\r\n"
_NO_CACHE = (b"cache-control", b"no-cache")

log = logging.getLogger(__name__)


class ClientGoneError(Exception):
    """The client left before it had said everything."""


class Outbox:
    """Exchanges with something to send, while one synchronous step decides what that is."""

    __slots__ = ("_last", "_stepping", "_tasks")

    def __init__(self) -> None:
        self._stepping = False
        self._last: Exchange | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """A step begins whose caller will send what comes of it."""
        self._stepping = True

    def close(self) -> "Exchange | None":
        """The step is over. The caller sends for the exchange that is returned, tasks for others.

        It is the one that was touched last: a call that ends answers its own client at the end.
        """
        self._stepping = False
        last, self._last = self._last, None
        return last

    def post(self, exchange: "Exchange") -> None:
        """Have it sent soon: by the step's caller, else by a task."""
        if not self._stepping:
            self._send(exchange)
            return
        if self._last is not None:
            self._send(self._last)
        self._last = exchange

    def _send(self, exchange: "Exchange") -> None:
        task = asyncio.get_running_loop().create_task(exchange.flush())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Exchange:
    """One request of a client, and its answer."""

    __slots__ = (
        "_out",
        "_outbox",
        "_send",
        "_sending",
        "_sent",
        "_stuck_sent",
        "_stuck_since_ns",
        "_task",
        "ended",
        "keep_alive",
        "running",
    )

    def __init__(self, outbox: Outbox, send: Send) -> None:
        self._outbox = outbox
        self._send = send
        self._out: deque[Message] = deque()
        self._sending = False
        self._sent = 0
        self._stuck_sent = -1
        self._stuck_since_ns = 0
        self._task = asyncio.current_task()
        self.running: Running | None = None
        self.keep_alive = True
        self.ended = False

    # ------------------------------------------------------------------ ClientConnection

    def respond(
        self, status: int, body: bytes, *, headers: bytes = b"", content_type: bytes = _JSON
    ) -> None:
        """Queue a whole answer. `headers`: lines with CRLF."""
        lines = (content_type + headers).split(b"\r\n")[:-1]
        fields = [(name, value.strip()) for name, _, value in (x.partition(b":") for x in lines)]
        fields.append((b"content-length", b"%d" % len(body)))
        if not self.keep_alive:
            fields.append((b"connection", b"close"))
        self._finish(
            {"type": "http.response.start", "status": status, "headers": fields},
            {"type": "http.response.body", "body": body},
        )

    def start_stream(self, request_id: bytes, *, content_type: bytes) -> None:
        """Queue the head of a stream; pieces follow."""
        kind = (b"content-type", content_type + b"; charset=utf-8")
        fields = [kind, _NO_CACHE, (b"x-request-id", request_id)]
        self._say({"type": "http.response.start", "status": 200, "headers": fields})

    def write_piece(self, piece: bytes) -> None:
        """Queue a piece of a stream."""
        if piece:
            self._say({"type": "http.response.body", "body": piece, "more_body": True})

    def end_stream(self, piece: bytes = b"") -> None:
        """Queue the last piece and the end of the stream."""
        self._finish({"type": "http.response.body", "body": piece})

    def _finish(self, *messages: Message) -> None:
        self.running = None
        for message in messages:
            self._say(message)
        self.ended = True

    def _say(self, message: Message) -> None:
        if self.ended:
            return
        self._out.append(message)
        if len(self._out) == 1 and not self._sending:
            self._outbox.post(self)

    # ------------------------------------------------------------------ sending

    async def flush(self) -> None:
        """Send what is queued, in order, unless somebody is at it already."""
        if self._sending:
            return
        out, send = self._out, self._send
        self._sending = True
        try:
            while out:
                await send(out.popleft())
                self._sent += 1
        except OSError:  # how a server may say that the client has left
            out.clear()
            self.gone()
        except Exception:
            log.exception("an answer could not be sent")
            out.clear()
            self._give_up()
        finally:
            self._sending = False

    async def wait(self, receive: Receive) -> None:
        """Until the answer is sent or the client has left: a server says both alike."""
        if self.ended and not self._out and not self._sending:
            return
        while (await receive())["type"] != "http.disconnect":
            pass

    def gone(self) -> None:
        """Nobody reads any more."""
        self.ended = True
        running, self.running = self.running, None
        if running is not None:
            running.client_gone()

    def check_stuck(self, now_ns: int, *, patience_ns: int) -> None:
        """Give up on a client that has not read anything for so long."""
        if not self._sending or self._sent != self._stuck_sent:
            self._stuck_sent, self._stuck_since_ns = self._sent, now_ns
        elif now_ns - self._stuck_since_ns > patience_ns:
            self._give_up()

    def _give_up(self) -> None:
        """End the request in the server, which closes the connection."""
        self.gone()
        if self._task is not None:
            self._task.cancel()


async def read_body(receive: Receive, *, limit: int, within_s: float) -> bytes:
    """The body of a request.

    Raises:
        HttpError: it is too large (413) or does not arrive in time (408).
        ClientGoneError: it will never arrive.
    """
    message = await receive()
    if message["type"] != "http.request":
        raise ClientGoneError
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        try:
            async with asyncio.timeout(within_s):
                body = await _read_rest(body, receive, limit=limit)
        except TimeoutError as error:
            raise HttpError("the request did not arrive in time", status=408) from error
    if len(body) > limit:
        raise HttpError("the body is too large", status=413)
    return body


async def _read_rest(first: bytes, receive: Receive, *, limit: int) -> bytes:
    parts, size, more = [first], len(first), True
    while more:
        if size > limit:
            raise HttpError("the body is too large", status=413)
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGoneError
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
    return b"".join(parts)
