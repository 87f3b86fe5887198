"""Is a part ready? Each probe is one cheap look that never raises."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import NamedTuple


class Start(NamedTuple):
    """What tells one start of a part from an earlier one."""

    pid: int
    log_bytes: int  # the size of the log when it began


Probe = Callable[[], Coroutine[None, None, bool]]
PROBE_TIMEOUT_S = 3


def of(look: Callable[[], bool]) -> Probe:
    """A probe from a plain function that returns at once."""

    async def probe() -> bool:
        return look()

    return probe


def http_ok(host: str, port: int, path: str) -> Probe:
    """Whether `GET path` answers 200."""
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode()

    async def probe() -> bool:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(host, port)
                writer.write(request)
                status = await reader.readline()
                writer.close()
        except (OSError, TimeoutError):
            return False
        return status.split(b" ")[1:2] == [b"200"]

    return probe


def log_says(log: Path, words: bytes, *, after: int) -> Probe:
    """Whether the log holds these words beyond the byte at which this start began."""

    async def probe() -> bool:
        with log.open("rb") as file:
            file.seek(after)
            return words in file.read()

    return probe


def reserved_port(host: str, wanted: int) -> socket.socket:
    """A socket on the wanted port, or on one that the system chooses if that is taken.

    While it is open no other launcher takes the port. Close it just before the port is used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return _listening(family, host, wanted)
    except OSError:
        return _listening(family, host, 0)


def _listening(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    """Listening, because sockets that are merely bound do not exclude each other."""
    reservation = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Connections of an earlier start that linger in the kernel must not cost us the port.
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind((host, port))
        reservation.listen(1)
    except OSError:
        reservation.close()
        raise
    return reservation


def port_of(reservation: socket.socket) -> int:
    return int(reservation.getsockname()[1])
