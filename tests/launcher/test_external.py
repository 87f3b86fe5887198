"""A database and a broker of one's own replace the embedded ones."""

from collections.abc import Iterator

import psycopg
import pytest

from tests.launcher.installation import COMPTROLLER, Installation, clean_environment

DATABASE = "up_external"


@pytest.fixture
def installation(database_url: str, valkey_url: str) -> Iterator[Installation]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {DATABASE}")
        connection.execute(f"CREATE DATABASE {DATABASE}")
    url = database_url.replace("/comptroller?", f"/{DATABASE}?")
    environment = clean_environment(DATABASE_URL=url, BROKER_URL=valkey_url)
    made = Installation(COMPTROLLER, environment)
    yield made
    made.close()


def test_only_our_own_processes_are_started(installation: Installation) -> None:
    installation.up("--port", "18800")

    assert set(installation.parts()) == {"web", "worker", "sidecar"}
    assert "DATABASE_URL is used as it is" in installation.said()


def test_a_password_in_an_address_is_not_printed_and_its_file_is_private(
    installation: Installation,
) -> None:
    installation.up("--port", "18800")

    assert "postgresql://" not in installation.said()
    assert (installation.data / "up.json").stat().st_mode & 0o777 == 0o600
