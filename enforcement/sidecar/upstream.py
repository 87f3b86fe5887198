"""Connections to serving nodes: a keep-alive pool, answers parsed strictly, callbacks only.

1. One request at a time per connection. What an upstream says unasked closes the connection.
2. The head is parsed by our own strict parser; chunk framing is walked by httptools, and only
   the decoded bytes go on: nothing of an upstream's framing reaches a client.
3. A request that was written is never repeated here: what the engine did with it is unknown.
4. Streams whose clients read after a pause, or leave, bring much at once: it is looked at in small
   pieces, between those of other streams, so that no call waits for all of it.
"""

import asyncio
import logging
import os
import socket
from collections import deque
from typing import Any, Protocol, cast

import httptools

from enforcement.sidecar import clock
from enforcement.sidecar.config import Config, UpstreamConfig
from enforcement.sidecar.http1 import (
    MAX_HEAD_BYTES,
    HttpError,
    ResponseHead,
    parse_response_head,
)
from enforcement.sidecar.turns import Turns

MAX_INTERIM = 4
MAX_CACHED_HEADS = 64
SLICE_BYTES = 16 * 1024  # of a stream: some 80 events, less than a millisecond
_CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
_NS = 1_000_000_000
log = logging.getLogger(__name__)
_NEVER_NS = 1 << 62


class Sink(Protocol):
    """Who hears of an answer. Exactly one of `on_end` and `on_failure` comes last.

    `closed`: the node ended the connection itself, so it makes nothing more for this request.
    """

    def on_head(self, head: ResponseHead) -> None: ...
    def on_body(self, data: bytes) -> None: ...
    def on_end(self) -> None: ...
    def on_failure(self, reason: str, *, sent: bool, closed: bool = False) -> None: ...
    def on_connected(self, connection: "UpstreamConnection") -> bool: ...


class UpstreamConnection(Protocol):
    """What carries one request to an engine and its answer back to a sink."""

    sink: Sink | None

    def half_close(self) -> bool: ...
    def drop(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Line(Protocol):
    """How one serving node is reached."""

    def send(self, sink: Sink, pieces: list[bytes]) -> UpstreamConnection | None: ...
    def sweep(self, now_ns: int) -> None: ...
    def close(self) -> None: ...


class NodeConnection(asyncio.Protocol):
    """One connection. `sink` is set while a request is on it."""

    __slots__ = (
        "_at",
        "_backlog",
        "_body",
        "_buffer",
        "_complete",
        "_half_closed",
        "_held",
        "_interim",
        "_left",
        "_parser",
        "_pool",
        "_queued",
        "_surplus",
        "deadline_ns",
        "head",
        "idle_since_ns",
        "sink",
        "transport",
    )

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self.transport: asyncio.Transport | None = None
        self.sink: Sink | None = None
        self.head: ResponseHead | None = None
        self.idle_since_ns = 0
        self.deadline_ns = 0
        self._half_closed = False
        self._queued = False  # the backlog waits for its turn
        self._reset()

    def _reset(self) -> None:
        self.head = None
        self._backlog = b""  # of a stream: read, and not looked at yet
        self._at = 0
        self._held = False  # the client reads slowly
        self._buffer = b""
        self._left = 0
        self._parser: Any = None
        self._body: list[bytes] = []
        self._complete = False
        self._surplus = False  # more came behind the last chunk
        self._interim = 0

    # ------------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        head = self.head
        whole = head is None or head.length is not None
        if whole or (len(data) <= SLICE_BYTES and not self._backlog):
            self._read(data)
            return
        if self.transport is not None:
            self.transport.pause_reading()
        self._backlog, self._at = self._backlog[self._at :] + data, 0
        self._queue()

    def _queue(self) -> None:
        if not self._queued:
            self._queued = True
            self._pool.backlogs.add(self._read_slice)

    def _read_slice(self) -> bool:
        """Look at a piece of the backlog; whether to go on with it."""
        self._queued = False
        if self.sink is None or self._held:
            return False
        data = self._backlog[self._at : self._at + SLICE_BYTES]
        self._at += len(data)
        if self._at >= len(self._backlog):
            self._backlog, self._at = b"", 0
        if data:
            self._read(data)
        if self._held or self._queued:
            return False
        self._queued = bool(self._backlog)
        if not self._queued and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
        return self._queued

    def _read(self, data: bytes) -> None:
        sink = self.sink
        if sink is None:
            self.abort()
            return
        try:
            if self.head is None:
                rest = self._read_head(data, sink)
                if rest is None:
                    return
                data = rest
            if self.sink is sink:
                self._read_body(data, sink)
        except HttpError as error:
            self._fail(str(error))
        except httptools.HttpParserError:
            self._fail("malformed chunk from upstream")
        except Exception:
            log.exception("an answer of %s could not be handled", self._pool.target.name)
            self._fail("internal error")

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.forget(self)
        rest, self._backlog = self._backlog[self._at :], b""
        if rest:
            self._read(rest)
        sink, self.sink = self.sink, None
        if sink is None:
            return
        head = self.head
        if head is not None and head.length is None and not head.chunked and exc is None:
            sink.on_end()
        else:
            closed = exc is None or isinstance(exc, ConnectionError)  # no time-out of the network
            sink.on_failure("upstream closed the connection", sent=True, closed=closed)

    def pause_writing(self) -> None:
        """Request bodies are small beside the socket's buffer: nothing to hold back."""

    def resume_writing(self) -> None:
        """See `pause_writing`."""

    # ------------------------------------------------------------------ reading

    def _read_head(self, data: bytes, sink: Sink) -> bytes | None:
        data = self._buffer + data if self._buffer else data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if len(data) > MAX_HEAD_BYTES:
                raise HttpError("the upstream's head is too large", status=502)
            self._buffer = data
            return None
        self._buffer = b""
        end += 4
        if end > MAX_HEAD_BYTES:
            raise HttpError("the upstream's head is too large", status=502)
        head = self._pool.head_of(data[:end])
        if head.status < 200:
            self._interim += 1
            if head.status == 101 or self._interim > MAX_INTERIM:
                raise HttpError("unexpected interim answer", status=502)
            return self._read_head(data[end:], sink)
        self.head = head
        if head.chunked:
            self._parser = httptools.HttpResponseParser(self)
            self._parser.feed_data(_CHUNKED_HEAD)
        else:
            self._left = -1 if head.length is None else head.length
        sink.on_head(head)
        return data[end:]

    def on_body(self, body: bytes) -> None:
        """A piece of a chunk, from httptools."""
        if not self._complete:
            self._body.append(body)

    def on_message_begin(self) -> None:
        """An answer begins, from httptools; there is only one."""
        self._surplus = self._complete

    def on_message_complete(self) -> None:
        """The last chunk has been read, from httptools."""
        self._complete = True

    def _read_body(self, data: bytes, sink: Sink) -> None:
        self.deadline_ns = clock.now_ns() + self._pool.idle_ns
        if self._parser is not None:
            if data:
                self._read_chunks(data, sink)
        elif self._left < 0:
            if data:
                sink.on_body(data)
        else:
            if len(data) > self._left:
                raise HttpError("more body than was announced", status=502)
            self._left -= len(data)
            if data:
                sink.on_body(data)
            if not self._left and self.sink is sink:
                self._finish(sink)

    def _read_chunks(self, data: bytes, sink: Sink) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if not self._complete:
                raise
            self._surplus = True
        body = self._body
        if body:
            piece = body[0] if len(body) == 1 else b"".join(body)
            body.clear()
            sink.on_body(piece)
        if self._complete and self.sink is sink:
            self._finish(sink)

    def _finish(self, sink: Sink) -> None:
        head = self.head
        spoilt = self._surplus or self._half_closed or bool(self._backlog)
        reusable = head is not None and head.keep_alive and not spoilt
        self.sink = None
        self._reset()
        if reusable and self.transport is not None:
            self._pool.release(self)
        else:
            self.abort()
        sink.on_end()

    def _fail(self, reason: str) -> None:
        sink, self.sink = self.sink, None
        self.abort()
        if sink is not None:
            sink.on_failure(reason, sent=True)

    # ------------------------------------------------------------------ what the owner does

    def begin(self, sink: Sink, pieces: list[bytes], *, deadline_ns: int) -> None:
        """Send a request; its answer goes to `sink`."""
        self.sink = sink
        self.deadline_ns = deadline_ns
        if self.transport is not None:
            self.transport.writelines(pieces)

    def half_close(self) -> bool:
        """Tell the engine that nobody waits any more, and go on reading what it still sends.

        A paid API behind TLS is left at once: that its edge hangs up says nothing of its engine.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            return False
        if transport.can_write_eof():
            self._go_on(transport)
            transport.write_eof()
        elif self._pool.target.local and _end_below_tls(transport):
            self._go_on(transport)
        else:
            return False
        self._half_closed = True  # an engine that answers to the end all the same: not reusable
        return True

    def drop(self) -> None:
        """Forget the request and close."""
        self.sink = None
        self.abort()

    def abort(self) -> None:
        self._pool.forget(self)
        if self.transport is not None:
            self.transport.abort()

    def pause_reading(self) -> None:
        """The client reads slowly: let the engine wait, however long that takes."""
        if self.transport is not None and not self.transport.is_closing():
            self._held = True
            self.transport.pause_reading()
            self.deadline_ns = _NEVER_NS

    def resume_reading(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self._go_on(self.transport)
            self.deadline_ns = clock.now_ns() + self._pool.idle_ns

    def _go_on(self, transport: asyncio.Transport) -> None:
        """Nobody holds it any more: what was read comes first."""
        self._held = False
        if self._backlog:
            self._queue()
        else:
            transport.resume_reading()

    def check_deadline(self, now_ns: int) -> None:
        """Fail a request whose head or next byte is overdue."""
        if self.sink is not None and now_ns >= self.deadline_ns:
            what = "did not answer in time" if self.head is None else "stopped sending"
            self._fail(f"upstream {what}")


def _end_below_tls(transport: asyncio.Transport) -> bool:
    """End the TCP stream that TLS writes to; whether that could be done.

    TLS libraries close both ways at once, and then read nothing more. The request has been sent
    whole, so that a stream which ends without `close_notify` cuts nothing off (RFC 8446, 6.1), and
    servers take it for what it is: their client has gone.
    """
    descriptor = transport.get_extra_info("socket").fileno()
    try:
        with socket.socket(fileno=os.dup(descriptor)) as below:
            below.shutdown(socket.SHUT_WR)
    except OSError:
        return False
    return True


class Pool:
    """The connections to one serving node."""

    def __init__(self, target: UpstreamConfig, config: Config) -> None:
        self.target = target
        self.idle_ns = int(config.upstream_idle_timeout * _NS)
        self._head_ns = int(config.upstream_head_timeout * _NS)
        self._keepalive_ns = int(config.upstream_keepalive * _NS)
        self._tls = target.encrypted.context() if target.tls else None
        self._server_name = target.encrypted.server_name or None if target.tls else None
        self._connect_timeout = config.upstream_connect_timeout
        self._idle: deque[NodeConnection] = deque()
        self._all: set[NodeConnection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._closed = False
        self.backlogs = Turns()
        self._heads: dict[bytes, ResponseHead] = {}

    def head_of(self, raw: bytes) -> ResponseHead:
        """Parse a head; a node often repeats its own byte for byte, so the last ones are kept."""
        head = self._heads.get(raw)
        if head is None:
            head = parse_response_head(raw)
            if len(self._heads) >= MAX_CACHED_HEADS:
                self._heads.clear()
            self._heads[raw] = head
        return head

    def send(self, sink: Sink, pieces: list[bytes]) -> UpstreamConnection | None:
        """Send on an idle connection, or open one and send if `sink.on_connected` says so."""
        now_ns = clock.now_ns()
        while self._idle:
            connection = self._idle.pop()
            transport = connection.transport
            fresh = now_ns - connection.idle_since_ns < self._keepalive_ns
            if fresh and transport is not None and not transport.is_closing():
                connection.begin(sink, pieces, deadline_ns=now_ns + self._head_ns)
                return connection
            connection.abort()
        task = asyncio.get_running_loop().create_task(self._open(sink, pieces))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return None

    async def _open(self, sink: Sink, pieces: list[bytes]) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout):
                _, connection = await loop.create_connection(
                    lambda: NodeConnection(self),
                    self.target.host,
                    self.target.port,
                    ssl=self._tls,
                    server_hostname=self._server_name,
                )
        except (OSError, TimeoutError, ValueError) as error:
            sink.on_failure(f"upstream cannot be reached: {error or 'timeout'}", sent=False)
            return
        self._all.add(connection)
        if not sink.on_connected(connection):  # nobody waits for it any more
            connection.idle_since_ns = clock.now_ns()
            self._idle.append(connection)
            return
        connection.begin(sink, pieces, deadline_ns=clock.now_ns() + self._head_ns)

    def release(self, connection: NodeConnection) -> None:
        """Take a connection back after a complete answer."""
        if self._closed:
            connection.abort()
            return
        connection.idle_since_ns = clock.now_ns()
        self._idle.append(connection)

    def forget(self, connection: NodeConnection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def sweep(self, now_ns: int) -> None:
        """Fail what is overdue, close what idled too long."""
        for connection in list(self._all):
            connection.check_deadline(now_ns)
        for connection in list(self._idle):
            if now_ns - connection.idle_since_ns >= self._keepalive_ns:
                connection.abort()

    def close(self) -> None:
        self._closed = True
        for task in self._opening:
            task.cancel()
        for connection in list(self._all):
            connection.drop()
