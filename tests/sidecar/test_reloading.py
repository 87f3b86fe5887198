"""A configuration that changes while calls run."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from enforcement.rules.margins import Stop
from enforcement.sidecar.configfile import Source
from enforcement.sidecar.margins import write_stops
from enforcement.sidecar.service import Service
from tests.sidecar.certificates import Authority
from tests.sidecar.engine import FakeEngine
from tests.sidecar.plane import TOKEN, Plane
from tests.sidecar.stack import PRICE, Stack, agent, chat, events_of, in_loop, ready


class Changing(Stack):
    """A sidecar with a file, and the file."""

    path: Path

    def write(self, *nodes: str, **settings: Any) -> None:
        lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
        self.path.write_text("\n".join([*lines, *nodes]))

    async def taken(self, reloads: int) -> None:
        async with asyncio.timeout(5):
            while sum(self.service.desk.metrics.reloads.values()) < reloads:
                await asyncio.sleep(0.02)


def node(name: str, engine: FakeEngine, **fields: Any) -> str:
    lines = [f"{name} = {json.dumps(value)}" for name, value in fields.items()]
    return "\n".join(["[[upstream]]", f'name = "{name}"', f'url = "{engine.url}"', *lines])


@asynccontextmanager
async def changing(tmp_path: Path, engine: FakeEngine, tables: str = "") -> AsyncIterator[Changing]:
    plane = Plane(agents=[agent()], prices=[PRICE])
    async with engine.running(), plane.running():
        path = tmp_path / "sidecar.toml"
        path.write_text(f"{node('a', engine)}\n{tables}")
        flags = {
            "control_url": plane.url,
            "token": TOKEN,
            "spool_dir": tmp_path / "spool",
            "listen": "127.0.0.1:0",
            "context_window": 1000,
            "shutdown_timeout": 1.0,
        }
        source = Source(flags, environ={}, path=path)
        service = Service(source.load(), source=source)
        found = Changing(engine, plane, service)
        found.path = path
        running = asyncio.create_task(service.run())
        try:
            await ready(found)
            yield found
        finally:
            service.stop()
            assert await running == 0


@in_loop
async def test_a_new_node_is_taken_up_when_the_file_changes(tmp_path: Path) -> None:
    second = FakeEngine(model="other")
    async with changing(tmp_path, FakeEngine()) as world, second.running():
        before, _, _ = await world.post(chat(model="other", max_tokens=1))
        kept = world.service.desk.router.upstreams[0]
        world.write(node("a", world.engine), node("b", second))
        await world.taken(1)
        after, _, _ = await world.post(chat(model="other", max_tokens=1))
        assert world.service.desk.router.upstreams[0] is kept
        async with asyncio.timeout(3):
            while [i.name for i in world.plane.hellos[-1].upstreams] != ["a", "b"]:
                await asyncio.sleep(0.02)
    assert (before, after) == (404, 200)


@in_loop
async def test_what_doctor_measures_is_taken_up_at_once(tmp_path: Path) -> None:
    async with changing(tmp_path, FakeEngine()) as world:
        (before,) = world.service.desk.router.upstreams
        stop = Stop(
            node="a",
            engine=before.engine.value,
            version=before.version,
            streams=2,
            rate_tokens_per_s=100,
            stop_ms=50,
            tokens_after=0,
            chunk_tokens=1,
            source="metrics",
            measured_at_ms=0,
        )
        write_stops(tmp_path / "spool", [stop])
        await world.taken(1)
        (after,) = world.service.desk.router.upstreams
    assert (before.margin_tokens, after.margin_tokens) == (None, stop.margin_tokens)


@in_loop
async def test_a_bad_file_changes_nothing_and_says_so(tmp_path: Path) -> None:
    async with changing(tmp_path, FakeEngine()) as world:
        world.write(node("a", world.engine), grant_timeut=1)
        await world.taken(1)
        status, _, _ = await world.post(chat(max_tokens=1))
        said = json.loads((await world.raw(GET)).split(b"\r\n\r\n", 1)[1])["config_error"]
        metrics = world.service.desk.metrics.exposition()
        world.write(node("a", world.engine), grant_timeout=1.0)
        await world.taken(2)
        assert world.service.desk.config.grant_timeout == 1.0
        assert world.service.desk.config_error == ""
    assert status == 200
    assert "unknown field `grant_timeut`" in said
    assert b'config_reloads_total{result="refused"} 1.0' in metrics


@in_loop
async def test_a_new_output_limit_holds_for_calls_of_the_same_size(tmp_path: Path) -> None:
    async with changing(tmp_path, FakeEngine()) as world:
        await world.post(chat())
        world.write(node("a", world.engine), default_max_output_tokens=21)
        await world.taken(1)
        await world.post(chat())
    assert [request["max_tokens"] for request in world.engine.requests] == [1000, 21]


GET = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


@in_loop
async def test_a_stream_goes_on_on_the_node_that_was_removed(tmp_path: Path) -> None:
    second = FakeEngine()
    async with changing(tmp_path, FakeEngine(delay=0.01)) as world, second.running():
        running = asyncio.create_task(world.post(chat(max_tokens=60, stream=True)))
        await asyncio.sleep(0.2)
        world.write(node("b", second))
        world.service.reload()
        await world.taken(1)
        fresh, _, _ = await world.post(chat(max_tokens=1))
        status, _, body = await running
        assert [n.name for n in world.service.desk.router.every()] == ["b"]
    assert (status, fresh, second.calls) == (200, 200, 1)
    assert events_of(body)[-1]["choices"][0]["finish_reason"] == "length"
    assert world.engine.output_tokens == 60


@in_loop
async def test_a_key_that_was_rotated_in_its_file_is_used(tmp_path: Path) -> None:
    key = tmp_path / "node.key"
    key.write_text("old")
    async with changing(tmp_path, FakeEngine()) as world:
        world.write(node("a", world.engine, key_file="node.key"))
        await world.taken(1)
        await world.post(chat(max_tokens=1))
        key.write_text("newer")
        await world.taken(2)
        await world.post(chat(max_tokens=1))
    assert [
        "authorization: Bearer old" in world.engine.heads[0],
        "authorization: Bearer newer" in world.engine.heads[1],
    ] == [True, True]


@in_loop
async def test_a_certificate_that_was_renewed_is_shown(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    certificate, key = (Path(path) for path in authority.sign("127.0.0.1"))
    tables = f'[tls]\ncert_file = "{certificate}"\nkey_file = "{key}"\n'
    async with changing(tmp_path, FakeEngine(), tables) as world:
        first = await shown(world.port, authority)
        authority.sign("127.0.0.1")
        await world.taken(1)
        assert await shown(world.port, authority) != first
        world.write(node("a", world.engine))  # without TLS: only a start can change that
        await world.taken(2)
        assert await shown(world.port, authority) != first


async def shown(port: int, authority: Authority) -> object:
    context = ssl.create_default_context(cafile=authority.ca_file)
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    found = writer.get_extra_info("peercert")["serialNumber"]
    writer.close()
    return found


@in_loop
async def test_what_only_a_start_can_change_stays(tmp_path: Path) -> None:
    async with changing(tmp_path, FakeEngine()) as world:
        world.write(node("a", world.engine), workers=4, attempts=1)
        await world.taken(1)
        config = world.service.desk.config
    assert (config.workers, config.attempts) == (1, 1)


@in_loop
async def test_many_changes_while_calls_run(tmp_path: Path) -> None:
    second = FakeEngine()
    async with changing(tmp_path, FakeEngine()) as world, second.running():
        stop = asyncio.Event()
        statuses: list[int] = []

        async def call() -> None:
            while not stop.is_set():
                statuses.append((await world.post(chat(max_tokens=2)))[0])

        callers = [asyncio.create_task(call()) for _ in range(4)]
        for n in range(12):
            lists = [node("a", world.engine)], [node("a", world.engine), node("b", second)]
            world.write(*lists[n % 2], attempts=1 + n % 3)
            world.service.reload()
            await world.taken(n + 1)
        stop.set()
        await asyncio.gather(*callers)
        await world.quiet()
        assert [upstream.running for upstream in world.service.desk.router.every()] == [0, 0]
    assert set(statuses) == {200}
