"""Is a part ready? Each probe is one cheap look that never raises."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path

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


def free_port(host: str, wanted: int) -> int:
    """The wanted port, or one that the system chooses if somebody has it already."""
    for port in (wanted, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host, port))
            except OSError:
                continue
            return int(listener.getsockname()[1])
    return wanted
