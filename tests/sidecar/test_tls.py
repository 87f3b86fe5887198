"""TLS on all three sides, with real certificates: nodes, control plane, callers."""

import asyncio
import json
import select
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from enforcement.rules.policy import Unit
from enforcement.rules.wire import Outcome, UsageEvent
from enforcement.sidecar.config import Config, parse_upstream
from enforcement.sidecar.engines import ABORT_TOKENS, Engine
from enforcement.sidecar.service import Service
from enforcement.sidecar.tls import ClientTls, ServerTls
from tests.sidecar.certificates import Authority
from tests.sidecar.engine import FakeEngine
from tests.sidecar.plane import TOKEN, Plane
from tests.sidecar.stack import (
    KEY,
    PRICE,
    Stack,
    agent,
    budget,
    chat,
    in_loop,
    ready,
    split_answer,
)
from tests.sidecar.test_orders import open_stream

CAPPED: dict[str, Any] = {
    "agents": [agent()],
    "budgets": [budget(100_000, Unit.TOKENS)],
    "prices": [PRICE],
}


@asynccontextmanager
async def behind_tls(server: Any, context: ssl.SSLContext) -> AsyncIterator[str]:
    """The same server on a port of its own, encrypted."""
    listener = await asyncio.start_server(server._serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()


def config_for(tmp_path: Path, url: str, tls: ClientTls, plane: Plane, **fields: Any) -> Config:
    node = replace(parse_upstream(f"node={url}", index=0, environ={}), encrypted=tls)
    fields = {"control_url": plane.url, "context_window": 1000, "shutdown_timeout": 1.0} | fields
    return Config(
        upstreams=(node,), token=TOKEN, spool_dir=tmp_path / "spool", listen_port=0, **fields
    )


@asynccontextmanager
async def serving(config: Config, engine: FakeEngine, plane: Plane) -> AsyncIterator[Stack]:
    service = Service(config)
    running = asyncio.create_task(service.run())
    found = Stack(engine, plane, service)
    try:
        await ready(found)
        yield found
    finally:
        service.stop()
        assert await running == 0


@in_loop
async def test_a_node_behind_tls_with_an_authority_and_a_name_of_its_own(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    engine, plane = FakeEngine(kind="vllm"), Plane(agents=[agent()], prices=[PRICE])
    tls = ClientTls(ca_file=authority.ca_file, server_name="node.internal")
    async with (
        plane.running(),
        behind_tls(engine, authority.server("node.internal")) as url,
        serving(config_for(tmp_path, url, tls, plane), engine, plane) as world,
    ):
        status, _, body = await world.post(chat(max_tokens=3))
        streamed, _, _ = await world.post(chat(max_tokens=3, stream=True))
    assert (status, streamed) == (200, 200)
    assert json.loads(body)["usage"]["completion_tokens"] == 3


@asynccontextmanager
async def behind_a_deaf_proxy(server: FakeEngine, context: ssl.SSLContext) -> AsyncIterator[str]:
    """Ends TLS in front of a plain node, and does not tell it when a caller has gone."""
    async with server.running():
        port = int(server.url.rpartition(":")[2])
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=_proxy, args=(listener, port, context))
            thread.start()
            yield f"https://127.0.0.1:{listener.getsockname()[1]}"
            listener.shutdown(socket.SHUT_RDWR)
            await asyncio.to_thread(thread.join)


def _proxy(listener: socket.socket, port: int, context: ssl.SSLContext) -> None:
    with suppress(OSError), ThreadPoolExecutor() as callers:
        while True:
            connection, _ = listener.accept()
            callers.submit(_pass_on, connection, port, context)


def _pass_on(connection: socket.socket, port: int, context: ssl.SSLContext) -> None:
    with (
        suppress(OSError),
        socket.create_connection(("127.0.0.1", port)) as node,
        context.wrap_socket(connection, server_side=True) as caller,
    ):
        both: dict[socket.socket, socket.socket] = {caller: node, node: caller}
        while node in both:
            for source in select.select(list(both), [], [], 5)[0]:
                data = source.recv(1 << 16)
                if data:
                    both[source].sendall(data)
                else:
                    del both[source]


async def stopped_stream(
    config: Config, engine: FakeEngine, plane: Plane
) -> tuple[UsageEvent, int]:
    """What a stream that its client left is charged, and what the engine had made by then."""
    async with serving(config, engine, plane) as world:
        _, writer = await open_stream(world)
        writer.close()
        await world.quiet()
        stopped_at = engine.output_tokens
        await asyncio.sleep(0.1)
    (event,) = plane.events.values()
    assert event.outcome is Outcome.CLIENT_GONE
    balance = plane.balance("budget-tokens")
    assert (balance.spent, balance.held) == (event.input_tokens + event.output_tokens, 0)
    return event, stopped_at


@in_loop
async def test_a_stream_that_is_stopped_behind_tls_pays_what_was_made(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    engine, plane = FakeEngine(kind="vllm", delay=0.01), Plane(**CAPPED)
    tls = ClientTls(ca_file=authority.ca_file, server_name="node.internal")
    async with plane.running(), behind_tls(engine, authority.server("node.internal")) as url:
        event, stopped_at = await stopped_stream(
            config_for(tmp_path, url, tls, plane), engine, plane
        )
    assert engine.output_tokens == stopped_at
    assert 0 <= event.output_tokens - stopped_at <= ABORT_TOKENS[Engine.VLLM]


@in_loop
async def test_a_node_behind_tls_that_is_not_heard_to_stop_is_paid_what_was_held(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path / "tls")
    engine, plane = FakeEngine(kind="vllm", delay=0.01), Plane(**CAPPED)
    tls = ClientTls(ca_file=authority.ca_file, server_name="node.internal")
    async with (
        plane.running(),
        behind_a_deaf_proxy(engine, authority.server("node.internal")) as url,
    ):
        config = config_for(tmp_path, url, tls, plane, drain_timeout=0.3)
        event, _ = await stopped_stream(config, engine, plane)
    assert event.output_tokens == 900


@in_loop
async def test_a_paid_api_behind_tls_is_paid_what_was_held(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    engine, plane = FakeEngine(delay=0.01), Plane(**CAPPED)
    tls = ClientTls(ca_file=authority.ca_file, server_name="node.internal")
    async with plane.running(), behind_tls(engine, authority.server("node.internal")) as url:
        config = config_for(tmp_path, url, tls, plane)
        (node,) = config.upstreams
        config = replace(config, upstreams=(replace(node, local=False),))
        event, _ = await stopped_stream(config, engine, plane)
    assert event.output_tokens == 900


@in_loop
async def test_a_node_that_is_not_who_it_should_be_gets_nothing(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    engine, plane = FakeEngine(), Plane(agents=[agent()], prices=[PRICE])
    other_name = ClientTls(ca_file=authority.ca_file, server_name="other.internal")
    async with behind_tls(engine, authority.server("node.internal")) as url, plane.running():
        for tls in (ClientTls(), other_name):
            service = Service(config_for(tmp_path, url, tls, plane))
            (node,) = service.desk.router.upstreams
            await node.probe()
            assert not node.healthy
            assert "certificate verify failed" in node.last_error.lower()
            service._worker.close()
    assert engine.calls == 0


@in_loop
async def test_a_node_may_go_unverified_if_told_so(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    engine, plane = FakeEngine(), Plane(agents=[agent()], prices=[PRICE])
    async with (
        plane.running(),
        behind_tls(engine, authority.server("whoever")) as url,
        serving(config_for(tmp_path, url, ClientTls(verify=False), plane), engine, plane) as world,
    ):
        assert (await world.post(chat(max_tokens=1)))[0] == 200


@in_loop
async def test_the_control_plane_may_ask_for_our_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    engine, plane = FakeEngine(), Plane(agents=[agent()], prices=[PRICE])
    certificate, key = authority.sign("sidecar")
    known = ClientTls(ca_file=authority.ca_file, cert_file=certificate, key_file=key)
    async with (
        engine.running(),
        behind_tls(plane, authority.server("127.0.0.1", clients=True)) as url,
    ):
        config = config_for(
            tmp_path, engine.url, ClientTls(), plane, control_url=url, control_tls=known
        )
        async with serving(config, engine, plane) as world:
            assert (await world.post(chat(max_tokens=1)))[0] == 200
        greeted = len(plane.hellos)
        stranger = Service(replace(config, control_tls=ClientTls(ca_file=authority.ca_file)))
        running = asyncio.create_task(stranger.run())
        await asyncio.sleep(0.3)
        assert stranger.desk.view is None
        stranger.stop()
        await running
    assert len(plane.hellos) == greeted


@in_loop
async def test_callers_speak_tls_and_may_have_to_show_who_they_are(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    engine, plane = FakeEngine(), Plane(agents=[agent()], prices=[PRICE])
    certificate, key = authority.sign("127.0.0.1")
    tls = ServerTls(cert_file=certificate, key_file=key, client_ca_file=authority.ca_file)
    async with engine.running(), plane.running():
        config = replace(config_for(tmp_path, engine.url, ClientTls(), plane), tls=tls)
        async with serving(config, engine, plane) as world:
            caller = ssl.create_default_context(cafile=authority.ca_file)
            refused = await encrypted_call(world.port, caller)
            caller.load_cert_chain(*authority.sign("caller"))
            served = await encrypted_call(world.port, caller)
            plain = await world.raw(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    assert (refused, plain) == (b"", b"")
    assert split_answer(served)[0] == 200
    assert engine.calls == 1


async def encrypted_call(port: int, context: ssl.SSLContext) -> bytes:
    body = json.dumps(chat(max_tokens=1)).encode()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
            "content-type: application/json\r\nconnection: close\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        return await reader.read()
    except (ssl.SSLError, ConnectionError):
        return b""
