"""A database and a broker of one's own replace the embedded ones."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.launcher import binaries, postgres, privileges
from tests.launcher.installation import COMPTROLLER, Installation, clean_environment


@pytest.fixture
def durable_database_url() -> Iterator[str]:
    """A server as production has it: the program refuses one that may forget."""
    identity = privileges.service_identity()
    home = Path(tempfile.mkdtemp(prefix="comptroller-test-"))
    privileges.give_to(home, identity)
    programs = privileges.readable_copy(
        binaries.postgres_programs(os.environ), cache=home / "programs", identity=identity
    )
    cluster = postgres.Cluster(
        programs=programs, data=home / "data", sockets=home, identity=identity
    )
    postgres.create_cluster(cluster)
    server = postgres.start(cluster, postgres.EVERYDAY_SETTINGS, log=home / "log")
    yield cluster.url
    server.send_signal(postgres.STOP)
    server.wait(30)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def installation(durable_database_url: str, valkey_url: str) -> Iterator[Installation]:
    environment = clean_environment(DATABASE_URL=durable_database_url, BROKER_URL=valkey_url)
    made = Installation(COMPTROLLER, environment)
    yield made
    made.close()


def test_only_our_own_processes_are_started(installation: Installation) -> None:
    installation.up()

    assert set(installation.parts()) == {"web", "worker", "collector", "sidecar"}
    assert "DATABASE_URL is used as it is" in installation.said()
    # An address may hold a password: it is never printed, and its file is private.
    assert "postgresql://" not in installation.said()
    assert (installation.data / "up.json").stat().st_mode & 0o777 == 0o600
