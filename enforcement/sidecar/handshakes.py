"""The listener for callers over TLS: whoever is inside a handshake is counted, paced and timed.

A server of asyncio shows a connection only once its handshake is done. Here connections are taken
one by one, so that a flood of handshakes that never end is bounded:

1. in number: of too many, the one that waits longest makes room;
2. in time: a handshake ends within `HANDSHAKE_S`, however slowly its bytes come;
3. in memory: each holds up to 0.3 MB, and a connection behind it up to 0.6 MB (OpenSSL's and
   uvloop's buffers), so that both have a limit far below that of plain connections;
4. in processor time: signing costs 0.3 ms and more, so that handshakes begin `PACE_S` apart and
   requests on connections that stand already get their turn between them.
"""

import asyncio
import errno
import logging
import socket
import ssl

from enforcement.sidecar.front import Front, HttpClient

HANDSHAKE_S = 10.0
PACE_S = 0.002
MOST_HANDSHAKES = 512
MOST_TLS_CONNECTIONS = 2_048
EXHAUSTED_S = 1.0  # until the next look, when the process may open no more files

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

log = logging.getLogger(__name__)


class TlsListener:
    """Takes connections from listening sockets and puts HTTP behind their handshakes."""

    def __init__(
        self, front: Front, context: ssl.SSLContext, sockets: tuple[socket.socket, ...]
    ) -> None:
        self.sockets = sockets
        self._front = front
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._shaking: dict[asyncio.Task[None], None] = {}  # in the order in which they came
        self._closed = False
        self.handshake_s = HANDSHAKE_S
        front.most_connections = min(front.most_connections, MOST_TLS_CONNECTIONS)
        self.most_handshakes = max(min(MOST_HANDSHAKES, front.most_connections // 4), 1)
        for listener in sockets:
            listener.setblocking(False)
            self._listen(listener)

    @property
    def handshakes(self) -> int:
        """How many connections are inside a handshake."""
        return len(self._shaking)

    def close(self) -> None:
        """Take no more connections, and drop those that are not through."""
        self._closed = True
        for listener in self.sockets:
            self._loop.remove_reader(listener)
            listener.close()
        for task in self._shaking:
            task.cancel()

    def _listen(self, listener: socket.socket) -> None:
        if not self._closed:
            self._loop.add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        pause_s = PACE_S
        try:
            self._begin(listener.accept()[0])
        except OSError as error:  # most often: the caller has gone again
            if error.errno in _EXHAUSTED:
                log.warning("cannot take connections: %s", error)
                pause_s = EXHAUSTED_S
        self._loop.remove_reader(listener)
        self._loop.call_later(pause_s, self._listen, listener)

    def _begin(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        if len(self._shaking) >= self.most_handshakes:
            oldest = next(iter(self._shaking))
            del self._shaking[oldest]
            oldest.cancel()
        self._shaking[self._loop.create_task(self._shake(connection), name="handshake")] = None

    async def _shake(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: HttpClient(self._front),
                connection,
                ssl=self._context,
                ssl_handshake_timeout=self.handshake_s,
            )
        except OSError as error:  # TLS errors and time-outs are among them
            log.debug("no TLS: %s", error)
        finally:
            task = asyncio.current_task()
            if task is not None:
                self._shaking.pop(task, None)


async def listen_with_tls(
    front: Front, context: ssl.SSLContext, host: str, port: int, *, backlog: int, reuse_port: bool
) -> TlsListener:
    """Listen at every address of a host.

    Raises:
        OSError: the host is unknown or an address cannot be had.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            sockets.append(
                socket.create_server(
                    address[:2], family=family, backlog=backlog, reuse_port=reuse_port
                )
            )
    except OSError:
        for listener in sockets:
            listener.close()
        raise
    return TlsListener(front, context, tuple(sockets))
