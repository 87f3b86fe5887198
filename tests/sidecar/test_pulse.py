"""Signs of life, to a supervisor and to systemd."""

import os
import socket
from pathlib import Path

from enforcement.sidecar.pulse import Pulse, Systemd

SECOND = 1_000_000_000


def test_a_beat_of_a_fork_is_seen() -> None:
    pulse = Pulse()
    assert pulse.last_ns == 0
    pid = os.fork()
    if pid == 0:
        pulse.beat(7 * SECOND)
        os._exit(0)
    os.waitpid(pid, 0)
    assert pulse.last_ns == 7 * SECOND
    pulse.close()


def test_systemd_hears_once_a_second_that_we_live(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        systemd = Systemd({"NOTIFY_SOCKET": path})
        for now_ns in (SECOND, SECOND + 5, 2 * SECOND):
            systemd.beat(now_ns)
        manager.setblocking(False)
        heard = [manager.recv(100), manager.recv(100)]
    assert heard == [b"READY=1\nWATCHDOG=1"] * 2


def test_a_manager_that_is_gone_is_told_again_when_it_is_back(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    systemd = Systemd({"NOTIFY_SOCKET": path})
    systemd.beat(SECOND)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        systemd.beat(2 * SECOND)
        assert manager.recv(100) == b"READY=1\nWATCHDOG=1"
