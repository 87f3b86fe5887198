"""What every benchmark needs: the real stack on free ports, a scene in it, tables and checks."""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from controlplane.launcher import state
from controlplane.launcher.parts import Wishes
from controlplane.launcher.up import Launch, Running


@dataclass
class Result:
    """Rows of a table, goals with their verdict, and everything as JSON."""

    name: str
    columns: Sequence[str]
    rows: list[Sequence[Any]] = field(default_factory=list)
    goals: list[tuple[str, bool]] = field(default_factory=list)

    def goal(self, words: str, *, met: bool) -> None:
        self.goals.append((words, met))

    def print(self) -> None:
        texts = [[str(cell) for cell in row] for row in [self.columns, *self.rows]]
        widths = [max(len(row[i]) for row in texts) for i in range(len(self.columns))]
        print(f"\n{self.name}")
        for number, row in enumerate(texts):
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
            if number == 0:
                print("  ".join("-" * width for width in widths))
        for words, met in self.goals:
            print(f"{'met   ' if met else 'MISSED'}  {words}")
        print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")

    def as_dict(self) -> dict[str, Any]:
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        goals = [{"goal": words, "met": met} for words, met in self.goals]
        return {"name": self.name, "rows": rows, "goals": goals, "load": os.getloadavg()[0]}


def arguments(description: str | None, **more: Callable[[argparse.ArgumentParser], Any]) -> Any:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--check", action="store_true", help="exit 1 when a goal is missed")
    for add in more.values():
        add(parser)
    return parser.parse_args()


def conclude(results: Sequence[Result], asked: Any) -> None:
    """Print, write, and say by the exit code whether every goal was met."""
    for result in results:
        result.print()
    if asked.json:
        asked.json.write_text(json.dumps([r.as_dict() for r in results], indent=2) + "\n")
    missed = [words for result in results for words, met in result.goals if not met]
    if asked.check and missed:
        sys.exit(1)


class _Quiet:
    def step(self, name: str, words: str, seconds: float | None = None) -> None:
        """Progress lines are of no interest here."""


@contextlib.asynccontextmanager
async def stack(
    *, upstreams: Sequence[str] = (), model: bool = False, **environment: str
) -> AsyncIterator[Running]:
    """The whole product in a temporary directory, as `comptroller up` starts it."""
    with tempfile.TemporaryDirectory(prefix="comptroller-bench-") as folder:
        Path(folder).chmod(0o755)  # the services run as another user
        wishes = Wishes(
            data=Path(folder) / "data",
            port=0,
            upstreams=tuple(upstreams),
            demo_model=model,
            environ={**os.environ, **environment},
        )
        launch = Launch(wishes, _Quiet())
        launch.places.prepare()
        with state.held_lock(launch.places):
            try:
                yield await launch.start()
            finally:
                await launch.stop()


@contextlib.contextmanager
def engine(*flags: str) -> Iterator[str]:
    """The fast fake engine in a process of its own; yields its address."""
    command = [sys.executable, "-m", "tests.fakes.engine", *flags]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.terminate()
        process.communicate(timeout=10)


async def scene(running: Running, action: str, **given: Any) -> dict[str, Any]:
    """Act in the control plane, in a Django process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "benchmarks" / "scene.py"),
        action,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**running.installation.environment(), "PYTHONPATH": str(ROOT)},
    )
    printed, _ = await process.communicate(json.dumps(given).encode())
    if process.returncode != 0:
        raise RuntimeError(f"the scene {action!r} failed")
    answer: dict[str, Any] = json.loads(printed)
    return answer


def get_json(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    children: list[str] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in family(int(child)))]


def cpu_s(pids: Sequence[int]) -> float:
    """CPU time of processes, and of their children that have ended."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # its parent has its time
            ticks += _ticks(pid)
    return ticks / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> int:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, words[11:15]))


def peak_mb(pids: Sequence[int]) -> int:
    """The most memory that these processes together had at once, at worst: each one's own peak."""
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    peaks = [line for text in texts for line in text.splitlines() if line.startswith("VmHWM")]
    return sum(int(line.split()[1]) for line in peaks) // 1_024


def forget_peaks(pids: Sequence[int]) -> None:
    """Let peaks begin at what is used now (proc(5), clear_refs)."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


async def run_load(script: str, given: dict[str, Any]) -> Any:
    """Run a script of this folder beside a fresh stack, with its environment.

    It reads `given` as JSON from standard input and prints JSON, which is returned.
    """
    async with stack() as running:
        return await run_beside(running, script, given)


async def run_beside(running: Running, script: str, given: dict[str, Any]) -> Any:
    """The same, beside a stack that runs already."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "benchmarks" / script),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**running.installation.environment(), "PYTHONPATH": str(ROOT)},
    )
    printed, _ = await process.communicate(json.dumps(given).encode())
    if process.returncode != 0:
        raise RuntimeError(f"{script} failed")
    return json.loads(printed)
