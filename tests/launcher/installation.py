"""A real installation for tests: the command in a child process, its data in a short-lived place."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
START_S = 180  # a clean clone installs its environment first
COMMAND_S = 240
OURS = ("COMPTROLLER_", "DATABASE_", "BROKER_", "DJANGO_")
COMPTROLLER = (str(Path(sys.executable).parent / "comptroller"),)


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without what this test run has put there."""
    return {k: v for k, v in os.environ.items() if not k.startswith(OURS)} | more


class Installation:
    """`up` in the background. Everything is ended and removed by `close`."""

    def __init__(
        self,
        command: tuple[str, ...] = COMPTROLLER,
        environment: Mapping[str, str] | None = None,
        **popen: Any,
    ) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="comptroller-up-"))
        self.home.chmod(0o755)
        self.data = self.home / "data"
        self.log = self.home / "up.log"
        self.process: subprocess.Popen[bytes] | None = None
        # Anywhere below the ports that the kernel gives to clients: other runs look there too.
        self.port = str(random.randrange(20_000, 32_000, 10))
        self._command = command
        self._environment = dict(environment or clean_environment())
        self._popen = popen
        if "user" in popen:
            os.chown(self.home, popen["user"], -1)

    def up(self, *arguments: str, command: str = "up") -> "Installation":
        """Start, and wait until everything is ready."""
        with self.log.open("wb") as sink:
            self.process = subprocess.Popen(
                [
                    *self._command,
                    command,
                    "--data-dir",
                    str(self.data),
                    "--port",
                    self.port,
                    *arguments,
                ],
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=self._environment,
                **self._popen,
            )
        eventually(lambda: "Ctrl-C" in self.said() or self._ended(), timeout_s=START_S)
        assert not self._ended(), self.said()
        return self

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another command on the same data."""
        return subprocess.run(
            [*self._command, command, *arguments, "--data-dir", str(self.data)],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env=self._environment,
            timeout=COMMAND_S,
            **self._popen,
        )

    def said(self) -> str:
        return self.log.read_text()

    def parts(self) -> dict[str, dict[str, Any]]:
        """What `status` shows, by the name of the part."""
        answer = self.run("status", "--json")
        return {part["part"]: part for part in json.loads(answer.stdout or "[]")}

    def kill(self, part: str) -> int:
        """SIGKILL one part. The answer is its former pid."""
        pid: int = self.parts()[part]["pid"]
        os.kill(pid, signal.SIGKILL)
        return pid

    def leftovers(self) -> list[str]:
        """Processes that still carry this installation's mark."""
        mark = f"COMPTROLLER_DATA_DIR={self.data}".encode()
        return [entry.name for entry in Path("/proc").glob("[0-9]*") if _carries(entry, mark)]

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
        for pid in self.leftovers():
            os.kill(int(pid), signal.SIGKILL)
        shutil.rmtree(self.home, ignore_errors=True)

    def _ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None


def _carries(entry: Path, mark: bytes) -> bool:
    try:
        return mark in (entry / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def eventually(condition: Callable[[], Any], *, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
