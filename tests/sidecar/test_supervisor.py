"""Several workers on one port, as real processes: started, killed, started again, drained."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from enforcement.rules.policy import Unit
from tests.sidecar.engine import FakeEngine
from tests.sidecar.plane import TOKEN, Plane
from tests.sidecar.stack import (
    KEY,
    PRICE,
    agent,
    budget,
    chat,
    events_of,
    in_loop,
    split_answer,
)

WORKERS = 2


class Fleet:
    """One supervisor and its workers."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, plane: Plane) -> None:
        self.process = process
        self.port = port
        self.plane = plane

    async def get(self, path: str) -> tuple[int, dict[str, str], bytes]:
        return await self._ask(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")

    async def post(self, **fields: Any) -> tuple[int, dict[str, str], bytes]:
        body = json.dumps(chat(**fields))
        return await self._ask(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
            f"content-type: application/json\r\nconnection: close\r\n"
            f"content-length: {len(body)}\r\n\r\n{body}"
        )

    async def _ask(self, request: str) -> tuple[int, dict[str, str], bytes]:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(request.encode())
            raw = await reader.read()
            writer.close()
        except ConnectionError:
            return 0, {}, b""
        return split_answer(raw) if raw else (0, {}, b"")

    async def workers(self) -> set[int]:
        """The workers that answer, ready, to a number of connections."""
        found = set()
        for _ in range(40):
            status, _, body = await self.get("/readyz")
            if status == 200:
                found.add(json.loads(body)["worker"])
        return found

    async def whole(self) -> None:
        async with asyncio.timeout(20):
            while await self.workers() != set(range(WORKERS)):
                await asyncio.sleep(0.1)

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def started(
    tmp_path: Path,
    engine: FakeEngine,
    plane: Plane,
    *,
    workers: int,
    shutdown_s: int = 5,
    hang_s: float = 10.0,
) -> Fleet:
    """A supervisor on a port that was free a moment ago."""
    probe = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = probe.sockets[0].getsockname()[1]
    probe.close()
    await probe.wait_closed()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "controlplane.cli.main", "sidecar", "run"),
        *("--listen", f"127.0.0.1:{port}", "--workers", str(workers)),
        *("--upstream", f"node={engine.url}", "--control-url", plane.url),
        *("--spool-dir", str(tmp_path / "spool"), "--context-window", "1000"),
        *("--shutdown-timeout", str(shutdown_s), "--hang-timeout", str(hang_s)),
        env={**os.environ, "COMPTROLLER_SIDECAR_TOKEN": TOKEN},
    )
    return Fleet(process, port, plane)


@asynccontextmanager
async def fleet(
    tmp_path: Path, engine: FakeEngine, plane: Plane, *, hang_s: float = 10.0
) -> AsyncIterator[Fleet]:
    async with engine.running(), plane.running():
        found = await started(tmp_path, engine, plane, workers=WORKERS, hang_s=hang_s)
        try:
            await found.whole()
            yield found
        finally:
            if found.process.returncode is None:
                found.process.terminate()
            assert await found.process.wait() == 0


async def until(condition: Callable[[], bool], *, within: float = 15) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.05)


def world(limit: int = 1_000_000) -> Plane:
    return Plane(agents=[agent()], budgets=[budget(limit, Unit.TOKENS)], prices=[PRICE])


def test_workers_share_a_port_and_each_has_a_spool_of_its_own(tmp_path: Path) -> None:
    @in_loop
    async def test() -> None:
        plane, engine = world(), FakeEngine(kind="vllm")
        async with fleet(tmp_path, engine, plane) as found:
            answers = [await found.post(max_tokens=5) for _ in range(20)]
            assert len({hello.header.spool for hello in plane.hellos}) == WORKERS
            books = {hello.header.book.rpartition("/")[2] for hello in plane.hellos}
        assert books == {"0", "1"}
        assert [status for status, _, _ in answers] == [200] * 20
        balance = plane.balance("budget-tokens")
        assert (balance.spent, balance.held) == (20 * 12, 0)
        assert (tmp_path / "spool" / "worker-1" / "spool").exists()

    test()


def test_a_killed_worker_comes_back_with_its_spool(tmp_path: Path) -> None:
    @in_loop
    async def test() -> None:
        plane, engine = world(), FakeEngine(kind="vllm")
        async with fleet(tmp_path, engine, plane) as found:
            spools = {hello.header.spool for hello in plane.hellos}
            for _ in range(10):
                await found.post(max_tokens=5)
            victim, other = found.children()
            os.kill(victim, signal.SIGKILL)
            await found.whole()
            again = found.children()
            for _ in range(10):
                await found.post(max_tokens=5)
        assert other in again
        assert victim not in again
        assert {hello.header.spool for hello in plane.hellos} == spools
        assert max(spool.epoch for spool in plane.spools.values()) == 2
        balance = plane.balance("budget-tokens")
        assert (balance.spent, balance.held, balance.suspense) == (20 * 12, 0, 0)

    test()


def test_a_worker_that_hangs_is_killed_and_its_stream_ends(tmp_path: Path) -> None:
    @in_loop
    async def test() -> None:
        plane, engine = world(), FakeEngine(kind="vllm", delay=0.01)
        async with fleet(tmp_path, engine, plane, hang_s=1.5) as found:
            running = asyncio.create_task(found.post(max_tokens=900, stream=True))
            await until(lambda: engine.output_tokens > 3)
            before = found.children()
            for pid in before:
                os.kill(pid, signal.SIGSTOP)
            await until(lambda: not set(before) & set(found.children()))
            await asyncio.wait([running])  # its answer broke off
            made = engine.output_tokens
            await asyncio.sleep(0.3)
            assert engine.output_tokens == made
            await found.whole()
        balance = plane.balance("budget-tokens")
        assert (balance.held, balance.overrun) == (0, 0)
        assert balance.spent >= engine.output_tokens

    test()


def test_sigterm_lets_running_streams_end(tmp_path: Path) -> None:
    @in_loop
    async def test() -> None:
        plane, engine = world(), FakeEngine(kind="vllm", delay=0.02)
        async with fleet(tmp_path, engine, plane) as found:
            running = [
                asyncio.create_task(found.post(max_tokens=50, stream=True)) for _ in range(6)
            ]
            await asyncio.sleep(0.3)
            found.process.terminate()
            answers = [await task for task in running]
            code = await found.process.wait()
        assert code == 0
        for status, _, body in answers:
            assert status == 200
            assert events_of(body)[-1]["choices"][0]["finish_reason"] == "length"
        balance = plane.balance("budget-tokens")
        assert (balance.spent, balance.held) == (6 * 57, 0)

    test()


def test_fewer_workers_settle_what_the_others_knew(tmp_path: Path) -> None:
    async def test() -> None:
        plane, engine = world(), FakeEngine(kind="vllm", delay=0.05)
        async with engine.running(), plane.running():
            first = await started(tmp_path, engine, plane, workers=2)
            await first.whole()
            running = [
                asyncio.create_task(first.post(max_tokens=300, stream=True)) for _ in range(12)
            ]
            await until(lambda: engine.calls == 12)
            children = first.children()
            first.process.send_signal(signal.SIGSTOP)  # it would start them again
            for pid in [*children, first.process.pid]:  # nobody says goodbye
                os.kill(pid, signal.SIGKILL)
            await first.process.wait()
            await asyncio.gather(*running, return_exceptions=True)
            assert plane.balance("budget-tokens").held > 0
            second = await started(tmp_path, engine, plane, workers=1)
            await until(lambda: {spool.epoch for spool in plane.spools.values()} == {2})
            await until(lambda: len(second.children()) == 1, within=20)
            served, _, _ = await second.post(max_tokens=1)
            second.process.terminate()
            assert await second.process.wait() == 0
        assert served == 200
        balance = plane.balance("budget-tokens")
        assert (balance.held, balance.suspense, balance.overrun) == (0, 0, 0)
        assert balance.spent == 12 * 307 + 8

    in_loop(test, within=60)()


def test_workers_end_with_their_supervisor(tmp_path: Path) -> None:
    @in_loop
    async def test() -> None:
        plane, engine = world(), FakeEngine()
        async with engine.running(), plane.running():
            found = await started(tmp_path, engine, plane, workers=2, shutdown_s=1)
            await until(lambda: len(plane.hellos) >= WORKERS)
            children = found.children()
            found.process.kill()
            await found.process.wait()
            await until(lambda: not any(alive(pid) for pid in children))
        assert len(children) == WORKERS

    test()
