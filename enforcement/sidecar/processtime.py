"""Processor time of the process that listens on a local port: for engines without counters."""

import os
from contextlib import suppress
from pathlib import Path

_LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp (Linux, proc(5))
_PROC = Path("/proc")


def listener_of(port: int) -> int | None:
    """The process that listens on a TCP port of this machine, if we may see it."""
    sockets = set()
    for table in ("net/tcp", "net/tcp6"):
        with suppress(OSError):
            for line in (_PROC / table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    sockets.add(f"socket:[{fields[9]}]")
    for process in _PROC.glob("[0-9]*"):
        with suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                if str(descriptor.readlink()) in sockets:
                    return int(process.name)
    return None


def cpu_ms(pid: int) -> int:
    """Processor time of a process and all below it, in milliseconds.

    Raises:
        OSError: it has ended.
    """
    fields = (_PROC / str(pid) / "stat").read_text().rsplit(") ", 1)[1].split()
    total = (int(fields[11]) + int(fields[12])) * 1000 // os.sysconf("SC_CLK_TCK")
    for path in (_PROC / str(pid) / "task").glob("*/children"):
        with suppress(OSError):
            total += sum(cpu_ms(int(child)) for child in path.read_text().split())
    return total
