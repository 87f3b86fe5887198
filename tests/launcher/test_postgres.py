"""The embedded database: created once, durable by default, entered by its socket only."""

from pathlib import Path

import psycopg
import pytest

from controlplane.launcher.postgres import Cluster, cache_mb, forget_killed_server


def test_the_test_server_takes_connections(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        row = connection.execute("select current_database(), current_user").fetchone()

    assert row == ("comptroller", "comptroller")


def test_the_server_has_no_network_address(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        row = connection.execute("show listen_addresses").fetchone()

    assert row == ("",)


@pytest.mark.parametrize(
    ("memory_mb", "kept_mb"),
    [(512, 128), (2_048, 128), (8_192, 512), (16_384, 1_024), (2**20, 1_024)],
)
def test_its_cache_goes_by_the_memory_of_the_machine(memory_mb: int, kept_mb: int) -> None:
    assert cache_mb(memory_mb << 20) == kept_mb


def test_the_pid_file_of_a_killed_server_does_not_count(tmp_path: Path) -> None:
    cluster = Cluster(programs=tmp_path, data=tmp_path, sockets=tmp_path, identity=None)
    lines = ["4711", str(tmp_path), "0", "5432", str(tmp_path), "", "0 0", "ready   ", ""]
    (tmp_path / "postmaster.pid").write_text("\n".join(lines))

    assert cluster.is_ready(4711) is True
    assert cluster.is_ready(4712) is False


def test_a_server_that_is_still_starting_is_not_ready(tmp_path: Path) -> None:
    cluster = Cluster(programs=tmp_path, data=tmp_path, sockets=tmp_path, identity=None)
    assert cluster.is_ready(4711) is False

    (tmp_path / "postmaster.pid").write_text("4711\n")

    assert cluster.is_ready(4711) is False


def test_the_pid_files_of_a_killed_server_are_forgotten(tmp_path: Path) -> None:
    cluster = Cluster(programs=tmp_path, data=tmp_path, sockets=tmp_path, identity=None)
    (tmp_path / "postmaster.pid").write_text("4711\n")
    (tmp_path / ".s.PGSQL.5432.lock").write_text("4711\n")

    forget_killed_server(cluster)
    forget_killed_server(cluster)

    assert list(tmp_path.iterdir()) == []
