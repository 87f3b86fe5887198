"""Batches of nodes: the bad ones cost the good ones nothing, and each is told in words."""

import socket
import threading
import time
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

from enforcement.domain.gather import EVERY, SAMPLES_KEPT, Tokens, due_nodes, forget_samples
from enforcement.domain.scraping import scrape_batch
from enforcement.models import DeviceSample, NodeSample, ReadingCount, ServingNode
from tests.budgets.world import NOW, World
from tests.collectors import servers
from tests.enforcement.domain.nodes import hours, make_node, read
from tests.sidecar.certificates import Authority

SECOND = timedelta(seconds=1)
FIXTURES = Path(__file__).parents[2] / "collectors" / "fixtures"
PAGE = (FIXTURES / "vllm_0_32.prom").read_bytes()
MILLION = b"".join(b'vllm:generation_tokens_total{s="%d"} 1\n' % n for n in range(1_000_000))


def announces_100_mb(connection: socket.socket, _head: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n")
    connection.recv(1)


def redirects(connection: socket.socket, _head: bytes) -> None:
    moved = "location: http://169.254.169.254/latest/meta-data\r\n"
    connection.sendall(servers.answer(b"", status="302 Found", headers=moved))


def changed(name: str, value: str) -> bytes:
    """The page of a real vLLM with another value of one metric."""
    lines = PAGE.decode().split("\n")
    return "\n".join(
        f"{line.rpartition(' ')[0]} {value}" if line.startswith(name) else line for line in lines
    ).encode()


def without(name: str) -> bytes:
    return b"\n".join(line for line in PAGE.split(b"\n") if not line.startswith(name.encode()))


BAD = {
    "html": (servers.says(b"<html>login</html>"), "answered a document, not metrics"),
    "100 MB": (announces_100_mb, "answered more than 4 MiB"),
    "endless": (servers.pours, "answered more than 4 MiB"),
    "drips": (servers.drips, "/metrics did not answer within 3 s"),
    "hangs": (servers.hangs, "/metrics did not answer within 3 s"),
    "a million series": (servers.says(MILLION), "answered more than 4 MiB"),
    "redirects": (redirects, "/metrics answered 302, redirects are not followed"),
    "not a number": (
        servers.says(changed("vllm:generation_tokens_total", "NaN")),
        "vllm:generation_tokens is 'NaN'",
    ),
    "negative": (
        servers.says(changed("vllm:prompt_tokens_total", "-5.0")),
        "vllm:prompt_tokens is '-5.0'",
    ),
    "renamed": (
        servers.says(without("vllm:generation_tokens_total")),
        "vLLM's page has no token counters: no vllm:generation_tokens",
    ),
}


def test_bad_exporters_are_marked_and_hold_nobody_up(world: World) -> None:
    with ExitStack() as running:
        bad = {
            name: make_node(world, name, base_url=running.enter_context(servers.serving(script)))
            for name, (script, _) in BAD.items()
        }
        good = [
            make_node(world, f"good-{n}", base_url=running.enter_context(servers.serving(
                servers.says(PAGE.replace(b"1.79545525511e+09", b"%d" % n))
            )))
            for n in range(20)
        ]  # fmt: skip
        began = time.monotonic()
        scraped = scrape_batch([node.pk for node in [*bad.values(), *good]], NOW)
        took_s = time.monotonic() - began
    assert {name: scraped[node.pk].error for name, node in bad.items()} == {
        name: words for name, (_, words) in BAD.items()
    }
    assert [scraped[node.pk].error for node in good] == [""] * 20
    assert NodeSample.objects.count() == 20
    assert took_s < 7  # one deadline of a visit, not one for each node that hangs
    for name, node in bad.items():
        node.refresh_from_db()
        assert (node.last_error, node.last_scraped_at) == (BAD[name][1], None)
    assert counted() == {"read": 20, "too_large": 3, "silent": 2, "status": 1, "unreadable": 4}


def test_an_optional_metric_that_is_no_number_costs_only_itself(world: World) -> None:
    pages = iter([PAGE, changed("vllm:prompt_tokens_cached_total", "NaN")])
    with servers.serving(lambda c, _: c.sendall(servers.answer(next(pages)))) as url:
        node = make_node(world, base_url=url, engine_version="0.32.0")
        for second in (0, 5):
            assert scrape_batch([node.pk], NOW + second * SECOND)[node.pk].error == ""
    node.refresh_from_db()
    assert (node.last_error, node.warning) == ("", "vllm:prompt_tokens_cached is 'NaN': left out")
    assert NodeSample.objects.filter(node=node).count() == 2


def test_a_certificate_that_nobody_vouches_for_is_told(world: World, tmp_path: Path) -> None:
    tls = Authority(tmp_path).server("127.0.0.1")
    with servers.serving(servers.says(PAGE), tls=tls) as url:
        node = make_node(world, base_url=url)
        error = scrape_batch([node.pk], NOW)[node.pk].error
    assert error.startswith("/metrics: its TLS certificate is not trusted: ")


def test_a_plain_server_behind_an_https_address_is_told(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_in_plain() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        answering = threading.Thread(target=answer_in_plain)
        answering.start()
        node = make_node(world, base_url=f"https://127.0.0.1:{listener.getsockname()[1]}")
        error = scrape_batch([node.pk], NOW)[node.pk].error
        answering.join(5)
    assert error.startswith("/metrics: TLS failed: ")


def test_devices_of_an_exporter_are_kept_with_its_samples(world: World) -> None:
    page = (FIXTURES / "dcgm_documented.prom").read_bytes()
    with servers.serving(servers.says(page)) as url:
        node = make_node(world, base_url=url)
        assert scrape_batch([node.pk], NOW)[node.pk].error == ""
    node.refresh_from_db()
    assert node.engine == "dcgm"
    rows = DeviceSample.objects.filter(node=node).order_by("device")
    assert [(row.device, row.power_milliwatts, row.energy_millijoules) for row in rows] == [
        ("GPU-a", 512_250, 7_340_032),
        ("GPU-b", None, None),
    ]
    forget_samples(now=NOW + SAMPLES_KEPT + SECOND)
    assert not DeviceSample.objects.exists()


# ------------------------------------------------------------------------------- counted


def counted() -> dict[str, int]:
    return dict(ReadingCount.objects.values_list("outcome", "readings"))


def late_ms() -> int:
    return ReadingCount.objects.get(outcome="read").late_ms


def test_addresses_that_lead_nowhere_are_counted_by_why(world: World, tmp_path: Path) -> None:
    nodes = [
        make_node(world, "dead", base_url=dead_address()),
        make_node(world, "metadata", base_url="http://169.254.169.254"),
        make_node(world, "no-url", base_url="http://[::1"),
    ]
    tls = Authority(tmp_path).server("127.0.0.1")
    with servers.serving(servers.closes) as url, servers.serving(servers.hangs, tls=tls) as safe:
        nodes.append(make_node(world, "closes", base_url=url))
        nodes.append(make_node(world, "untrusted", base_url=safe))
        scrape_batch([node.pk for node in nodes], NOW)
    assert counted() == {"unreachable": 3, "forbidden": 2}


def dead_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_reading_is_late_by_what_is_above_its_interval(world: World) -> None:
    with servers.serving(servers.says(PAGE)) as url:
        node = make_node(world, base_url=url, engine_version="0.32.0")
        scrape_batch([node.pk], NOW)
        assert late_ms() == 0
        ServingNode.objects.update(last_scraped_at=NOW)  # to the millisecond
        scrape_batch([node.pk], NOW + EVERY + 2 * SECOND)
        first = late_ms()
        assert 2_000 <= first < 4_000
        ServingNode.objects.update(last_error="it was away")
        scrape_batch([node.pk], NOW + 90 * SECOND)
    assert late_ms() == first
    assert counted() == {"read": 3}


def test_one_process_under_two_names_is_counted_as_read_once(world: World) -> None:
    with servers.serving(servers.says(PAGE)) as url:
        first = make_node(world, "first", base_url=url)
        alias = url.replace("127.0.0.1", "localhost")
        second = make_node(world, "second", base_url=alias, created_at=NOW + SECOND)
        third = make_node(world, "third", base_url=url, created_at=NOW + SECOND)
        scrape_batch([first.pk, second.pk, third.pk], NOW)
    assert counted() == {"read": 1, "counted_elsewhere": 2}


# ------------------------------------------------------------------------------- one process twice


def test_two_nodes_of_one_address_are_counted_once(world: World) -> None:
    with servers.serving(servers.says(PAGE)) as url:
        first = make_node(world, "first", base_url=url)
        second = make_node(world, "second", base_url=url, created_at=NOW + SECOND)
        scraped = scrape_batch([first.pk, second.pk], NOW + 5 * SECOND)
    assert scraped[first.pk].error == ""
    assert scraped[second.pk].error == "the same address as node 'first': counted there only"
    assert set(NodeSample.objects.values_list("node", flat=True)) == {first.pk}


def test_one_process_under_two_names_is_counted_once(world: World) -> None:
    with servers.serving(servers.says(PAGE)) as url:
        first = make_node(world, "first", base_url=url)
        alias = url.replace("127.0.0.1", "localhost")
        second = make_node(world, "second", base_url=alias, created_at=NOW + SECOND)
        for at in (NOW + 5 * SECOND, NOW + 10 * SECOND):
            scraped = scrape_batch([first.pk, second.pk], at)
            assert (
                scraped[second.pk].error == "the same process as node 'first': counted there only"
            )
    assert NodeSample.objects.filter(node=first).count() == 2
    assert not NodeSample.objects.filter(node=second).exists()


# ------------------------------------------------------------------------------- clocks


def test_totals_read_after_the_clock_was_set_back_are_booked_and_marked(node: ServingNode) -> None:
    read(node, 100, at=NOW)
    sample = read(node, 130, at=NOW - timedelta(hours=1))
    assert sample is not None
    assert sample.at == NOW + timedelta(microseconds=1)
    assert hours(node) == [(10, Tokens(60, 30, 30), True)]
    node.refresh_from_db()
    assert node.warning == "the clock went back by 1:00:00"
    assert node.last_scraped_at == NOW - timedelta(hours=1)


def test_a_node_that_was_read_in_the_future_is_due(world: World) -> None:
    node = make_node(world, last_scraped_at=NOW + timedelta(hours=1))
    assert due_nodes(now=NOW) == [node.pk]


def test_a_node_is_read_on_while_the_clock_catches_up(world: World) -> None:
    with servers.serving(servers.says(PAGE)) as url:
        node = make_node(world, base_url=url, engine_version="0.32.0")
        for at in (NOW, NOW - timedelta(hours=1), NOW - timedelta(hours=1) + 5 * SECOND):
            assert scrape_batch([node.pk], at)[node.pk].sample is not None
    assert NodeSample.objects.filter(node=node).count() == 3
