"""The same bytes, read by h11: a parser that others trust."""

from typing import NamedTuple

import h11


class Read(NamedTuple):
    """What h11 makes of a first request. `error`: why it refuses; `ended`: the body is whole."""

    error: str = ""
    method: bytes = b""
    target: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    ended: bool = False
    rest: bytes = b""


def read(data: bytes) -> Read:
    """Read the first request."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1_000_000)
    found = Read()
    body = bytearray()
    try:
        server.receive_data(data)
        while True:
            event = server.next_event()
            if isinstance(event, h11.Request):
                headers = tuple((name, value) for name, value in event.headers)
                found = found._replace(method=event.method, target=event.target, headers=headers)
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                rest = server.trailing_data[0]
                return found._replace(body=bytes(body), ended=True, rest=rest)
            else:
                return found._replace(body=bytes(body))
    except h11.RemoteProtocolError as error:
        return found._replace(error=str(error) or "refused", body=bytes(body))
