"""One launcher per data directory; strays of a killed one are found by their mark."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.launcher import state
from controlplane.launcher.errors import AlreadyRunningError, NotRunningError
from controlplane.launcher.places import Places


@pytest.fixture
def places(tmp_path: Path) -> Places:
    made = Places(tmp_path, None)
    made.prepare()
    return made


def test_the_lock_is_held_once(places: Places) -> None:
    with state.held_lock(places):
        state.write(places, {"pid": 77})
        refused = pytest.raises(AlreadyRunningError, match=r"already up for .* \(pid 77\)")
        with refused, state.held_lock(places):
            pass

        assert state.current(places) == {"pid": 77}


def test_after_the_end_nothing_is_running(places: Places) -> None:
    with state.held_lock(places):
        state.write(places, {"pid": 77})

    assert state.is_running(places) is False
    with pytest.raises(NotRunningError, match="nothing is up"):
        state.current(places)


def test_the_state_of_a_killed_launcher_does_not_count(places: Places) -> None:
    state.write(places, {"pid": 77})

    with pytest.raises(NotRunningError):
        state.current(places)


def test_the_state_is_readable_by_us_alone(places: Places) -> None:
    state.write(places, {"database_url": "postgresql://user:password@host/db"})

    assert places.state.stat().st_mode & 0o777 == 0o600


def sleeper(**environment: str) -> subprocess.Popen[bytes]:
    code = "import time; print(1, flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", code], env=environment, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    return process


def test_strays_are_ended_and_others_are_left_alone(places: Places, tmp_path: Path) -> None:
    ours = {"COMPTROLLER_DATA_DIR": str(places.data)}
    stray = sleeper(**ours, COMPTROLLER_PART="web")
    unmarked = sleeper(**ours)
    foreign = sleeper(COMPTROLLER_DATA_DIR=f"{tmp_path}-other", COMPTROLLER_PART="web")

    # A zombie has no environment any more, so an ended child of ours counts as gone.
    ended = state.end_strays(places)

    assert ended == ["web"]
    assert stray.wait(5) == -15
    assert [unmarked.poll(), foreign.poll()] == [None, None]
    for process in (unmarked, foreign):
        process.kill()
        process.wait()


def test_our_own_process_is_no_stray(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPTROLLER_DATA_DIR", str(places.data))
    monkeypatch.setenv("COMPTROLLER_PART", "pytest")

    assert state.end_strays(places) == []
    assert os.getpid() > 0
