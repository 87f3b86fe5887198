"""What is running: the lock that the launcher holds, and the file in which it says what it did."""

import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from controlplane.launcher.errors import AlreadyRunningError, LauncherError, NotRunningError
from controlplane.launcher.places import Places

PART_VARIABLE = "COMPTROLLER_PART"
POLL_S = 0.05


@contextmanager
def held_lock(places: Places) -> Iterator[None]:
    """Only one launcher per data directory. The kernel lets go of the lock when we die."""
    with places.lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = (read(places) or {}).get("pid", "?")
            raise AlreadyRunningError(f"already up for {places.data} (pid {pid})") from None
        try:
            yield
        finally:
            places.state.unlink(missing_ok=True)


def is_running(places: Places) -> bool:
    if not places.lock.exists():
        return False
    with places.lock.open("r") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def read(places: Places) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(places.state.read_text())
    except FileNotFoundError:
        return None
    return content


def write(places: Places, content: dict[str, Any]) -> None:
    """Whole or not at all, and for our eyes only: addresses may hold passwords."""
    unfinished = places.state.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump(content, file, indent=1)
    unfinished.rename(places.state)


def current(places: Places) -> dict[str, Any]:
    """The state of the running launcher; nothing else counts as running."""
    content = read(places) if is_running(places) else None
    if content is None:
        raise NotRunningError(f"nothing is up for {places.data}")
    return content


def stop_running(places: Places, *, timeout_s: int) -> None:
    """Ask the running launcher to stop everything, and wait until it has."""
    os.kill(current(places)["pid"], signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while is_running(places):
        if time.monotonic() > deadline:
            raise LauncherError(f"still stopping after {timeout_s} s: see {places.data}/logs")
        time.sleep(POLL_S)


def end_strays(places: Places, *, timeout_s: int = 15) -> list[str]:
    """End the parts of a launcher that was killed: they carry our mark in their environment.

    The kernel has told them already to stop; the rest get SIGKILL after the time-out. Call it
    only under the lock.
    """
    names = sorted({name for _, name in _strays(places)})
    deadline = time.monotonic() + timeout_s
    asked: set[int] = set()
    while strays := list(_strays(places)):
        for pid, name in strays:
            if time.monotonic() > deadline:
                _signal(pid, signal.SIGKILL)
            elif pid not in asked:
                _signal(pid, signal.SIGINT if name == "database" else signal.SIGTERM)
                asked.add(pid)
        time.sleep(POLL_S)
    return names


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it went by itself


def _strays(places: Places) -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").glob("[0-9]*"):
        if int(entry.name) == os.getpid():
            continue
        try:
            if (name := _part_of(entry, places)) is not None:
                yield int(entry.name), name
        except OSError:
            continue  # gone, or somebody else's


def _part_of(process: Path, places: Places) -> str | None:
    """Which part of this installation a process belongs to, by its mark.

    PostgreSQL's backends write their titles over it, but they work in the cluster's directory;
    while one of them lives no new server may start there.
    """
    variables = (process / "environ").read_bytes().split(b"\0")
    if f"COMPTROLLER_DATA_DIR={places.data}".encode() in variables:
        mark = f"{PART_VARIABLE}=".encode()
        for variable in variables:
            if variable.startswith(mark):
                return variable.removeprefix(mark).decode()
    if (process / "cwd").readlink().is_relative_to(places.services.resolve() / "postgres"):
        return "database"
    return None
