"""A flood of TLS connections that come to nothing, with real sockets and certificates."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from enforcement.sidecar.handshakes import (
    MOST_HANDSHAKES,
    MOST_TLS_CONNECTIONS,
    PACE_S,
    TlsListener,
)
from enforcement.sidecar.tls import ClientTls, ServerTls
from tests.hostile.attackers import client_hello
from tests.sidecar.certificates import Authority
from tests.sidecar.engine import FakeEngine
from tests.sidecar.plane import Plane
from tests.sidecar.stack import PRICE, Stack, agent, in_loop, split_answer
from tests.sidecar.test_tls import config_for, encrypted_call, serving

CLOSING = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


@asynccontextmanager
async def besieged(tmp_path: Path) -> AsyncIterator[tuple[Stack, TlsListener, ssl.SSLContext]]:
    """A sidecar that speaks TLS, its listener, and how a caller trusts it."""
    authority = Authority(tmp_path / "tls")
    certificate, key = authority.sign("127.0.0.1")
    engine, plane = FakeEngine(), Plane(agents=[agent()], prices=[PRICE])
    async with engine.running(), plane.running():
        config = config_for(tmp_path, engine.url, ClientTls(), plane)
        config = replace(config, tls=ServerTls(cert_file=certificate, key_file=key))
        async with serving(config, engine, plane) as world:
            (listener,) = world.service._listeners
            assert isinstance(listener, TlsListener)
            yield world, listener, ssl.create_default_context(cafile=authority.ca_file)


async def begun(world: Stack) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that has said hello, was answered, and says no more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(client_hello())
    assert await reader.read(1 << 16)
    return reader, writer


@in_loop
async def test_of_too_many_handshakes_the_oldest_makes_room(tmp_path: Path) -> None:
    async with besieged(tmp_path) as (world, listener, trusted):
        listener.most_handshakes = 3
        crowd = [await begun(world) for _ in range(4)]
        assert await crowd[0][0].read() == b""
        assert listener.handshakes == 3
        _, _, page = split_answer(await encrypted_page(world.port, trusted))
        assert b"comptroller_sidecar_tls_handshakes 2.0\n" in page  # a second one made room for it
        served = await encrypted_call(world.port, trusted)
        assert split_answer(served)[0] == 200
        for _, writer in crowd:
            writer.close()


@in_loop
async def test_a_handshake_of_one_byte_at_a_time_ends_in_time(tmp_path: Path) -> None:
    async with besieged(tmp_path) as (world, listener, trusted):
        listener.handshake_s = 0.3
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        began = time.monotonic()
        for byte in client_hello():
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)
            if reader.at_eof():
                break
        assert 0.25 < time.monotonic() - began < 2.0
        assert listener.handshakes == 0
        assert split_answer(await encrypted_call(world.port, trusted))[0] == 200
        writer.close()


@in_loop
async def test_handshakes_are_paced(tmp_path: Path) -> None:
    async with besieged(tmp_path) as (world, listener, _):
        crowd = [socket.create_connection(("127.0.0.1", world.port)) for _ in range(50)]
        began = time.monotonic()
        while listener.handshakes < len(crowd):
            await asyncio.sleep(0.001)
        assert time.monotonic() - began >= (len(crowd) - 2) * PACE_S
        for connection in crowd:
            connection.close()
        while listener.handshakes:
            await asyncio.sleep(0.01)


@in_loop
async def test_no_tls_at_all_is_closed_and_forgotten(tmp_path: Path) -> None:
    async with besieged(tmp_path) as (world, listener, trusted):
        assert await world.raw(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n") in (b"", PLAIN_ALERT)
        connection = socket.create_connection(("127.0.0.1", world.port))
        connection.close()
        assert split_answer(await encrypted_call(world.port, trusted))[0] == 200
        assert listener.handshakes == 0


PLAIN_ALERT = b"\x15\x03\x01\x00\x02\x02\x46"  # a record: fatal, protocol_version


@in_loop
async def test_who_never_says_goodbye_makes_room(tmp_path: Path) -> None:
    """Closing over TLS waits for the other side: a caller that stays away holds no place."""
    async with besieged(tmp_path) as (world, _, trusted):
        front = world.service._front
        assert front.most_connections == MOST_TLS_CONNECTIONS
        front.most_connections = 2
        stayed = [
            await asyncio.to_thread(answered_and_silent, world.port, trusted) for _ in range(2)
        ]
        assert len(front.connections) == 2
        assert split_answer(await encrypted_call(world.port, trusted))[0] == 200
        assert len(front.connections) <= 2
        for connection in stayed:
            connection.close()


@in_loop
async def test_handshakes_end_with_the_sidecar(tmp_path: Path) -> None:
    async with besieged(tmp_path) as (world, listener, _):
        assert listener.most_handshakes == MOST_HANDSHAKES
        reader, writer = await begun(world)
    assert await reader.read() == b""
    assert listener.handshakes == 0
    writer.close()


def answered_and_silent(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Ask for an answer and a close, read the answer, and never say goodbye."""
    connection = context.wrap_socket(
        socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1"
    )
    connection.sendall(CLOSING)
    assert connection.recv(1 << 16).startswith(b"HTTP/1.1 ")
    return connection


async def encrypted_page(port: int, context: ssl.SSLContext) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(CLOSING.replace(b"/healthz", b"/metrics"))
    page = await reader.read()
    writer.close()
    return page
