"""Probes look once and never raise."""

import asyncio
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.launcher import probes


@pytest.fixture
def web_port() -> Iterator[int]:
    """A server that answers 200 at /healthz and 404 elsewhere."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Silence."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("path", "ready"), [("/healthz", True), ("/nowhere", False)])
def test_only_200_counts(web_port: int, path: str, ready: bool) -> None:
    assert asyncio.run(probes.http_ok("127.0.0.1", web_port, path)()) is ready


def test_a_closed_port_is_not_ready() -> None:
    with probes.reserved_port("127.0.0.1", 0) as reservation:
        port = probes.port_of(reservation)

    assert asyncio.run(probes.http_ok("127.0.0.1", port, "/")()) is False


def test_a_free_port_is_taken_as_wished() -> None:
    with probes.reserved_port("127.0.0.1", 0) as first:
        port = probes.port_of(first)

    with probes.reserved_port("127.0.0.1", port) as second:
        assert probes.port_of(second) == port


def test_a_reserved_port_is_replaced_by_a_free_one() -> None:
    with (
        probes.reserved_port("127.0.0.1", 0) as first,
        probes.reserved_port("127.0.0.1", probes.port_of(first)) as second,
    ):
        assert probes.port_of(second) not in (probes.port_of(first), 0)


def test_words_of_an_earlier_start_do_not_count(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("ready\n")

    assert asyncio.run(probes.log_says(log, b"ready", after=0)()) is True
    assert asyncio.run(probes.log_says(log, b"ready", after=6)()) is False
