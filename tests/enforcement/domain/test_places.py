"""What a place says of its nodes: files, DNS, and a Kubernetes API over real TLS."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from enforcement.domain.places import PlaceError, read_place, read_places
from enforcement.rules.targetfile import Target
from tests.collectors import servers
from tests.sidecar.certificates import Authority

# ------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "neither JSON nor YAML"),
        ("[]", "it names no target"),
        ("#" * 2**23, "more than 4 MiB"),
    ],
    ids=["broken", "empty", "huge"],
)
def test_a_broken_file_is_told_by_its_name(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "nodes.yaml"
    file.write_text(text)
    with pytest.raises(PlaceError, match=f"nodes.yaml: {words}"):
        read_place(str(file))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(PlaceError, match="No such file"):
        read_place(str(tmp_path / "none"))


def test_a_pipe_that_nobody_writes_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PlaceError, match="it is no file"):
        read_place(str(tmp_path / "pipe"))


# ------------------------------------------------------------------------------- DNS


def test_every_address_of_a_name_is_a_node() -> None:
    targets = read_place("dns:localhost:8000")
    name = Target("localhost/127.0.0.1", "http://127.0.0.1:8000", labels={"dns": "localhost"})
    assert name in targets
    told = {str(one[4][0]) for one in socket.getaddrinfo("localhost", 8000)}
    assert {target.name for target in targets} == {f"localhost/{address}" for address in told}


def test_an_address_of_the_newer_kind_stands_in_brackets() -> None:
    assert read_place("dns:::1:8000") == [
        Target("::1/::1", "http://[::1]:8000", labels={"dns": "::1"})
    ]


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("dns:", "write dns:NAME:PORT"),
        ("dns:vllm", "write dns:NAME:PORT"),
        ("dns::8000", "write dns:NAME:PORT"),
        ("dns:vllm:0", "write dns:NAME:PORT"),
        ("dns:vllm:65536", "write dns:NAME:PORT"),
        ("dns:vllm:²", "write dns:NAME:PORT"),
        ("dns:no-such-name.invalid:8000", "no-such-name.invalid: "),
        (f"dns:{'a' * 64}.example:8000", "a{64}.example: "),
        ("dns:" + "a" * 200, "at most 200 printable"),
        ("dns:a\n:8000", "at most 200 printable"),
    ],
)
def test_what_names_nothing_is_told(place: str, words: str) -> None:
    with pytest.raises(PlaceError, match=words):
        read_place(place)


# ------------------------------------------------------------------------------- Kubernetes


class Cluster:
    """An API of Kubernetes, as far as one pod may ask it: real TLS, its own authority, a token."""

    def __init__(self, home: Path) -> None:
        self.authority = Authority(home)
        self.secrets = home
        (home / "ca.crt").write_bytes(Path(self.authority.ca_file).read_bytes())
        (home / "token").write_text("t0ken\n")
        self.heads: list[bytes] = []

    @contextmanager
    def answering(self, script: servers.Script) -> Iterator[dict[str, str]]:
        """Yields what Kubernetes tells a pod of the API's address."""

        def heard(connection: socket.socket, head: bytes) -> None:
            self.heads.append(head)
            script(connection, head)

        with servers.serving(heard, tls=self.authority.server("127.0.0.1")) as url:
            host, _, port = urlsplit(url).netloc.partition(":")
            yield {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}

    def told(
        self, script: servers.Script, place: str = "kubernetes:models", within_s: float = 5
    ) -> list[Target] | PlaceError:
        with self.answering(script) as environ:
            found = read_places([place], environ=environ, secrets=self.secrets, within_s=within_s)
            return found[place]

    def queries(self) -> list[dict[str, list[str]]]:
        return [parse_qs(urlsplit(head.split(b" ")[1].decode()).query) for head in self.heads]


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def page(*pods: str, more: str = "") -> bytes:
    endpoints = [
        {"addresses": [f"10.1.0.{pod[-1]}"], "targetRef": {"kind": "Pod", "name": pod}}
        for pod in pods
    ]
    one = {
        "metadata": {"namespace": "models"},
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8000}],
    }
    return json.dumps({"metadata": {"continue": more}, "items": [one]}).encode()


def names(told: list[Target] | PlaceError) -> list[str]:
    assert isinstance(told, list), told
    return [target.name for target in told]


def test_pods_are_asked_for_page_by_page_with_the_token(cluster: Cluster) -> None:
    def script(connection: socket.socket, head: bytes) -> None:
        is_second = b"continue=a%2Bb" in head
        body = page("vllm-2") if is_second else page("vllm-0", "vllm-1", more="a+b")
        connection.sendall(servers.answer(body))

    told = cluster.told(script, "kubernetes:models/app=vllm,tier!=test")
    assert names(told) == ["models/vllm-0", "models/vllm-1", "models/vllm-2"]
    wish = {"labelSelector": ["app=vllm,tier!=test"], "limit": ["500"]}
    assert cluster.queries() == [wish, wish | {"continue": ["a+b"]}]
    line = b"GET /apis/discovery.k8s.io/v1/namespaces/models/endpointslices?"
    for head in cluster.heads:
        assert head.startswith(line)
        assert b"\r\nauthorization: Bearer t0ken\r\n" in head


def test_a_token_that_was_rotated_is_used(cluster: Cluster) -> None:
    cluster.told(servers.says(page()))
    (cluster.secrets / "token").write_text("n3xt")
    cluster.told(servers.says(page()))
    assert b"Bearer n3xt" in cluster.heads[1]


def test_a_redirect_carries_the_token_nowhere(cluster: Cluster) -> None:
    stolen: list[bytes] = []
    with servers.serving(lambda _, head: stolen.append(head)) as elsewhere:
        script = servers.says(b"", status="302 Found", headers=f"location: {elsewhere}/\r\n")
        told = cluster.told(script)
    assert "answered 302, redirects are not followed" in str(told)
    assert stolen == []


def test_a_server_of_another_authority_gets_no_token(cluster: Cluster, tmp_path: Path) -> None:
    impostor = Cluster(tmp_path / "impostor")
    with impostor.answering(servers.says(page())) as environ:
        told = read_places(["kubernetes:models"], environ=environ, secrets=cluster.secrets)
    assert "its TLS certificate is not trusted" in str(told["kubernetes:models"])
    assert impostor.heads == []


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (servers.says(b"", status="401 Unauthorized"), "endpointslices answered 401"),
        (servers.says(b"", status="403 Forbidden"), "endpointslices answered 403"),
        (servers.says(b"", status="410 Gone"), "endpointslices answered 410"),
        (servers.says(b"<html>"), "no list of EndpointSlices"),
        (servers.says(b'{"kind": "Status"}'), "no list of EndpointSlices"),
        (servers.says(b'{"x": ' + b"[" * 100_000), "no list of EndpointSlices"),
        (servers.pours, "answered more than 4 MiB"),
        (servers.stops_early, "the answer ended early"),
        (servers.says(page(more="again")), "more than 50000 slices: narrow the selector"),
    ],
    ids=["401", "403", "410", "html", "status", "deep", "pours", "stops", "endless"],
)
def test_a_bad_answer_is_no_empty_fleet(
    cluster: Cluster, script: servers.Script, words: str
) -> None:
    told = cluster.told(script)
    assert isinstance(told, PlaceError)
    assert words in str(told)


@pytest.mark.parametrize("script", [servers.hangs, servers.drips], ids=["hangs", "drips"])
def test_an_api_that_hangs_ends_in_time_and_holds_up_no_other_place(
    cluster: Cluster, script: servers.Script
) -> None:
    began = time.monotonic()
    with cluster.answering(script) as environ:
        places = ["kubernetes:models", "kubernetes:other", "dns:127.0.0.1:8000"]
        told = read_places(places, environ=environ, secrets=cluster.secrets, within_s=0.5)
        assert time.monotonic() - began < 2
    assert [str(told[place]) for place in places[:2]] == [
        "kubernetes:models did not answer within 0.5 s",
        "kubernetes:other did not answer within 0.5 s",
    ]
    assert names(told["dns:127.0.0.1:8000"]) == ["127.0.0.1/127.0.0.1"]


@pytest.mark.parametrize("missing", ["token", "ca.crt"])
def test_a_pod_without_its_secrets_is_told_so(cluster: Cluster, missing: str) -> None:
    (cluster.secrets / missing).unlink()
    assert "what lets a pod ask Kubernetes cannot be read" in str(cluster.told(servers.hangs))
    assert cluster.heads == []


def test_a_machine_that_is_no_pod_is_told_so() -> None:
    told = read_places(["kubernetes:models"], environ={})
    assert str(told["kubernetes:models"]).startswith("this is no pod")


@pytest.mark.parametrize("namespace", ["", "../nodes", "a b", "Ω", "-a", "a" * 64, "a?x=y"])
def test_a_namespace_is_a_name(cluster: Cluster, namespace: str) -> None:
    told = cluster.told(servers.hangs, f"kubernetes:{namespace}")
    assert "write kubernetes:NAMESPACE" in str(told)
    assert cluster.heads == []
