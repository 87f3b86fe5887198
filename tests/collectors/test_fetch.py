"""A GET that ends in time, whatever the other side does."""

import asyncio
import socket
import time

import pytest

from enforcement.collectors import fetch as fetching
from enforcement.collectors.base import CollectorError
from enforcement.collectors.fetch import Answer
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
    "host", ["169.254.169.254", "2852039166", "[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]"]
)
def test_no_address_leads_to_the_metadata_of_a_cloud(host: str) -> None:
    with pytest.raises(CollectorError, match="metadata service"):
        fetch(f"http://{host}", "/metrics")


class Names(asyncio.DefaultEventLoopPolicy):
    """A name server that an enemy runs: another answer at each question."""

    def __init__(self, *answers: list[str]) -> None:
        super().__init__()
        self.answers = list(answers)

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        loop = super().new_event_loop()

        async def getaddrinfo(host: str, port: int, **_how: int) -> list[object]:
            assert host == "gpu.example"
            return [(2, 1, 6, "", (address, port)) for address in self.answers.pop(0)]

        loop.getaddrinfo = getaddrinfo  # type: ignore[method-assign,assignment]
        return loop


def fetch_by(names: Names, url: str) -> Answer:
    port = url.rpartition(":")[2]
    with asyncio.Runner(loop_factory=names.new_event_loop) as runner:
        return runner.run(fetching.fetch(f"http://gpu.example:{port}", "/metrics"))


@pytest.mark.parametrize("answer", [["169.254.169.254"], ["127.0.0.1", "100.100.100.200"]])
def test_a_name_with_one_bad_address_is_not_read(answer: list[str]) -> None:
    heads: list[bytes] = []
    with (
        servers.serving(lambda _, head: heads.append(head)) as url,
        pytest.raises(CollectorError, match="metadata service"),
    ):
        fetch_by(Names(answer), url)
    assert heads == []


def test_a_name_is_resolved_once_so_it_cannot_flip_after_it_was_judged() -> None:
    names = Names(["127.0.0.1"], ["169.254.169.254"])
    with servers.serving(servers.says(b"a 1\n")) as url:
        assert fetch_by(names, url).peer == f"127.0.0.1:{url.rpartition(':')[2]}"
    assert names.answers == [["169.254.169.254"]]


def test_the_next_address_of_a_name_is_tried() -> None:
    with servers.serving(servers.says(b"a 1\n")) as url:
        assert fetch_by(Names(["127.0.0.9", "127.0.0.1"]), url).body == b"a 1\n"


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
