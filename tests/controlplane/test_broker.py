"""Asking the broker costs seconds at most, whatever it does."""

import socket
import time
from collections.abc import Iterator

import pytest

from controlplane.broker import waiting
from controlplane.celery import app

MOST_S = 6  # two attempts of a second each, and what a busy machine adds


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that accepts and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_hangs_holds_nobody(silent: int, scheme: str) -> None:
    began = time.monotonic()
    with pytest.raises(Exception, match=r"(?i)time"):
        waiting(f"{scheme}://127.0.0.1:{silent}/", ["critical"])
    assert time.monotonic() - began < MOST_S


def test_messages_are_counted_by_queue(valkey_url: str) -> None:
    with app.connection_for_write(valkey_url) as link:
        for _ in range(3):
            app.send_task("tests.nobody", connection=link, queue="tests-counted")
    found = waiting(valkey_url, ["tests-counted", "tests-never-used"])
    assert found == {"tests-counted": 3, "tests-never-used": 0}
