"""Children lose root's powers, and live no longer than their parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from controlplane.launcher import privileges
from controlplane.launcher.privileges import Identity, can_enter, child_options, readable_copy
from tests.launcher.test_supervisor import alive

NOBODY = Identity(uid=65534, gid=65534)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop its powers")


def test_everybody_may_enter_an_open_place() -> None:
    assert can_enter(Path("/usr/bin"), NOBODY) is True


def test_a_closed_parent_closes_what_is_below(tmp_path: Path) -> None:
    inner = tmp_path / "closed" / "open"
    inner.mkdir(parents=True)
    inner.parent.chmod(0o700)

    assert can_enter(inner, NOBODY) is False


def test_who_stays_who_they_are_may_enter_everything(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)

    assert can_enter(tmp_path, None) is True


@as_root
def test_a_child_of_root_is_nobody_without_any_group() -> None:
    printed = subprocess.run(
        ["/bin/sh", "-c", "id -u; id -G"],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
        **child_options(NOBODY, farewell=signal.SIGTERM),
    )

    assert printed.stdout == "65534\n65534\n"


@pytest.mark.skipif(sys.platform != "linux", reason="a feature of Linux")
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = (
        "import os, signal, subprocess, sys;"
        "from controlplane.launcher.privileges import child_options;"
        "child = subprocess.Popen(['sleep', '60'],"
        " **child_options(None, farewell=signal.SIGTERM));"
        f"open({str(pid_file)!r}, 'w').write(str(child.pid));"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )

    subprocess.run([sys.executable, "-c", code], check=False)

    child = int(pid_file.read_text())
    deadline = time.monotonic() + 5
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(child)


def test_programs_in_a_closed_place_are_copied_whole_and_once(tmp_path: Path) -> None:
    programs = tmp_path / "home" / "wheel" / "pginstall" / "bin"
    programs.mkdir(parents=True)
    (programs / "postgres").write_text("program")
    (tmp_path / "home" / "wheel.libs").mkdir()
    (tmp_path / "home" / "wheel.libs" / "library.so").touch()
    (tmp_path / "home").chmod(0o700)
    cache = tmp_path / "cache"

    copy = readable_copy(programs, cache=cache, identity=NOBODY)
    again = readable_copy(programs, cache=cache, identity=NOBODY)

    assert copy == again
    assert (copy / "postgres").read_text() == "program"
    assert (copy.parents[2] / "wheel.libs" / "library.so").exists()


def test_programs_in_an_open_place_stay_there(tmp_path: Path) -> None:
    assert readable_copy(Path("/usr/bin"), cache=tmp_path, identity=NOBODY) == Path("/usr/bin")


def test_an_ordinary_user_needs_no_other_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert privileges.service_identity() is None
