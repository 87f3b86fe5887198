"""`up` for real: all parts on real sockets, killed one by one."""

import json
import os
import signal
import stat
import urllib.request
from collections.abc import Iterator

import pytest

from tests.launcher.installation import Installation, eventually

ALL_READY = dict.fromkeys(("database", "broker", "web", "worker", "collector", "sidecar"), "ready")
STOP_ORDER = ["sidecar", "collector", "worker", "web", "broker", "database"]


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    """One data directory for the whole module; each test finds it up."""
    made = Installation()
    yield made
    made.close()


@pytest.fixture
def up(installation: Installation) -> Installation:
    if installation.process is None or installation.process.poll() is not None:
        installation.up()
    return installation


def fact(up: Installation, name: str) -> str:
    """A line of what `up` printed at its end."""
    (line,) = (line for line in up.said().splitlines() if line.startswith(f"  {name}  "))
    return line.split()[-1]


def get(url: str, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 -- our own address
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return answer.status, answer.read()


def states(up: Installation) -> dict[str, str]:
    return {name: part["state"] for name, part in up.parts().items()}


def test_every_part_is_ready(up: Installation) -> None:
    assert states(up) == ALL_READY


def test_a_second_launcher_is_refused(up: Installation) -> None:
    answer = up.run("up")

    assert answer.returncode == 5
    assert "already up" in answer.stderr


def test_the_sign_in_link_works_once(up: Installation) -> None:
    link = fact(up, "sign in once")

    status, page = get(link)

    assert status == 200
    assert b"<form" in page


def test_the_agent_key_opens_the_sidecar(up: Installation) -> None:
    key = fact(up, "agent key")

    status, body = get(fact(up, "sidecar") + "/v1/models", Authorization=f"Bearer {key}")

    assert (status, json.loads(body)["object"]) == (200, "list")


def test_secrets_are_private(up: Installation) -> None:
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in (up.data / "secrets").iterdir()
    }

    assert modes == dict.fromkeys(("secret-key", "sidecar-token", "agent-key"), 0o600)


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user has no powers to drop")
def test_servers_do_not_run_as_root(up: Installation) -> None:
    owners = {
        name: os.stat(f"/proc/{part['pid']}").st_uid  # noqa: PTH116 -- no file
        for name, part in up.parts().items()
    }

    assert (owners["database"], owners["broker"]) == (65534, 65534)


@pytest.mark.parametrize("part", ["web", "worker", "collector", "sidecar", "broker"])
def test_a_killed_part_comes_back(up: Installation, part: str) -> None:
    former = up.kill(part)

    eventually(lambda: up.parts()[part]["pid"] != former)
    eventually(lambda: up.parts()[part]["state"] == "ready")

    assert up.parts()[part]["restarts"] == 1


def test_ctrl_c_stops_in_reverse_order(up: Installation) -> None:
    assert up.process is not None
    before = len(up.said().splitlines())

    up.process.send_signal(signal.SIGINT)

    assert up.process.wait(60) == 0
    lines = up.said().splitlines()[before:]
    assert [line.split()[0] for line in lines if line.endswith(" stopped")] == STOP_ORDER
    assert up.leftovers() == []
    assert up.run("status").returncode == 3


def test_down_stops_everything(up: Installation) -> None:
    assert up.process is not None

    assert up.run("down").returncode == 0

    assert up.process.wait(5) == 0
    assert up.leftovers() == []


def test_the_death_of_the_database_ends_everything(up: Installation) -> None:
    assert up.process is not None

    up.kill("database")

    assert up.process.wait(90) == 6
    assert "PostgreSQL ended (signal SIGKILL)" in up.said()
    assert up.leftovers() == []


def test_a_killed_launcher_leaves_nothing_and_the_next_start_recovers(up: Installation) -> None:
    assert up.process is not None
    key = (up.data / "secrets" / "agent-key").read_text()

    up.process.kill()
    up.process.wait()

    eventually(lambda: up.leftovers() == [])
    up.up()
    assert states(up) == ALL_READY
    assert (up.data / "secrets" / "agent-key").read_text() == key


def test_all_parts_killed_at_once_leave_nothing_in_the_way(up: Installation) -> None:
    assert up.process is not None
    pids = [part["pid"] for part in up.parts().values()]

    for pid in (up.process.pid, *pids):
        os.kill(pid, signal.SIGKILL)
    up.process.wait()

    up.up()
    assert states(up) == ALL_READY
