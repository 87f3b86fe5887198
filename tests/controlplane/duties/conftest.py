"""Real brokers, real workers and beats, a real database."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from django.db import connection

from tests.brokers import Broker, RabbitMQ, Valkey, has_rabbitmq

APP = "tests.controlplane.duties.working:app"
BROKERS = [
    pytest.param(Valkey, id="valkey"),
    pytest.param(
        RabbitMQ,
        id="rabbitmq",
        marks=pytest.mark.skipif(not has_rabbitmq(), reason="rabbitmq-server is not installed"),
    ),
]
DIARY = """
CREATE TABLE tests_diary (
    id bigserial PRIMARY KEY,
    pid int NOT NULL,
    began_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz
)
"""


@pytest.fixture(scope="session", params=BROKERS)
def broker_server(request: pytest.FixtureRequest) -> Iterator[Broker]:
    server: Broker = request.param()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def broker(broker_server: Broker) -> Broker:
    """Empty queues: what an earlier test left is not ours, nor what it has not acknowledged."""
    from controlplane.celery import app

    with app.connection_for_write(broker_server.url) as link:
        app.control.purge(connection=link)
        if isinstance(broker_server, Valkey):
            link.default_channel.client.flushall()
    return broker_server


@pytest.fixture
def diary(transactional_db: None) -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute(DIARY)
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE tests_diary")


class Company:
    """Workers and beats in processes of their own. All of them are ended by the fixture."""

    def __init__(self, broker: Broker, places: Path) -> None:
        self._broker = broker
        self._places = places
        self._processes: list[subprocess.Popen[bytes]] = []

    def worker(self, *, queues: str = "", **environment: str) -> subprocess.Popen[bytes]:
        """One process at work; of all queues unless some are named."""
        flags = ("--queues", queues) if queues else ()
        return self._start("worker", "--concurrency", "1", *flags, **environment)

    def beat(self, **environment: str) -> subprocess.Popen[bytes]:
        schedule = self._places / f"schedule-{len(self._processes)}"
        return self._start("beat", "--schedule", str(schedule), **environment)

    def _start(self, part: str, *flags: str, **environment: str) -> subprocess.Popen[bytes]:
        number = len(self._processes)
        command = [sys.executable, "-m", "celery", "-A", APP, part, "--loglevel", "WARNING", *flags]
        if part == "worker":
            command += ["--without-mingle", "--without-gossip", "-n", f"worker{number}@localhost"]
        with (self._places / f"{part}-{number}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                env=os.environ | self._addresses() | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def _addresses(self) -> dict[str, str]:
        settings: dict[str, Any] = connection.settings_dict
        place = urlencode({"host": settings["HOST"]})
        return {
            "DATABASE_URL": f"postgresql://{settings['USER']}@/{settings['NAME']}?{place}",
            "BROKER_URL": self._broker.url,
        }

    def logs(self) -> str:
        return "\n".join(f"{log.name}:\n{log.read_text()}" for log in self._places.glob("*.log"))

    def dismiss(self) -> None:
        """At once, with what they are at: a good end would wait for tasks that hang."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):  # the test has killed it
                os.killpg(process.pid, signal.SIGKILL)
        for process in self._processes:
            process.wait(5)


@pytest.fixture
def company(diary: None, broker: Broker, tmp_path: Path) -> Iterator[Company]:
    company = Company(broker, tmp_path)
    yield company
    company.dismiss()
