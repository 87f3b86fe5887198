"""A GET that ends in time, whatever the other side does."""

import asyncio
import socket
import time

import pytest

from enforcement.collectors import fetch as fetching
from enforcement.collectors.base import CollectorError
from enforcement.collectors.fetch import Answer, refuse_metadata
from tests.collectors import servers


def fetch(base_url: str, path: str, **how: float) -> Answer:
    return asyncio.run(fetching.fetch(base_url, path, **how))


def test_a_good_answer_comes_with_its_headers() -> None:
    heads: list[bytes] = []

    def script(connection: socket.socket, head: bytes) -> None:
        heads.append(head)
        connection.sendall(servers.answer(b"a 1\n", headers="X-Life: 7\r\n"))

    with servers.serving(script) as url:
        got = fetch(f"{url}/v1/", "/metrics")
    assert got.body == b"a 1\n"
    assert got.headers["x-life"] == "7"
    assert heads[0].startswith(b"GET /v1/metrics HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (servers.hangs, r"/metrics did not answer within 0\.4 s"),
        (servers.drips, r"/metrics did not answer within 0\.4 s"),
        (servers.pours, "answered more than 4 MiB"),
        (servers.stops_early, "the answer ended early"),
        (servers.closes, "/metrics: "),
        (servers.says(b"", status="404 Not Found"), "/metrics answered 404"),
        (
            servers.says(b"", status="302 Found", headers="location: /x\r\n"),
            "/metrics answered 302",
        ),
        (lambda connection, _: connection.sendall(b"SSH-2.0-x\r\n"), "/metrics: "),
    ],
    ids=["hangs", "drips", "pours", "stops", "closes", "404", "redirects", "no http"],
)
def test_a_bad_node_costs_little_time_and_is_told_in_words(
    script: servers.Script, words: str
) -> None:
    began = time.monotonic()
    with servers.serving(script) as url, pytest.raises(CollectorError, match=words):
        fetch(url, "/metrics", within=0.4)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("file:///etc/passwd", "must be http"),
        ("http://user:secret@host", "without a user"),
        ("http://[::1", "no URL"),
        ("http://host:99999", "no URL"),
        ("", "must be http"),
    ],
)
def test_an_address_that_should_not_be_read_is_refused(address: str, words: str) -> None:
    with pytest.raises(CollectorError, match=words):
        fetch(address, "/metrics")


@pytest.mark.parametrize(
    "peer", ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1%eth0", "fd00:ec2::254"]
)
def test_no_name_leads_to_the_metadata_of_a_cloud(peer: str) -> None:
    with pytest.raises(CollectorError, match="metadata service"):
        refuse_metadata(peer)


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.0.0.7", "::1", "::ffff:10.0.0.7", "fd00::7"])
def test_nodes_of_a_private_network_are_read(peer: str) -> None:
    refuse_metadata(peer)


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with servers.serving(servers.says(b"a 1\n")) as url:
        assert fetch(url, "/metrics").body == b"a 1\n"


def test_a_dead_port_is_told_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(CollectorError, match="/metrics: Connection refused"):
        fetch(address, "/metrics")
