"""Where measured stops are kept: `margins.json` beside the journals of a sidecar's workers."""

import os
from pathlib import Path

import msgspec

from enforcement.rules.margins import Stop

NAME = "margins.json"
MODE = 0o600


def stops_path(spool_dir: Path) -> Path:
    """Where they are kept."""
    return spool_dir / NAME


def read_stops(spool_dir: Path) -> tuple[Stop, ...]:
    """What doctor has measured. A file that cannot be read is none: budgets hold strictly."""
    try:
        return msgspec.json.decode(stops_path(spool_dir).read_bytes(), type=tuple[Stop, ...])
    except (OSError, msgspec.MsgspecError):
        return ()


def write_stops(spool_dir: Path, fresh: list[Stop]) -> Path:
    """Keep these, and those of other nodes; whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    measured = {stop.node for stop in fresh}
    kept = [stop for stop in read_stops(spool_dir) if stop.node not in measured]
    path = stops_path(spool_dir)
    draft = path.with_suffix(".tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode([*kept, *fresh])) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    return path
