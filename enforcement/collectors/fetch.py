"""One bounded GET to a serving node: a total deadline, a size limit, no redirects, plain words.

The answer is read as strictly as a sidecar reads its upstreams: a length that can be understood in
two ways is no answer. Thousands of these run in one event loop; none of them waits for another.
"""

import asyncio
import functools
import ipaddress
import os
import socket
import ssl
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import urlsplit

from enforcement.collectors.base import CollectorError
from enforcement.rules.addresses import Address, literal, refusal
from enforcement.rules.readings import Outcome
from enforcement.sidecar.http1 import ChunkedBody, HttpError, ResponseHead, parse_response_head

WITHIN_S = 3.0
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
MOST_BYTES = 4 * 1024 * 1024
_PIECE = 65_536
_TOO_LARGE = 413


class Answer(NamedTuple):
    """What a node answered. Names of headers are in lower case; `peer` is who was reached."""

    body: bytes
    headers: dict[str, str]
    peer: str = ""


class _Place(NamedTuple):
    host: str
    port: int
    tls: ssl.SSLContext | None
    named: str  # as the Host header says it
    prefix: str


async def fetch(
    base_url: str,
    path: str,
    *,
    within: float = WITHIN_S,
    most: int = MOST_BYTES,
    headers: Mapping[str, str] = _NO_HEADERS,
    trust: ssl.SSLContext | None = None,
) -> Answer:
    """A 200 answer. `headers` are sent too; `trust` stands in for the machine's certificates.

    Raises CollectorError, in words for the node's page.
    """
    place = _place(base_url, trust)
    asked = path.partition("?")[0]
    try:
        async with asyncio.timeout(within):
            return await _exchange(place, path, most, headers)
    except TimeoutError:
        raise CollectorError(
            f"{asked} did not answer within {within:g} s", Outcome.SILENT
        ) from None
    except HttpError as error:
        if error.status == _TOO_LARGE:
            raise _too_much(most) from error
        raise CollectorError(f"{asked}: {error}") from error
    except (OSError, EOFError, asyncio.LimitOverrunError, ValueError) as error:
        broken = not isinstance(error, OSError | EOFError)
        why = Outcome.UNREADABLE if broken else Outcome.UNREACHABLE
        raise CollectorError(f"{asked}: {_words(error)}", why) from error


def _place(base_url: str, trust: ssl.SSLContext | None) -> _Place:
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise CollectorError("the address is no URL", Outcome.FORBIDDEN) from None
    if not host or parts.scheme not in ("http", "https") or parts.username is not None:
        words = "the address must be http(s)://host, without a user"
        raise CollectorError(words, Outcome.FORBIDDEN)
    tls = (trust or _trust()) if parts.scheme == "https" else None
    return _Place(host, port or (443 if tls else 80), tls, parts.netloc, parts.path.rstrip("/"))


@functools.cache
def _trust() -> ssl.SSLContext:
    """The machine's certificates; reading them takes longer than a visit."""
    return ssl.create_default_context()


async def _exchange(place: _Place, path: str, most: int, headers: Mapping[str, str]) -> Answer:
    reader, writer = await _connect(place)
    try:
        peer = writer.get_extra_info("peername")
        writer.write(
            f"GET {place.prefix}{path} HTTP/1.1\r\nhost: {place.named}\r\nconnection: close\r\n"
            f"accept: text/plain, application/json\r\n{_lines(headers)}\r\n".encode()
        )
        head = parse_response_head(await reader.readuntil(b"\r\n\r\n"))
        if head.status != 200:
            moved = ", redirects are not followed" if 300 <= head.status < 400 else ""
            asked = path.partition("?")[0]
            raise CollectorError(f"{asked} answered {head.status}{moved}", Outcome.STATUS)
        body = await _body(reader, head, most)
    finally:
        writer.transport.abort()
    told = {
        name.decode("latin-1").lower(): value.decode("latin-1")[:200]
        for name, value in head.headers.items()
    }
    return Answer(body, told, f"{peer[0]}:{peer[1]}")


async def _connect(place: _Place) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to an address that was judged: a name is not asked again in between.

    Raises CollectorError: the name leads where nobody is sent, by one of its addresses or all.
    """
    addresses = await _addresses(place)
    refused = next(filter(None, map(refusal, addresses)), "")
    if refused:
        raise CollectorError(refused, Outcome.FORBIDDEN)
    name = place.host.removesuffix(".") if place.tls else None
    failed: OSError = socket.gaierror()
    for address in addresses:
        try:
            return await asyncio.open_connection(
                str(address), place.port, ssl=place.tls, server_hostname=name
            )
        except OSError as error:
            failed = error
    raise failed


async def _addresses(place: _Place) -> list[Address]:
    spelt = literal(place.host)
    if spelt is not None:
        return [spelt]
    found = await asyncio.get_running_loop().getaddrinfo(
        place.host, place.port, type=socket.SOCK_STREAM
    )
    return [ipaddress.ip_address(address[0]) for *_, address in found]


def _lines(headers: Mapping[str, str]) -> str:
    """Raises ValueError: something that is no value of a header."""
    if not all(value.isascii() and value.isprintable() for value in headers.values()):
        raise ValueError("a header has characters that cannot be sent")
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


async def _body(reader: asyncio.StreamReader, head: ResponseHead, most: int) -> bytes:
    if head.length is not None and head.length > most:
        raise _too_much(most)
    chunked = ChunkedBody(limit=most) if head.chunked else None
    parts: list[bytes] = []
    size = 0
    while head.length is None or size < head.length:
        piece = await reader.read(_PIECE)
        if not piece:
            if chunked or head.length is not None:  # a cut number is another number
                raise CollectorError("the answer ended early", Outcome.UNREACHABLE)
            break
        if chunked:
            if chunked.feed(piece) is not None:
                return bytes(chunked.body())
            continue
        size += len(piece)
        parts.append(piece)
        if size > most:
            raise _too_much(most)
    return b"".join(parts)[: head.length]


def _too_much(most: int) -> CollectorError:
    return CollectorError(f"answered more than {most // (1024 * 1024)} MiB", Outcome.TOO_LARGE)


def _words(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return "the host name is unknown"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its TLS certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or 'no reason told').replace('_', ' ').lower()}"
    if isinstance(error, EOFError):
        return "hung up before it answered"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return type(error).__name__ if not str(error) else str(error)[:120]
