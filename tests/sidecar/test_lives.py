"""Deaths and outages: kill -9, a full disk, a control plane that is away, an orderly end."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from enforcement.rules.policy import HoldMode, Unit
from tests.sidecar.engine import PROMPT_TOKENS, FakeEngine
from tests.sidecar.plane import TOKEN, Plane
from tests.sidecar.stack import (
    PRICE,
    Stack,
    agent,
    budget,
    chat,
    events_of,
    in_loop,
    split_answer,
    stack,
)

REPOSITORY = Path(__file__).parents[2]


class Sidecar:
    """A sidecar in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    raw = Stack.raw
    post = Stack.post


@asynccontextmanager
async def sidecar(
    spool: Path, engine: FakeEngine, plane: Plane, *flags: str
) -> AsyncIterator[Sidecar]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from enforcement.sidecar.command import app; app()",
        "run",
        *("--listen", "127.0.0.1:0", "--upstream", engine.url, "--control-url", plane.url),
        *("--spool-dir", str(spool), "--context-window", "1000"),
        *flags,
        cwd=REPOSITORY,
        env=os.environ | {"COMPTROLLER_SIDECAR_TOKEN": TOKEN},
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    port = 0
    while not port:
        line = (await process.stderr.readline()).decode()
        assert line, "the sidecar ended at once"
        if "listening on" in line:
            port = int(line.split("listening on ")[1].split(",")[0].rsplit(":", 1)[1])
    reading = asyncio.create_task(process.stderr.read())
    found = Sidecar(process, port)
    async with asyncio.timeout(10):
        ready = b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        while split_answer(await found.raw(ready))[0] != 200:
            await asyncio.sleep(0.02)
    try:
        yield found
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()
        await reading


async def kill_mid_stream(tmp_path: Path, engine: FakeEngine, plane: Plane, *flags: str) -> None:
    async with engine.running(), plane.running():
        async with sidecar(tmp_path, engine, plane, *flags) as first:
            running = [
                asyncio.create_task(first.post(chat(max_tokens=200, stream=True))) for _ in range(3)
            ]
            while engine.output_tokens < 60:
                await asyncio.sleep(0.005)
            first.process.kill()
            await asyncio.gather(*running, return_exceptions=True)
        async with sidecar(tmp_path, engine, plane) as second:
            status, _, _ = await second.post(chat(max_tokens=5))
            assert status == 200
        assert second.process.returncode == 0


@in_loop
async def test_kill_9_undercounts_nothing_and_overcounts_at_most_the_holds(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(10_000, Unit.TOKENS)], prices=[PRICE])
    engine = FakeEngine(kind="vllm", delay=0.005)
    await kill_mid_stream(tmp_path, engine, plane)
    truth = engine.prompt_tokens + engine.output_tokens
    balance = plane.balance("budget-tokens")
    assert truth <= balance.spent <= truth + 3 * (PROMPT_TOKENS + 200)
    assert (balance.held, balance.suspense, balance.overrun) == (0, 0, 0)
    presumed = [event for event in plane.events.values() if event.presumed]
    assert len(presumed) == 3
    assert len(plane.events) == 4
    parts = [part for event in plane.events.values() for part in event.parts]
    assert sum(part.amount for part in parts) == balance.spent
    assert [hello.clean_shutdown for hello in plane.hellos] == [False, False]


@in_loop
async def test_kill_9_of_metered_streams_overcounts_a_slice_each(tmp_path: Path) -> None:
    cap = budget(10_000, Unit.TOKENS, hold_mode=HoldMode.METERED)
    plane = Plane(agents=[agent()], budgets=[cap], prices=[PRICE])
    engine = FakeEngine(kind="vllm", delay=0.005)
    await kill_mid_stream(tmp_path, engine, plane, "--metered-margin", "64")
    truth = engine.prompt_tokens + engine.output_tokens
    assert truth <= plane.balance("budget-tokens").spent <= truth + 3 * 2 * 64


@in_loop
async def test_the_first_sign_of_life_comes_before_the_first_call(tmp_path: Path) -> None:
    async with stack(tmp_path) as world:
        beats = list[int]()
        sweeping = asyncio.create_task(world.service._worker.sweep(beats.append))
        await asyncio.sleep(0)
        assert len(beats) == 1
        sweeping.cancel()


@in_loop
async def test_an_orderly_end_sends_everything_home(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(10_000, Unit.TOKENS)], prices=[PRICE])
    engine = FakeEngine(kind="vllm", delay=0.005)
    async with engine.running(), plane.running():
        async with sidecar(tmp_path, engine, plane) as first:
            running = asyncio.create_task(first.post(chat(max_tokens=60, stream=True)))
            await asyncio.sleep(0.2)
            first.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.1)
            status, _, body = await running
            assert await first.process.wait() == 0
        assert (status, len(events_of(body))) == (200, 62)
        balance = plane.balance("budget-tokens")
        assert (balance.spent, balance.held) == (PROMPT_TOKENS + 60, 0)
        async with sidecar(tmp_path, engine, plane):
            pass
    assert [hello.clean_shutdown for hello in plane.hellos] == [False, True]
    assert plane.duplicates == 0


@in_loop
async def test_calls_go_on_within_lots_while_the_control_plane_is_away(tmp_path: Path) -> None:
    plane = Plane(
        agents=[agent()],
        budgets=[budget(100_000, Unit.TOKENS)],
        prices=[PRICE],
        policy_ttl_ms=2_000,
        lease_ttl_ms=5_000,
    )
    engine = FakeEngine(kind="vllm")
    async with stack(tmp_path, engine=engine, plane=plane, grant_timeout=0.3) as world:
        for _ in range(3):
            await world.post(chat(max_tokens=20))
        await world.quiet()
        plane.up = False
        inside, _, _ = await world.post(chat(max_tokens=5))
        beyond, _, body = await world.post(chat(max_tokens=900))
        await asyncio.sleep(2.2)
        stale, headers, stale_body = await world.post(chat(max_tokens=5))
        plane.up = True
        async with asyncio.timeout(8):
            while (await world.post(chat(max_tokens=5)))[0] != 200:
                await asyncio.sleep(0.1)
        await world.quiet()
    assert inside == 200
    assert (beyond, json.loads(body)["error"]["reason"]) == (503, "no_lease")
    assert (stale, headers["retry-after"]) == (503, "2")
    assert json.loads(stale_body)["error"]["reason"] == "policy_stale"
    balance = plane.balance("budget-tokens")
    assert balance.spent == engine.prompt_tokens + engine.output_tokens
    assert sum(plane.tokens) == balance.spent


@in_loop
async def test_events_survive_a_control_plane_that_refuses_them(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], prices=[PRICE])
    plane.usage_status = 500
    engine = FakeEngine()
    async with engine.running(), plane.running():
        async with sidecar(tmp_path, engine, plane) as first:
            for _ in range(5):
                await first.post(chat(max_tokens=2))
            first.process.kill()
        assert plane.events == {}
        plane.usage_status = 413
        async with sidecar(tmp_path, engine, plane) as second:
            await asyncio.sleep(0.3)
            plane.usage_status = 200
            while len(plane.events) < 5:
                await asyncio.sleep(0.05)
            assert second.process.returncode is None
        async with sidecar(tmp_path, engine, plane):
            await asyncio.sleep(0.5)
    assert plane.duplicates == 0
    assert plane.tokens == (5 * PROMPT_TOKENS, 10)


@in_loop
async def test_an_event_too_large_alone_holds_up_no_other(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], prices=[PRICE])
    plane.usage_status = 500
    engine = FakeEngine()
    async with engine.running(), plane.running():
        async with sidecar(tmp_path, engine, plane) as first:
            await first.post(chat(max_tokens=2, user="large" * 40))
            for _ in range(4):
                await first.post(chat(max_tokens=2))
            plane.usage_most_bytes, plane.usage_status = 700, 200
            while len(plane.events) < 4:
                await asyncio.sleep(0.05)
            for _ in range(2):
                await first.post(chat(max_tokens=2))
            while len(plane.events) < 6:
                await asyncio.sleep(0.05)
            first.process.kill()
        assert [event.user for event in plane.events.values()] == [""] * 6
        plane.usage_most_bytes = 1 << 30
        async with sidecar(tmp_path, engine, plane):
            while len(plane.events) < 7:
                await asyncio.sleep(0.05)
    assert plane.tokens == (7 * PROMPT_TOKENS, 14)


@in_loop
async def test_a_full_disk_fails_closed_and_recovers(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(10_000, Unit.TOKENS)])
    engine = FakeEngine(kind="vllm", delay=0.01)
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        journal = world.service.desk.journal
        assert (await world.post(chat(max_tokens=5)))[0] == 200
        running = asyncio.create_task(world.post(chat(max_tokens=30, stream=True)))
        await asyncio.sleep(0.1)
        journal.quota_bytes = journal.total_bytes
        status, headers, body = await world.post(chat(max_tokens=5))
        finished, _, _ = await running
        await asyncio.sleep(0.1)
        calls = engine.calls
        journal.quota_bytes = 1 << 30
        await asyncio.sleep(0.2)
        again, _, _ = await world.post(chat(max_tokens=5))
        await world.quiet()
    assert (status, headers["retry-after"]) == (503, "2")
    assert json.loads(body)["error"]["reason"] == "journal_unwritable"
    assert (finished, calls, again) == (200, 2, 200)
    assert plane.balance("budget-tokens").spent == engine.prompt_tokens + engine.output_tokens


@in_loop
async def test_a_restated_journal_loses_nothing(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(10_000, Unit.TOKENS)])
    plane.usage_status = 500
    engine = FakeEngine(kind="vllm", delay=0.005)
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        await world.post(chat(max_tokens=5))
        running = asyncio.create_task(world.post(chat(max_tokens=50, stream=True)))
        await asyncio.sleep(0.1)
        world.service.restate()
        await running
        world.service.restate()
    plane.usage_status = 200
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        await world.quiet()
    balance = plane.balance("budget-tokens")
    assert (balance.spent, balance.held) == (engine.prompt_tokens + engine.output_tokens, 0)
    assert plane.tokens == (engine.prompt_tokens, engine.output_tokens)
    assert plane.hellos[-1].clean_shutdown


def run_command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from enforcement.sidecar.command import app; app()", *arguments],
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"]} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )


GOOD = {
    "--upstream": "http://127.0.0.1:1",
    "--control-url": "http://127.0.0.1:2",
    "--spool-dir": "/nowhere",
    "--token": "t",
}


def flags(**changes: Any) -> list[str]:
    merged = GOOD | {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    return ["run", *(part for item in merged.items() for part in item)]


def test_bad_settings_are_refused_by_name() -> None:
    for changes, name in (
        ({"listen": "nonsense"}, "--listen"),
        ({"listen": "127.0.0.1:99999"}, "--listen"),
        ({"upstream": "ftp://x"}, "--upstream"),
        ({"upstream": "Bad Name=http://x"}, "--upstream"),
        ({"upstream": "http://user:secret@x"}, "--upstream"),
        ({"control_url": "nonsense"}, "--control-url"),
        ({"token": "a\nb"}, "--token"),
        ({"context_window": "0"}, "--context-window"),
        ({"context_window": "many"}, "--context-window"),
        ({"grant_timeout": "-1"}, "--grant-timeout"),
        ({"no_such_flag": "1"}, "--no-such-flag"),
    ):
        result = run_command(*flags(**changes))
        assert result.returncode == 2, changes
        assert name in result.stderr, result.stderr
        assert "Traceback" not in result.stderr


def test_a_missing_token_and_an_unusable_spool_are_said(tmp_path: Path) -> None:
    without = run_command(*[part for part in flags() if part not in ("--token", "t")])
    assert (without.returncode, "COMPTROLLER_SIDECAR_TOKEN" in without.stderr) == (2, True)
    (tmp_path / "file").write_text("")
    unusable = run_command(*flags(spool_dir=str(tmp_path / "file")))
    assert (unusable.returncode, "Traceback" in unusable.stderr) == (1, False)
