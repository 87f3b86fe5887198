"""The real web process: uvicorn with the control plane, in a process of its own."""

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

ROOT = Path(__file__).parents[2]
READY_S = 60


@contextmanager
def web(database_url: str, *, log: Path) -> Iterator[str]:
    """The address of a running server on this database."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    environment = {
        **os.environ,
        "DATABASE_URL": database_url,
        "COMPTROLLER_PUBLIC_URL": address,
        "DJANGO_SETTINGS_MODULE": "controlplane.settings",
    }
    command = [
        *(sys.executable, "-m", "uvicorn", "controlplane.asgi:application"),
        *("--host", "127.0.0.1", "--port", str(port), "--timeout-graceful-shutdown", "1"),
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        wait_for(process, port, "/healthz", name="web", log=log)
        yield address
    finally:
        process.terminate()
        process.wait(15)


def new_database(server_url: str, name: str) -> str:
    """The address of a new database on a throw-away server. `test_…` may run without fsync."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    parts = urlsplit(server_url)
    return parts._replace(path=f"/{name}").geturl()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(
    process: subprocess.Popen[bytes], port: int, path: str, *, name: str, log: Path | None = None
) -> None:
    """Return when the process answers 200 at `path`; fail with its log when it does not."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        assert process.poll() is None, _told(name, "ended", log)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    raise AssertionError(_told(name, "was not ready in time", log))


def _told(name: str, what: str, log: Path | None) -> str:
    return f"{name} {what}\n{log.read_text() if log else ''}"
