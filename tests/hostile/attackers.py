"""Attacks on what a sidecar has: its memory, its descriptors, its time.

    python -m tests.hostile.attackers NAME PORT SECONDS SIZE

`SIZE` scales an attack: how many connections take part. Nothing here measures anything.
"""

import asyncio
import gzip
import json
import os
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache
from typing import NamedTuple

ENEMY = "cmp_live_enemy_secret"  # an agent of its own: an enemy with a valid key
_HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\n"
    b"Authorization: Bearer " + ENEMY.encode() + b"\r\n"
)
_MEGABYTE = 1_000_000


class Attack:
    """One attack: where to, until when, with how many connections."""

    def __init__(self, port: int, seconds: float, size: int) -> None:
        self.port = port
        self.until = time.monotonic() + seconds
        self.size = size

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.until

    async def everywhere(self, attack: Callable[["Attack"], Awaitable[None]]) -> None:
        """Run as many as are asked for, each anew when the sidecar ends it."""

        async def again() -> None:
            while not self.over:
                try:
                    await attack(self)
                except (OSError, EOFError):
                    await asyncio.sleep(0.05)

        await asyncio.gather(*(again() for _ in range(self.size)))

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def trickle(self, start: bytes, drop: bytes) -> None:
        """Begin a request, then send a drop of it twice a second."""
        reader, writer = await self.open()
        try:
            writer.write(start)
            while not self.over and not reader.at_eof():
                await asyncio.sleep(0.5)
                writer.write(drop)
                await writer.drain()
        finally:
            writer.transport.abort()

    async def repeat(self, request: bytes) -> None:
        """Send the same request on one connection, again when its answer has begun."""
        reader, writer = await self.open()
        try:
            while not self.over:
                writer.write(request)
                await writer.drain()
                if not await reader.read(1 << 16):
                    return
        finally:
            writer.transport.abort()


async def slow_heads(attack: Attack) -> None:
    await attack.trickle(b"GET /healthz HTTP/1.1\r\nHost: node\r\nX: ", b"a")


async def slow_bodies(attack: Attack) -> None:
    await attack.trickle(_HEAD + b"Content-Length: 8000000\r\n\r\n", b"a" * 20)


async def slow_readers(attack: Attack) -> None:
    """A long stream that is never read; the socket holds next to nothing."""
    kind = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    kind.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    kind.setblocking(False)
    try:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(kind, ("127.0.0.1", attack.port))
        await loop.sock_sendall(kind, _call({"stream": True, "max_tokens": 20_000}))
        while not attack.over:
            await asyncio.sleep(0.2)
    finally:
        kind.close()


async def idle_connections(attack: Attack) -> None:
    reader, writer = await attack.open()
    try:
        while not attack.over and not reader.at_eof():
            await asyncio.sleep(0.5)
    finally:
        writer.transport.abort()


async def idle_upgrades(attack: Attack) -> None:
    lines = b"Connection: Upgrade\r\nUpgrade: websocket\r\nHost: node\r\n\r\n"
    await attack.trickle(b"GET /v1/models HTTP/1.1\r\n" + lines, b"\x81\x00")


async def new_connections(attack: Attack) -> None:
    _, writer = await attack.open()
    writer.transport.abort()
    await asyncio.sleep(0.01)


@cache
def client_hello() -> bytes:
    """The first flight of a TLS handshake, as OpenSSL writes it.

    Made once: five hundred a second would take the attacker, and so a small machine, half a core.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="sidecar").do_handshake()
    return outgoing.read()


async def slow_handshakes(attack: Attack) -> None:
    """Not a whole hello in the time that a handshake may take."""
    await attack.trickle(client_hello()[:100], b"\0")


async def unfinished_handshakes(attack: Attack) -> None:
    """A whole hello, which makes the sidecar sign, and nothing behind it."""
    reader, writer = await attack.open()
    try:
        writer.write(client_hello())
        while not attack.over and await reader.read(1 << 16):
            pass
    finally:
        writer.transport.abort()


async def endless_hellos(attack: Attack) -> None:
    """As much of a hello as TLS allows, all of which has to be kept until its end comes."""
    message = b"\x01\x01\xff\x00" + bytes(7 * 16_384 - 4)
    records = [message[start : start + 16_384] for start in range(0, len(message), 16_384)]
    reader, writer = await attack.open()
    try:
        writer.writelines(b"\x16\x03\x01\x40\x00" + record for record in records)
        while not attack.over and await reader.read(1 << 16):
            pass
    finally:
        writer.transport.abort()


async def refused_requests(attack: Attack) -> None:
    await attack.repeat(b"GET /nothing HTTP/1.1\r\nHost: node\r\n\r\n")


async def unknown_keys(attack: Attack) -> None:
    await attack.repeat(_call({}).replace(ENEMY.encode(), os.urandom(16).hex().encode()))


async def bombs(attack: Attack) -> None:
    bomb = gzip.compress(b"0" * 50 * _MEGABYTE)
    await attack.repeat(
        _HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb
    )


async def deep_bodies(attack: Attack) -> None:
    await attack.repeat(_body(b'{"model":' + b"[" * 4 * _MEGABYTE))


async def dense_bodies(attack: Attack) -> None:
    await attack.repeat(_body(b'{"model":[' + b'{"a":0},' * 900_000 + b"0]}"))


async def abandoned_bodies(attack: Attack) -> None:
    """Nearly all of a large body, then no more of that connection."""
    _, writer = await attack.open()
    try:
        writer.write(_HEAD + b"Content-Length: 8000000\r\n\r\n" + b"a" * 7_900_000)
        await writer.drain()
        await asyncio.sleep(0.02)
    finally:
        writer.transport.abort()


async def colliding_keys(attack: Attack) -> None:
    keys = json.dumps({f"{number}": 0 for number in range(500_000)})
    await attack.repeat(_body(keys.encode()))


async def tiny_chunks(attack: Attack) -> None:
    await attack.repeat(
        _HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 1_300_000 + b"0\r\n\r\n"
    )


async def large_bodies(attack: Attack) -> None:
    await attack.trickle(_HEAD + b"Content-Length: 8000000\r\n\r\n" + b"a" * 7_900_000, b"a")


def _body(body: bytes) -> bytes:
    return _HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


def _call(fields: dict[str, object]) -> bytes:
    words = [{"role": "user", "content": "hello"}]
    return _body(
        json.dumps({"model": "fast", "messages": words, "max_tokens": 1} | fields).encode()
    )


class Kind(NamedTuple):
    """An attack, how many connections take part in its long form, and when it is at its height."""

    run: Callable[[Attack], Awaitable[None]]
    size: int
    warm_s: float = 2.0
    tls: bool = False  # against a sidecar that speaks it


ATTACKS: dict[str, Kind] = {
    "slow heads": Kind(slow_heads, 500),
    "slow bodies": Kind(slow_bodies, 500),
    "slow readers": Kind(slow_readers, 50, warm_s=10.0),  # until all that can be buffered is
    "idle connections": Kind(idle_connections, 10_000, warm_s=5.0),
    "idle upgrades": Kind(idle_upgrades, 100),
    "new connections": Kind(new_connections, 20),
    "refused requests": Kind(refused_requests, 4),
    "unknown keys": Kind(unknown_keys, 4),
    "compressed bombs": Kind(bombs, 4),
    "deep bodies": Kind(deep_bodies, 2),
    "dense bodies": Kind(dense_bodies, 2),
    "abandoned bodies": Kind(abandoned_bodies, 4),
    "keys that could collide": Kind(colliding_keys, 2),
    "tiny chunks": Kind(tiny_chunks, 2),
    "large bodies": Kind(large_bodies, 20, warm_s=4.0),
    "slow handshakes": Kind(slow_handshakes, 2_000, warm_s=5.0, tls=True),
    "unfinished handshakes": Kind(unfinished_handshakes, 2_000, warm_s=5.0, tls=True),
    "endless hellos": Kind(endless_hellos, 500, warm_s=5.0, tls=True),
}


def main() -> None:
    name, port, seconds, size = sys.argv[1:]
    attack = Attack(int(port), float(seconds), int(size))
    asyncio.run(attack.everywhere(ATTACKS[name].run))


if __name__ == "__main__":
    main()
