"""Small real processes for the supervisor's tests."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane.launcher import probes
from controlplane.launcher.supervisor import Part, Supervisor

MakePart = Callable[..., Part]
ENDLESS = "import signal; print('ready', flush=True); signal.pause()"


@pytest.fixture
def make_part(tmp_path: Path) -> MakePart:
    """A part that runs a line of Python and is ready when it has printed `ready`."""

    def make(name: str, code: str = ENDLESS, **options: object) -> Part:
        log = tmp_path / f"{name}.log"
        settings: dict[str, object] = {
            "title": name,
            "command": [sys.executable, "-S", "-c", code],
            "environment": {"COMPTROLLER_DATA_DIR": str(tmp_path)},
            "log": log,
            "identity": None,
            "ready": lambda start: probes.log_says(log, b"ready", after=start.log_bytes),
        }
        return Part(name=name, **(settings | options))  # type: ignore[arg-type]

    return make


class Diary:
    """What the supervisor told, as `name: what` lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, part: Part, what: str) -> None:
        self.lines.append(f"{part.name}: {what}")

    def said(self, beginning: str) -> bool:
        return any(line.startswith(beginning) for line in self.lines)


@pytest.fixture
def diary() -> Diary:
    return Diary()


@pytest.fixture
def supervisor(diary: Diary) -> Supervisor:
    return Supervisor(diary)


async def eventually(condition: Callable[[], bool], *, timeout_s: float = 10) -> None:
    """Wait until it is true; a test that waits in vain fails with TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)
