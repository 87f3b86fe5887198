"""Signs of life: a process that hangs has not ended, so nobody would start it again.

A hung worker neither meters nor cuts, while the engines behind it go on. Killed, it closes its
connections, the engines stop, and its next life finds its leases in the journal.

Each turn of a worker's loop writes the time into memory shared with its supervisor. A worker
alone tells systemd instead (sd_notify(3), `WatchdogSec=`).
"""

import mmap
import socket
from collections.abc import Mapping
from contextlib import suppress

_SIZE = 8
_EVERY_NS = 1_000_000_000


class Pulse:
    """The last sign of life of one worker, in memory that a fork shares."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _SIZE)
        self._cell = memoryview(self._memory).cast("q")  # one aligned word: never half written

    def beat(self, now_ns: int) -> None:
        """The loop turns."""
        self._cell[0] = now_ns

    @property
    def last_ns(self) -> int:
        """When it last turned; 0 before the first time."""
        return self._cell[0]

    def close(self) -> None:
        """Give the memory back."""
        self._cell.release()
        self._memory.close()


class Systemd:
    """What the service manager is told, if there is one that listens."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        name = environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{name[1:]}" if name.startswith("@") else name
        self._told_ns = 0

    def beat(self, now_ns: int) -> None:
        """Ready, and alive; said once a second at most."""
        if self._address and now_ns - self._told_ns >= _EVERY_NS:
            self._told_ns = now_ns
            self._say(b"READY=1\nWATCHDOG=1")

    def _say(self, state: bytes) -> None:
        with (
            suppress(OSError),  # it listens no more: nothing of ours depends on it
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line,
        ):
            line.sendto(state, socket.MSG_DONTWAIT, self._address)
