"""An embedded PostgreSQL for the tests.

The address is fixed at once, the server starts only when a collected test needs a database. Under
xdist the controlling process starts it for all workers. Set `COMPTROLLER_TEST_DATABASE_URL` to
use a server of your own. `valkey_url` is the address of a Valkey, started on first use.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.launcher import binaries, postgres, privileges, valkey

DATABASE_FIXTURES = frozenset(
    {"db", "transactional_db", "django_db_setup", "live_server", "database_url"}
)
SERVER = pytest.StashKey["Server"]()
ENVIRONMENT = {
    "COMPTROLLER_SECRET_KEY": "a-secret-key-for-tests-only-0123456789abcdef0123456789",
    "COMPTROLLER_PUBLIC_URL": "http://testserver",
    "BROKER_URL": "memory://",
}


class Server:
    """A throw-away cluster in a directory of its own."""

    def __init__(self) -> None:
        identity = privileges.service_identity()
        self.home = Path(tempfile.mkdtemp(prefix="comptroller-test-"))
        privileges.give_to(self.home, identity)
        self.cluster = postgres.Cluster(
            programs=privileges.readable_copy(
                binaries.postgres_programs(os.environ),
                cache=self.home / "programs",
                identity=identity,
            ),
            data=self.home / "data",
            sockets=self.home,
            identity=identity,
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self.process is None:
            postgres.create_cluster(self.cluster)
            settings = postgres.THROWAWAY_SETTINGS
            self.process = postgres.start(self.cluster, settings, log=self.home / "log")

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(postgres.STOP)
            self.process.wait(30)
        shutil.rmtree(self.home, ignore_errors=True)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    for name, value in ENVIRONMENT.items():
        os.environ[name] = value
    if "PYTEST_XDIST_WORKER" in os.environ:
        return  # the controlling process has set the address
    if own := os.environ.get("COMPTROLLER_TEST_DATABASE_URL"):
        os.environ["DATABASE_URL"] = own
        return
    server = Server()
    early_config.stash[SERVER] = server
    os.environ["DATABASE_URL"] = server.cluster.url


def pytest_configure(config: pytest.Config) -> None:
    if getattr(config.option, "numprocesses", None) and SERVER in config.stash:
        config.stash[SERVER].start()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests come last: Playwright's event loop stays in the thread until the end.

    No other loop can run beside it.
    """
    items.sort(key=lambda item: "/e2e/" in str(item.path))


def pytest_collection_finish(session: pytest.Session) -> None:
    server = session.config.stash.get(SERVER, None)
    if server is None or session.config.option.collectonly:
        return
    if any(_needs_database(item) for item in session.items):
        server.start()


def _needs_database(item: pytest.Item) -> bool:
    if item.get_closest_marker("django_db"):
        return True
    return not DATABASE_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Say at once what failed: the whole report comes only after the last test."""
    if report.failed:
        sys.stderr.write(f"\nfailed ({report.when}): {report.nodeid}\n{report.longreprtext}\n")


def pytest_unconfigure(config: pytest.Config) -> None:
    if SERVER in config.stash:
        config.stash[SERVER].stop()
        del config.stash[SERVER]


@pytest.fixture(scope="session")
def database_url() -> str:
    """The address of the test server (its own database, not the one that Django makes)."""
    return os.environ["DATABASE_URL"]


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """The address of a Valkey that lives as long as the test session."""
    identity = privileges.service_identity()
    home = Path(tempfile.mkdtemp(prefix="comptroller-test-"))
    privileges.give_to(home, identity)
    program = privileges.readable_copy(
        binaries.valkey_program(os.environ).parent, cache=home / "programs", identity=identity
    )
    broker = valkey.Broker(program=program / "valkey-server", data=home, sockets=home)
    process = subprocess.Popen(
        broker.command(durable=False),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        cwd="/",
        **privileges.child_options(identity, farewell=valkey.STOP),
    )
    deadline = time.monotonic() + 10
    while not broker.is_ready():
        assert process.poll() is None, "Valkey ended"
        assert time.monotonic() < deadline, "Valkey did not start in time"
        time.sleep(0.02)
    yield broker.url
    process.send_signal(valkey.STOP)
    process.wait(10)
    shutil.rmtree(home, ignore_errors=True)
