"""The listener without a socket: bytes in, the calls and refusals that it would hand on out."""

import asyncio
from pathlib import Path
from typing import NamedTuple

from enforcement.rules.requests import Body
from enforcement.sidecar.config import Config, parse_upstream
from enforcement.sidecar.front import ClientConnection, Front, HttpClient
from enforcement.sidecar.http1 import HttpError, RequestHead

MAX_BODY_BYTES = 4_096
_CONFIG = Config(
    upstreams=(parse_upstream("node=http://127.0.0.1:1", index=0, environ={}),),
    control_url="http://127.0.0.1:1",
    token="t",
    spool_dir=Path("unused"),
    max_body_bytes=MAX_BODY_BYTES,
)


class Taken(NamedTuple):
    """What became of the first request of a connection; `rest`: bytes that are the next one's."""

    head: RequestHead | None = None
    body: bytes = b""
    rest: bytes = b""
    refused: tuple[int, str] | None = None


class _Transport(asyncio.Transport):
    """A connection whose other side never reads."""

    def write(self, data: object) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class _Taker:
    """A handler that keeps what it is told."""

    def __init__(self) -> None:
        self.taken: Taken | None = None

    def check_head(self, head: RequestHead) -> None:
        pass

    def left_body(self, head: RequestHead, *, received_bytes: int) -> None:
        pass

    def handle(self, connection: ClientConnection, head: RequestHead, body: Body) -> None:
        self.taken = Taken(head, bytes(body))

    def refuse_http(
        self,
        connection: ClientConnection,
        error: HttpError,
        *,
        path: bytes,
        head: RequestHead | None = None,
    ) -> None:
        self.taken = Taken(refused=(error.status, str(error)))


def take(pieces: list[bytes]) -> Taken:
    """Feed a connection; nothing taken and nothing refused: it waits for more."""
    taker = _Taker()
    connection = HttpClient(Front(_CONFIG, taker))
    connection.connection_made(_Transport())
    for piece in pieces:
        if piece:
            connection.data_received(piece)
    taken = taker.taken or Taken()
    return taken._replace(rest=connection._pipelined) if taken.head is not None else taken
