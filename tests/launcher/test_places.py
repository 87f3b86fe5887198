"""One directory holds everything; secrets are private from their first byte."""

import os
import stat
from pathlib import Path

import pytest

from controlplane.launcher import places as places_module
from controlplane.launcher.errors import LauncherError
from controlplane.launcher.places import Places
from controlplane.launcher.postgres import LONGEST_SOCKET_PATH, SOCKET
from controlplane.launcher.privileges import Identity


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    made = Places(tmp_path / "data", None)
    made.prepare()
    return made


def test_a_secret_is_made_once_and_readable_by_us_alone(places: Places) -> None:
    first = places.secret("secret-key")

    assert places.secret("secret-key") == first
    assert mode(places.data / "secrets" / "secret-key") == 0o600
    assert mode(places.data / "secrets") == 0o700


def test_a_secret_that_was_never_written_is_none(places: Places) -> None:
    assert places.read_secret("agent-key") is None


def test_preparing_again_keeps_everything(places: Places) -> None:
    secret = places.secret("secret-key")

    Places(places.data, None).prepare()

    assert places.read_secret("secret-key") == secret


def test_the_socket_path_is_short_however_deep_the_data_lies(tmp_path: Path) -> None:
    deep = Places(tmp_path / ("a" * 120) / ("b" * 120), None)

    assert len(str(deep.sockets / SOCKET)) <= LONGEST_SOCKET_PATH


def test_two_data_directories_have_two_socket_directories(tmp_path: Path) -> None:
    assert Places(tmp_path / "a", None).sockets != Places(tmp_path / "b", None).sockets


def test_a_link_in_the_place_of_the_sockets_is_refused(tmp_path: Path) -> None:
    places = Places(tmp_path / "data", None)
    places.sockets.symlink_to(tmp_path)

    with pytest.raises(LauncherError, match="belongs to somebody else"):
        places.prepare()

    places.sockets.unlink()


def test_a_large_log_starts_anew_and_the_old_one_is_kept(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places_module, "LOG_BYTES_MAX", 3)
    places.log("web").write_text("long")

    log = places.log("web")

    assert not log.exists()
    assert log.with_suffix(".log.1").read_text() == "long"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_below_a_closed_home_the_services_lie_outside_and_the_home_stays_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = Path("/tmp") / f"comptroller-outside-{os.getpid()}"  # noqa: S108
    monkeypatch.setattr(places_module, "OUTSIDE", outside)
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    places = Places(home / "data", Identity(uid=65534, gid=65534))

    places.prepare()

    assert mode(home) == 0o700
    assert places.services.resolve().parent == outside
    assert places.service("postgres").stat().st_uid == 65534
