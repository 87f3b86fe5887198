"""One bounded GET to a serving node: a total deadline, a size limit, no redirects, plain words.

`urllib` limits each read only, so a node that drips a byte a second would hold a worker for ever.
"""

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from enforcement.collectors.base import CollectorError

CONNECT_S = 1.0
WITHIN_S = 3.0
MOST_BYTES = 4 * 1024 * 1024
_PIECE = 65_536
_METADATA_OF_AWS = ipaddress.ip_address("fd00:ec2::254")
_HEADERS = {"connection": "close", "accept": "text/plain, application/json"}


class Answer(NamedTuple):
    """What a node answered. Names of headers are in lower case."""

    body: bytes
    headers: dict[str, str]


def fetch(base_url: str, path: str, *, within: float = WITHIN_S, most: int = MOST_BYTES) -> Answer:
    """A 200 answer. Raises CollectorError, in words for the node's page."""
    connection = _connection(base_url)
    late = threading.Event()
    try:
        connection.connect()
        refuse_metadata(connection.sock.getpeername()[0])
        connection.sock.settimeout(within)
        with _deadline(connection.sock, within, late):
            connection.request("GET", urlsplit(base_url).path.rstrip("/") + path, headers=_HEADERS)
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                raise CollectorError(f"{path} answered {answer.status}")
            body = _body(answer, most)
            headers = {name.lower(): value[:200] for name, value in answer.getheaders()}
    except (OSError, http.client.HTTPException, ValueError) as error:
        if late.is_set() or isinstance(error, TimeoutError):
            raise CollectorError(f"{path} did not answer within {within:g} s") from None
        raise CollectorError(f"{path}: {_words(error)}") from error
    finally:
        connection.close()
    if late.is_set():
        raise CollectorError(f"{path} did not answer within {within:g} s")
    return Answer(body, headers)


def refuse_metadata(peer: str) -> None:
    """A name can point anywhere: what counts is who was reached.

    Raises CollectorError: the metadata service of a cloud, which hands out credentials.
    """
    address = ipaddress.ip_address(peer)
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_link_local or address == _METADATA_OF_AWS:
        raise CollectorError("the address leads to the metadata service of a cloud")


def _connection(base_url: str) -> http.client.HTTPConnection:
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise CollectorError("the address is no URL") from None
    if not host or parts.scheme not in ("http", "https") or parts.username is not None:
        raise CollectorError("the address must be http(s)://host, without a user")
    if parts.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=CONNECT_S, context=context)
    return http.client.HTTPConnection(host, port, timeout=CONNECT_S)


@contextlib.contextmanager
def _deadline(sock: socket.socket, within: float, late: threading.Event) -> Iterator[None]:
    """Close the connection at the deadline, whatever is being read then."""

    def end() -> None:
        late.set()
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(within, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _body(answer: http.client.HTTPResponse, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while piece := answer.read1(_PIECE):
        size += len(piece)
        if size > most:
            raise CollectorError(f"answered more than {most // (1024 * 1024)} MiB")
        parts.append(piece)
    if answer.length:  # what of its content-length is missing: a cut number is another number
        raise CollectorError("the answer ended early")
    return b"".join(parts)


def _words(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return "the host name is unknown"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__ if not str(error) else str(error)[:120]
