"""Starting a server, waiting until it answers, and stopping it."""

import contextlib
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

START_S = 400
STOP_S = 30
OFFLINE = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(
    command: Sequence[str | Path], folder: Path, name: str, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose words go to `NAME.log`; ended with all that it started."""
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=_without_python(os.environ) | OFFLINE | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            _end(process)


def wait(url: str, process: subprocess.Popen[bytes], log: Path, *, until: str = "") -> None:
    """Until it answers 200, with this word. Raises RuntimeError: it ended, or not in time."""
    deadline = time.monotonic() + START_S
    while True:
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(url, timeout=5) as answer,  # noqa: S310 -- our own server
        ):
            if until.encode() in answer.read():
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{url} does not answer:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.2)


def _without_python(environ: Mapping[str, str]) -> dict[str, str]:
    """The engine's Python is another one than ours."""
    return {name: value for name, value in environ.items() if not name.startswith("PYTHON")}


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (15, 9):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
            return
