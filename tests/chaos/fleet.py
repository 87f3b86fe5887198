"""Sidecars of our own: each with a link that can fail and a small disk, started again when dead."""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import ROOT
from tests.chaos.disk import SmallDisk
from tests.chaos.link import Link

READY_S = 30
DISK_MB = 24


class Sidecar:
    """One sidecar process and its surroundings."""

    def __init__(self, name: str, *, token: str, port: int, web_port: int, home: Path) -> None:
        self.name = name
        self.url = f"http://127.0.0.1:{port}"
        self.link = Link(web_port)
        self.disk = SmallDisk(home / name, megabytes=DISK_MB)
        self.process: asyncio.subprocess.Process | None = None
        self.lives = 0
        self._token = token
        self._port = port
        self._log = home / f"{name}.log"
        self._wanted = True
        self._keeper: asyncio.Task[None] | None = None

    async def start(self, upstreams: Sequence[str]) -> None:
        control = await self.link.start()
        flags = [flag for upstream in upstreams for flag in ("--upstream", upstream)]
        command = [
            *(sys.executable, "-m", "controlplane.cli.main", "sidecar", "run", *flags),
            *("--listen", f"127.0.0.1:{self._port}", "--spool-dir", str(self.disk.place / "spool")),
            *("--grant-timeout", "2", "--shutdown-timeout", "3"),
        ]
        environment = {
            **os.environ,
            "COMPTROLLER_CONTROL_URL": f"http://127.0.0.1:{control}",
            "COMPTROLLER_SIDECAR_TOKEN": self._token,
        }
        self._keeper = asyncio.create_task(self._keep(command, environment))
        async with asyncio.timeout(READY_S):
            while not await self._answers():
                await asyncio.sleep(0.1)

    async def _keep(self, command: list[str], environment: dict[str, str]) -> None:
        """As an init system would: start it again when it ended."""
        while self._wanted:
            with self._log.open("ab") as log:
                self.process = await asyncio.create_subprocess_exec(
                    *command, cwd=ROOT, env=environment, stdout=log, stderr=log
                )
            self.lives += 1
            await self.process.wait()
            await asyncio.sleep(0.3)

    async def _answers(self) -> bool:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            line = await reader.readline()
            writer.close()
            return b" 200 " in line
        return False

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)

    async def stop(self) -> None:
        self._wanted = False
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        if self._keeper is not None:
            await asyncio.wait([self._keeper], timeout=20)
            self.signal(signal.SIGKILL)
            self._keeper.cancel()
        await self.link.stop()
        self.disk.remove()


def new_home() -> Path:
    """A place that the database, which is another user, may enter."""
    home = Path(tempfile.mkdtemp(prefix="comptroller-chaos-"))
    home.chmod(0o755)
    return home
