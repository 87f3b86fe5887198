"""The listener: one protocol object per client connection, no task per request.

1. One request at a time. Pipelined bytes wait; too many of them pause the socket.
2. Whatever is malformed is answered once and the connection is closed; nothing goes upstream.
3. Bodies that come in many pieces take turns: one piece of one of them in a turn of the loop.
4. Answers are framed here, from our own heads; a stream is a chunk per piece, then the last one.
"""

import asyncio
import resource
from http import HTTPStatus
from typing import Protocol, cast

from enforcement.rules.requests import Body
from enforcement.sidecar import clock
from enforcement.sidecar.config import Config
from enforcement.sidecar.http1 import (
    MAX_HEAD_BYTES,
    ChunkedBody,
    HttpError,
    RequestHead,
    parse_request_head,
    path_named,
)
from enforcement.sidecar.turns import Turns

MAX_PIPELINED = 256 * 1024
HIGH_WATER = 256 * 1024
LARGE_PIECE = 64 * 1024  # of a body: with smaller ones the network leaves others their turn
DROP_PACE_S = 0.005  # between two pieces of what is refused: 50 MB/s, two percent of the loop
MAX_CACHED_HEADS = 256
MOST_CONNECTIONS = 65_536
OWN_DESCRIPTORS = 256  # for listeners, the journal and the control plane

_NS = 1_000_000_000
_LINGER_NS = 1 * _NS
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: %b; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\nx-request-id: %b\r\n\r\n"
)
_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
_JSON = b"content-type: application/json\r\n"


class Handler(Protocol):
    """Answers requests. It may answer at once or later, through the connection.

    `check_head` is asked once more with each piece of a body, and `left_body` told of one whose
    end never came.
    """

    def check_head(self, head: RequestHead) -> None: ...
    def left_body(self, head: RequestHead, *, received_bytes: int) -> None: ...
    def handle(self, connection: "ClientConnection", head: RequestHead, body: Body) -> None: ...
    def refuse_http(
        self,
        connection: "ClientConnection",
        error: HttpError,
        *,
        path: bytes,
        head: RequestHead | None = None,
    ) -> None: ...


class ClientConnection(Protocol):
    """Where the answer to one request goes. `headers`: whole lines."""

    running: "Running | None"
    keep_alive: bool

    def respond(
        self, status: int, body: bytes, *, headers: bytes = b"", content_type: bytes = _JSON
    ) -> None: ...
    def start_stream(self, request_id: bytes, *, content_type: bytes) -> None: ...
    def write_piece(self, piece: bytes) -> None: ...
    def end_stream(self, piece: bytes = b"") -> None: ...


class Running(Protocol):
    """What a connection tells the request that it carries."""

    def client_gone(self) -> None: ...
    def client_paused(self) -> None: ...
    def client_resumed(self) -> None: ...


class Front:
    """What all connections share: configuration, the handler, and a cache of parsed heads."""

    def __init__(self, config: Config, handler: Handler) -> None:
        self.handler = handler
        self.connections: dict[HttpClient, None] = {}  # in the order in which they came
        self.most_connections = _room()
        self.closing = False
        self.bodies = Turns(turn_ns=0)
        self.dropped = Turns(turn_ns=0, pace_s=DROP_PACE_S)
        self._heads: dict[bytes, RequestHead] = {}
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Take limits, for requests that come from now on."""
        self.max_body_bytes = config.max_body_bytes
        self.head_ns = int(config.head_timeout * _NS)
        self.body_ns = int(config.body_timeout * _NS)
        self.idle_ns = int(config.idle_timeout * _NS)

    def head_of(self, raw: bytes) -> RequestHead:
        """Parse a head; clients repeat theirs byte for byte, so the last ones are kept."""
        head = self._heads.get(raw)
        if head is None:
            head = parse_request_head(raw)
            if len(self._heads) >= MAX_CACHED_HEADS:
                self._heads.clear()
            self._heads[raw] = head
        return head

    def take(self, connection: "HttpClient") -> None:
        """Take a new connection; where there are too many, one that says nothing makes room."""
        self.connections[connection] = None
        if len(self.connections) > self.most_connections:
            waiting = next(found for found in self.connections if not found.busy)
            del self.connections[waiting]
            waiting.abort()

    def sweep(self, now_ns: int) -> None:
        """Close connections whose head, body or next request is overdue."""
        for connection in list(self.connections):
            connection.check_deadline(now_ns)


def _room() -> int:
    """How many client connections this process may hold: each may want another one to a node."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return (
        MOST_CONNECTIONS
        if hard < 0
        else max(min((hard - OWN_DESCRIPTORS) // 2, MOST_CONNECTIONS), 1)
    )


class HttpClient(asyncio.Protocol):
    """One client connection."""

    __slots__ = (
        "_body",
        "_buffer",
        "_chunked",
        "_dropped",
        "_front",
        "_head",
        "_lingering",
        "_pipelined",
        "_refused",
        "_streaming",
        "busy",
        "deadline_ns",
        "keep_alive",
        "running",
        "transport",
    )

    def __init__(self, front: Front) -> None:
        self._front = front
        self.transport: asyncio.Transport | None = None
        self.running: Running | None = None
        self.busy = False
        self.keep_alive = True
        self.deadline_ns = 0
        self._buffer = b""
        self._pipelined = b""
        self._head: RequestHead | None = None
        self._body: bytearray | None = None  # what has come of it, where more is to come
        self._dropped = 0
        self._chunked: ChunkedBody | None = None
        self._streaming = False
        self._refused = False
        self._lingering = False

    # ------------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self.transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self._front.take(self)
        self.deadline_ns = clock.now_ns() + self._front.head_ns

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        self._front.connections.pop(self, None)
        self.transport = None
        running, self.running = self.running, None
        if running is not None:
            running.client_gone()
        self._leave_body()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.deadline_ns = clock.now_ns() + self._front.body_ns
        if self.running is not None:
            self.running.client_paused()

    def resume_writing(self) -> None:
        if self.running is not None:
            self.running.client_resumed()

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            self._drop(data)
            return
        if self.busy:
            self._pipelined += data
            if len(self._pipelined) > MAX_PIPELINED and self.transport is not None:
                self.transport.pause_reading()
            return
        try:
            self._take(data)
        except HttpError as error:
            self._refuse(error, data)

    # ------------------------------------------------------------------ reading

    def _take(self, data: bytes) -> None:
        if self._head is None:
            if self._buffer:
                data = self._buffer + data
            end = data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES + 4)
            if end < 0:
                self._wait_for_head(data)
                return
            end += 4
            if end > MAX_HEAD_BYTES:
                raise HttpError("the head is too large", status=431)
            head = self._front.head_of(data[:end])
            data = data[end:]
            self._begin(head, data)
            self._buffer = b""
        else:
            self._front.handler.check_head(self._head)
        if not self._take_body(data):
            self._wait_for_turn(data, self._front.bodies)

    def _wait_for_head(self, data: bytes) -> None:
        if len(data) > MAX_HEAD_BYTES:
            raise HttpError("the head is too large", status=431)
        if not self._buffer and data:
            self.deadline_ns = clock.now_ns() + self._front.head_ns
        self._buffer = data

    def _begin(self, head: RequestHead, data: bytes) -> None:
        limit = self._front.max_body_bytes
        if head.length is not None and head.length > limit:
            raise HttpError("the body is too large", status=413)
        self.keep_alive = head.keep_alive
        self._front.handler.check_head(head)
        self._head = head
        if head.length is None:
            self._chunked = ChunkedBody(limit=limit)
        if head.length is None or len(data) < head.length:
            self.deadline_ns = clock.now_ns() + self._front.body_ns
            if head.expects_continue and not data and self.transport is not None:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _take_body(self, data: bytes) -> bool:
        """Take a piece of the body; whether that was the last one."""
        head = self._head
        if head is None:
            return True
        if self._chunked is not None:
            rest = self._chunked.feed(data)
            if rest is None:
                return False
            body: Body = self._chunked.body()
            self._chunked = None
        else:
            whole = self._whole(data, head.length or 0)
            if whole is None:
                return False
            body, rest = whole
        self._head = None
        self._pipelined = rest
        self.busy = True
        self._front.handler.handle(self, head, body)
        return True

    def _whole(self, data: bytes, length: int) -> tuple[Body, bytes] | None:
        """A body of known length and what follows it; None where more is to come.

        Pieces are put behind each other as they come: to join megabytes of fresh memory at the
        end would take everybody's time at once.
        """
        have = self._body
        if have is None:
            if len(data) >= length:
                return (data, b"") if len(data) == length else (data[:length], data[length:])
            self._body = bytearray(data)
            return None
        wanted = length - len(have)
        have += data[:wanted] if len(data) > wanted else data
        if len(have) < length:
            return None
        self._body = None
        return have, data[wanted:]

    def _leave_body(self) -> None:
        head, self._head = self._head, None
        if head is not None:
            received = self._chunked.body() if self._chunked else self._body
            self._front.handler.left_body(head, received_bytes=len(received or b""))
        self._body = self._chunked = None

    def _wait_for_turn(self, data: bytes, turns: Turns) -> None:
        """Leave what comes behind a large piece to a later turn of the loop."""
        if len(data) >= LARGE_PIECE and self.transport is not None:
            self.transport.pause_reading()
            turns.add(self._read_on)

    def _read_on(self) -> bool:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
        return False

    def _refuse(self, error: HttpError, data: bytes = b"") -> None:
        """Refuse in the words of the path, as far as that came. `data`: what came last."""
        self.keep_alive = False
        self.busy = self._refused = True  # nothing behind it is read any more
        head = self._head
        path = head.path if head else path_named(self._buffer + data)
        self._front.handler.refuse_http(self, error, path=path, head=head)
        self._leave_body()

    # ------------------------------------------------------------------ answering

    def respond(
        self, status: int, body: bytes, *, headers: bytes = b"", content_type: bytes = _JSON
    ) -> None:
        """Send a whole answer and get ready for the next request. `headers`: lines with CRLF."""
        closing = b"" if self.keep_alive and not self._front.closing else b"connection: close\r\n"
        if self.transport is not None:
            self.transport.writelines(
                (
                    b"%b%b%b%bcontent-length: %d\r\n\r\n"
                    % (_STATUS_LINES[status], content_type, headers, closing, len(body)),
                    body,
                )
            )
        self._finished(close=bool(closing))

    def start_stream(self, request_id: bytes, *, content_type: bytes) -> None:
        """Send the head of a stream; pieces follow."""
        self._streaming = True
        if self.transport is not None:
            self.transport.write(_STREAM_HEAD % (content_type, request_id))

    def write_piece(self, piece: bytes) -> None:
        """Send a piece of a stream as one chunk."""
        if self.transport is not None and piece:
            self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))

    def end_stream(self, piece: bytes = b"") -> None:
        """Send the last piece and the end of the stream."""
        if self.transport is not None:
            last = b"%x\r\n%b\r\n0\r\n\r\n" % (len(piece), piece) if piece else b"0\r\n\r\n"
            self.transport.write(last)
        self._finished(close=not self.keep_alive or self._front.closing)

    def _finished(self, *, close: bool) -> None:
        self.running = None
        self._streaming = False
        transport = self.transport
        if transport is None:
            return
        if close and self._refused:
            self._linger(transport)
            return
        self.busy = False
        self.deadline_ns = clock.now_ns() + self._front.idle_ns
        if close:  # over TLS it stays until the caller has said goodbye too, and may make room
            transport.close()
        elif self._pipelined:  # not at once: a client could make the stack as deep as it likes
            self.busy = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self.busy = False
        data, self._pipelined = self._pipelined, b""
        if self.transport is not None:
            self.transport.resume_reading()
            self.data_received(data)

    def _linger(self, transport: asyncio.Transport) -> None:
        """Close so that a client that is still sending can read why: answer, EOF, then wait."""
        self.busy = self._lingering = True
        self.deadline_ns = clock.now_ns() + _LINGER_NS
        if transport.can_write_eof() and not transport.is_closing():
            transport.write_eof()
        else:
            transport.close()

    def _drop(self, data: bytes) -> None:
        """Take what comes behind a refusal: many clients read no answer before all is sent.

        As much as a body may have, and slowly, so that it costs others nothing.
        """
        self._dropped += len(data)
        if self._dropped <= self._front.max_body_bytes:
            self._wait_for_turn(data, self._front.dropped)
        elif self.transport is not None:
            self.transport.pause_reading()

    def close(self) -> None:
        """Close once all that was written has been sent."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Drop the connection without another word."""
        if self.transport is not None:
            self.transport.abort()

    @property
    def stalled(self) -> bool:
        """Whether the client has left more unread than the socket holds."""
        return self.transport is not None and self.transport.get_write_buffer_size() > HIGH_WATER

    def check_deadline(self, now_ns: int) -> None:
        """Give up on a client that is too slow to say, or to read, something."""
        if now_ns < self.deadline_ns:
            return
        if self._lingering:
            self.abort()
        elif not self.busy:
            if self._head is None and not self._buffer:
                self.abort()  # idle keep-alive: nothing to answer
            else:
                self._refuse(HttpError("the request did not arrive in time", status=408))
        elif self.stalled:
            self.abort()
