"""The short form of `./run hostile --resources`: another tenant is served, memory stays bounded.

Times are not judged here: other tests run beside it.
"""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from tests.hostile.attackers import ATTACKS
from tests.hostile.resources import MOST_MB, Guarded, attacked, enough_descriptors, felt, under
from tests.sidecar.stack import in_loop, stack

MOST_CONNECTIONS = 500


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


@pytest.fixture(scope="module")
def guarded(runner: asyncio.Runner) -> Iterator[Guarded]:
    with tempfile.TemporaryDirectory() as spool_dir:
        serving = attacked(Path(spool_dir))
        yield runner.run(serving.__aenter__())
        runner.run(serving.__aexit__(None, None, None))


@pytest.fixture(scope="module")
def encrypted(runner: asyncio.Runner) -> Iterator[Guarded]:
    with tempfile.TemporaryDirectory() as spool_dir:
        serving = attacked(Path(spool_dir), tls=True)
        yield runner.run(serving.__aenter__())
        runner.run(serving.__aexit__(None, None, None))


@pytest.mark.parametrize("name", ATTACKS)
def test_others_are_served_under_attack(
    runner: asyncio.Runner, guarded: Guarded, encrypted: Guarded, name: str
) -> None:
    size = min(ATTACKS[name].size, MOST_CONNECTIONS)
    target = encrypted if ATTACKS[name].tls else guarded

    figures = runner.run(under(name, target, size=size, seconds=0.5, warm_s=0.7))

    assert (figures.calls, figures.failed) == (25, 0)
    assert figures.resident_mb <= MOST_MB


def test_ten_thousand_connections_are_held_or_make_room(
    runner: asyncio.Runner, guarded: Guarded
) -> None:
    if not enough_descriptors(10_000):
        pytest.skip("needs 10,500 open files: the hard limit (ulimit -Hn) is lower")

    async def crowd() -> int:
        writers = []
        for _ in range(10_000):
            _, writer = await asyncio.open_connection("127.0.0.1", guarded.port)
            writers.append(writer)
        figures = await felt(guarded, 0.5)
        assert figures.resident_mb <= MOST_MB
        for writer in writers:
            writer.transport.abort()
        return figures.failed

    assert runner.run(crowd()) == 0


@in_loop
async def test_who_waits_longest_makes_room(tmp_path: Path) -> None:
    async with stack(tmp_path) as world:
        world.service._front.most_connections = 3
        crowd = [await asyncio.open_connection("127.0.0.1", world.port) for _ in range(4)]
        assert await crowd[0][0].read() == b""
        status, _, _ = await world.post({"model": "toy", "messages": [{"role": "user"}]})
        assert status == 200
        assert await crowd[1][0].read() == b""
        assert not crowd[3][0].at_eof()
        for _, writer in crowd:
            writer.close()
