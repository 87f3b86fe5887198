"""Parts start in order, come back with growing pauses, and stop in reverse."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from controlplane.launcher.errors import LauncherError
from controlplane.launcher.supervisor import Supervisor, log_tail, words_for
from tests.launcher.conftest import ENDLESS, Diary, MakePart, eventually


def test_parts_stop_in_reverse_order(
    supervisor: Supervisor, diary: Diary, make_part: MakePart
) -> None:
    async def scenario() -> None:
        await supervisor.start(make_part("first"))
        await supervisor.start(make_part("second"))
        await supervisor.stop_all()

    asyncio.run(scenario())

    assert diary.lines == [
        "first: starting",
        "first: ready",
        "second: starting",
        "second: ready",
        "second: stopped",
        "first: stopped",
    ]


def test_a_killed_part_starts_again(
    supervisor: Supervisor, diary: Diary, make_part: MakePart
) -> None:
    async def scenario() -> tuple[int, int]:
        part = make_part("web")
        await supervisor.start(part)
        assert part.process is not None
        first = part.process.pid
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: diary.lines.count("web: ready") == 2)
        second = part.process.pid
        await supervisor.stop_all()
        return first, second

    first, second = asyncio.run(scenario())

    assert first != second
    assert "web: ended (signal SIGKILL), starts again in 0.5 s" in diary.lines
    assert supervisor.parts[0].restarts == 1


def test_pauses_grow_while_a_part_keeps_dying(
    supervisor: Supervisor, diary: Diary, make_part: MakePart
) -> None:
    async def scenario() -> None:
        await supervisor.start(
            make_part("web", "import time; print('ready', flush=True); time.sleep(0.8)")
        )
        await eventually(lambda: diary.said("web: ended (exit code 0), starts again in 1.0 s"))
        await supervisor.stop_all()

    asyncio.run(scenario())

    assert diary.said("web: ended (exit code 0), starts again in 0.5 s")


def test_the_end_of_a_vital_part_is_the_end_of_all(
    supervisor: Supervisor, make_part: MakePart
) -> None:
    async def scenario() -> str:
        database = make_part("database", vital=True)
        await supervisor.start(database)
        await supervisor.start(make_part("web"))
        assert database.process is not None
        database.process.kill()
        reason = await supervisor.wait()
        await supervisor.stop_all()
        return reason

    assert asyncio.run(scenario()) == "database ended (signal SIGKILL)"
    assert [part.state for part in supervisor.parts] == ["stopped", "stopped"]


def test_a_part_that_ends_at_its_start_shows_its_last_words(
    supervisor: Supervisor, make_part: MakePart
) -> None:
    async def scenario() -> None:
        with pytest.raises(LauncherError, match=r"web ended at its start:\n    no such port"):
            await supervisor.start(make_part("web", "import sys; sys.exit('no such port')"))

    asyncio.run(scenario())


def test_a_part_that_ignores_its_farewell_is_killed(
    monkeypatch: pytest.MonkeyPatch, supervisor: Supervisor, diary: Diary, make_part: MakePart
) -> None:
    monkeypatch.setattr("controlplane.launcher.supervisor.STOP_TIMEOUT_S", 0.2)

    async def scenario() -> None:
        deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + ENDLESS
        await supervisor.start(make_part("web", deaf))
        await supervisor.stop_all()

    asyncio.run(scenario())

    assert diary.lines[-1] == "web: stopped"
    assert supervisor.parts[0].process is not None
    assert supervisor.parts[0].process.returncode == -signal.SIGKILL


def test_grandchildren_of_a_killed_part_end_with_it(
    tmp_path: Path, supervisor: Supervisor, diary: Diary, make_part: MakePart
) -> None:
    pids = tmp_path / "pids"
    code = f"import os; os.fork(); open({str(pids)!r}, 'a').write(f'{{os.getpid()}} ');" + ENDLESS

    async def scenario() -> None:
        part = make_part("worker", code)
        await supervisor.start(part)
        await eventually(lambda: len(pids.read_text().split()) == 2)
        assert part.process is not None
        part.process.kill()
        await eventually(lambda: diary.said("worker: ended"))
        old = [int(pid) for pid in pids.read_text().split()[:2]]
        await eventually(lambda: not any(alive(pid) for pid in old))
        await supervisor.stop_all()

    asyncio.run(scenario())


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_words_for_an_end() -> None:
    assert [words_for(3), words_for(-9)] == ["exit code 3", "signal SIGKILL"]


def test_the_tail_of_a_missing_log_is_empty(tmp_path: Path) -> None:
    assert log_tail(tmp_path / "none.log") == ""
