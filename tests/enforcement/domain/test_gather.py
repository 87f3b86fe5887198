"""From totals to hours: deltas, restarts, gaps, late readings, and nodes that misbehave."""

import socket
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from django.db import connection
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from enforcement.domain.activity import measure_activity
from enforcement.domain.gather import (
    SAMPLES_KEPT,
    Tokens,
    due_nodes,
    forget_samples,
    spread,
)
from enforcement.domain.scraping import Scraped, scrape_batch
from enforcement.enums import NodeState
from enforcement.models import NodeSample, NodeUsage, ServingNode
from tests.budgets.world import NOW, World
from tests.collectors import servers
from tests.enforcement.domain.nodes import hours, make_node, read

SECOND = timedelta(seconds=1)
PAGE = (Path(__file__).parents[2] / "collectors" / "fixtures" / "llamacpp.prom").read_bytes()


# ------------------------------------------------------------------------------- booking


def test_the_first_reading_is_the_point_to_count_from(node: ServingNode) -> None:
    sample = read(node, 1000, at=NOW)
    assert sample is not None
    assert (sample.epoch, sample.generation_tokens_total) == (1, 1000)
    assert hours(node) == []


def test_an_engine_that_began_after_its_node_was_entered_counts_from_zero(
    node: ServingNode,
) -> None:
    began = Decimal(str((NOW + SECOND).timestamp()))
    read(node, 30, at=NOW + 2 * SECOND, started_at=began)
    assert hours(node) == [(10, Tokens(60, 30, 30), False)]


def test_an_engine_that_ran_before_does_not(node: ServingNode) -> None:
    read(node, 30, at=NOW + SECOND, started_at=Decimal(str((NOW - SECOND).timestamp())))
    assert hours(node) == []


def test_later_readings_book_what_was_made_between(node: ServingNode) -> None:
    for second, total in ((0, 1000), (5, 1010), (10, 1010), (15, 1025)):
        read(node, total, at=NOW + second * SECOND)
    assert hours(node) == [(10, Tokens(50, 25, 25), False)]
    node.refresh_from_db()
    assert node.last_scraped_at == NOW + 15 * SECOND
    assert (node.engine, node.last_error) == ("vllm", "")


def test_a_fallen_total_begins_a_new_epoch_and_marks_the_hour(node: ServingNode) -> None:
    read(node, 1000, at=NOW)
    sample = read(node, 7, at=NOW + 5 * SECOND)
    assert sample is not None
    assert sample.epoch == 2
    assert hours(node) == [(10, Tokens(14, 7, 7), True)]
    read(node, 9, at=NOW + 10 * SECOND)
    assert hours(node) == [(10, Tokens(18, 9, 9), True)]


def test_another_life_is_seen_even_when_its_totals_are_higher(node: ServingNode) -> None:
    read(node, 1000, at=NOW, life="12")
    sample = read(node, 1500, at=NOW + 5 * SECOND, life="34")
    assert sample is not None
    assert (sample.epoch, sample.extra) == (2, {"life": "34"})
    assert hours(node) == [(10, Tokens(3000, 1500, 1500), True)]


def test_a_life_that_is_told_only_now_is_no_restart(node: ServingNode) -> None:
    read(node, 1000, at=NOW)
    sample = read(node, 1001, at=NOW + 5 * SECOND, life="34")
    assert sample is not None
    assert sample.epoch == 1


def test_a_cached_total_that_falls_alone_costs_nothing(node: ServingNode) -> None:
    read(node, 10, at=NOW, cached_tokens=8)
    read(node, 11, at=NOW + SECOND, cached_tokens=5)
    assert hours(node) == [(10, Tokens(2, 0, 1), False)]


def test_a_late_reading_is_left_out(node: ServingNode) -> None:
    read(node, 1000, at=NOW)
    read(node, 1010, at=NOW + 5 * SECOND)
    assert read(node, 1005, at=NOW + 4 * SECOND) is None
    assert read(node, 1010, at=NOW + 5 * SECOND) is None
    assert NodeSample.objects.count() == 2
    assert hours(node) == [(10, Tokens(20, 10, 10), False)]


def test_a_reading_over_the_full_hour_is_divided_by_time(node: ServingNode) -> None:
    full = NOW.replace(hour=11, minute=0)
    read(node, 0, at=full - 2 * SECOND)
    read(node, 10, at=full + 3 * SECOND)
    assert hours(node) == [(10, Tokens(8, 4, 4), False), (11, Tokens(12, 6, 6), False)]


def test_a_long_silence_loses_nothing_but_its_hours_are_marked(node: ServingNode) -> None:
    read(node, 0, at=NOW)
    read(node, 300, at=NOW + timedelta(hours=1, minutes=30))
    assert hours(node) == [(10, Tokens(200, 100, 100), True), (11, Tokens(400, 200, 200), True)]


@given(
    st.tuples(*[st.integers(0, 10**9)] * 3),
    st.datetimes(timezones=st.just(NOW.tzinfo)),
    st.timedeltas(min_value=timedelta(microseconds=1), max_value=timedelta(days=3)),
)
def test_divided_parts_always_sum_to_the_whole(
    made: tuple[int, int, int], start: datetime, lasting: timedelta
) -> None:
    try:
        end = start + lasting
        parts = spread(Tokens(*made), start=start, end=end)
    except OverflowError:  # the last days that a date can say
        return
    assert tuple(map(sum, zip(*(part for _, part in parts), strict=True))) == made
    assert all(amount >= 0 for _, part in parts for amount in part)
    assert [hour for hour, _ in parts] == sorted({hour for hour, _ in parts})
    assert parts[0][0] <= start < end <= parts[-1][0] + timedelta(hours=1)


# ------------------------------------------------------------------------------- visits


def visit(node_id: UUID, *, at: datetime) -> Scraped:
    return scrape_batch([node_id], at)[node_id]


def test_a_visit_reads_the_page_and_learns_the_version(world: World) -> None:
    def script(connection: socket.socket, head: bytes) -> None:
        body = b'{"build_info":"b11434"}' if head.startswith(b"GET /props") else PAGE
        connection.sendall(servers.answer(body, headers="Process-Start-Time-Unix: 12099056185\r\n"))

    with servers.serving(script) as url:
        node = make_node(world, base_url=url, last_error="was broken")
        visited = visit(node.pk, at=NOW)
    assert visited.sample is not None
    assert visited.sample.prompt_tokens_total == 79
    assert visited.sample.extra["life"] == "12099056185"
    node.refresh_from_db()
    assert (node.engine, node.engine_version, node.last_error) == ("llama.cpp", "b11434", "")


def test_an_engine_that_was_replaced_is_asked_for_its_version_anew(world: World) -> None:
    running = {"life": "1", "version": "b1"}

    def script(connection: socket.socket, head: bytes) -> None:
        asked = head.startswith(b"GET /props")
        body = f'{{"build_info":"{running["version"]}"}}'.encode() if asked else PAGE
        headers = f"Process-Start-Time-Unix: {running['life']}\r\n"
        connection.sendall(servers.answer(body, headers=headers))

    told = []
    with servers.serving(script) as url:
        node = make_node(world, base_url=url)
        for turn in range(4):
            if turn == 2:
                running.update(life="2", version="b2")
            visit(node.pk, at=NOW + turn * timedelta(seconds=5))
            node.refresh_from_db()
            told.append(node.engine_version)
    assert told == ["b1", "b1", "", "b2"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (servers.says(b"<html>login</html>"), "answered a document, not metrics"),
        (servers.says(b"", status="503 Busy"), "/metrics answered 503"),
        (servers.pours, "answered more than 4 MiB"),
        (servers.closes, "/metrics: hung up before it answered"),
        (servers.says(b"\xff\xfe\n"), "not metrics: '��'"),
    ],
    ids=["html", "503", "endless", "closes", "bytes"],
)
def test_a_node_that_misbehaves_gets_its_last_error_and_keeps_its_history(
    world: World, script: servers.Script, words: str
) -> None:
    with servers.serving(script) as url:
        node = make_node(world, base_url=url)
        read(node, 5, at=NOW)
        visited = visit(node.pk, at=NOW + 5 * SECOND)
    assert (visited.sample, visited.error) == (None, words)
    node.refresh_from_db()
    assert node.last_error == words
    assert node.last_scraped_at == NOW
    assert NodeSample.objects.count() == 1


def test_two_visits_at_once_are_one(world: World) -> None:
    node = make_node(world)
    settings = connection.get_connection_params()
    names = ("dbname", "user", "password", "host", "port")
    key = int.from_bytes(node.pk.bytes[-4:], "big", signed=True)
    with psycopg.connect(
        **{name: settings[name] for name in names if settings.get(name)}, autocommit=True
    ) as other:
        other.execute("SELECT pg_advisory_lock(%s, %s)", [0x6E6F6465, key])
        assert visit(node.pk, at=NOW).busy
        other.execute("SELECT pg_advisory_unlock(%s, %s)", [0x6E6F6465, key])
    node.refresh_from_db()
    assert node.last_error == ""
    assert visit(node.pk, at=NOW).error == "/metrics: Connection refused"


def test_a_visit_that_is_asked_for_twice_is_made_once(world: World) -> None:
    visits: list[bytes] = []

    def script(connection: socket.socket, head: bytes) -> None:
        visits.append(head)
        connection.sendall(servers.answer(PAGE))

    with servers.serving(script) as url:
        node = make_node(world, base_url=url, engine_version="b1")
        first = visit(node.pk, at=NOW)
        again = visit(node.pk, at=NOW + timedelta(milliseconds=300))
    assert (first.busy, again.busy, again.sample, len(visits)) == (False, True, None, 1)
    assert NodeSample.objects.count() == 1


def test_an_ollama_is_read_for_what_it_keeps_loaded_and_never_called_idle(world: World) -> None:
    pages = {
        b"/api/ps": b'{"models":[{"name":"llama3","size":900,"size_vram":700}]}',
        b"/api/version": b'{"version":"0.30.1"}',
    }

    def script(connection: socket.socket, head: bytes) -> None:
        connection.sendall(servers.answer(pages[head.split(b" ")[1]]))

    with servers.serving(script) as url:
        node = make_node(world, base_url=url, metrics_path="/api/ps")
        for seconds in (0, 15, 30):
            visited = visit(node.pk, at=NOW + seconds * SECOND)
            assert (visited.error, visited.busy) == ("", False)
    node.refresh_from_db()
    assert (node.engine, node.engine_version, node.last_error) == ("ollama", "0.30.1", "")
    last = NodeSample.objects.latest("at")
    assert last.extra == {"loaded_models": 1, "loaded_bytes": 900, "accelerator_bytes": 700}
    assert hours(node) == []
    assert measure_activity(now=NOW + 60 * SECOND) == 0
    ServingNode.objects.filter(pk=node.pk).update(engine="vllm")
    assert measure_activity(now=NOW + 60 * SECOND) == 1  # so the readings would do


def test_a_node_that_is_gone_or_unknown_is_not_visited(world: World) -> None:
    node = make_node(world, state=NodeState.GONE)
    for node_id in (node.pk, world.id):
        visited = visit(node_id, at=NOW)
        assert (visited.sample, visited.error, visited.busy) == (None, "", False)


def test_nodes_are_due_every_five_seconds_while_they_have_counters(world: World) -> None:
    now = timezone.now()
    make_node(world, "gone", state=NodeState.GONE)
    make_node(world, "blind", metrics_path="")
    make_node(world, "fresh", last_scraped_at=now - SECOND)
    due = {
        make_node(world, "new").pk,
        make_node(world, "stale", last_scraped_at=now - 5 * SECOND).pk,
        make_node(world, "draining", state=NodeState.DRAINING).pk,
        make_node(world, "failing", last_error="x", last_scraped_at=now - 60 * SECOND).pk,
    }
    assert set(due_nodes(now=now)) == due


def test_nodes_that_answer_go_before_those_that_fail(world: World) -> None:
    failing = make_node(world, "failing", last_error="x", last_scraped_at=NOW - 10 * SECOND)
    good = make_node(world, "good", last_scraped_at=NOW - 10 * SECOND)
    assert due_nodes(now=NOW) == [good.pk, failing.pk]


@pytest.mark.parametrize("scraped", [True, False])
def test_a_node_that_is_silent_for_long_gets_every_sixth_tick(world: World, scraped: bool) -> None:
    heard_at = NOW - timedelta(hours=1)
    last = heard_at if scraped else None
    node = make_node(world, created_at=heard_at, last_scraped_at=last, last_error="x")
    found = [due_nodes(now=NOW + 5 * tick * SECOND) == [node.pk] for tick in range(12)]
    assert found.count(True) == 2
    assert found[:6] == found[6:]


def test_old_samples_are_forgotten_but_not_the_first_and_the_last(world: World) -> None:
    node, other = make_node(world, "a"), make_node(world, "b")
    for day in range(4):
        read(node, day, at=NOW + timedelta(days=day))
    read(other, 5, at=NOW)
    assert forget_samples(now=NOW + SAMPLES_KEPT + timedelta(days=9)) == 2
    kept = NodeSample.objects.filter(node=node).order_by("at").values_list("at", flat=True)
    assert list(kept) == [NOW, NOW + timedelta(days=3)]
    assert NodeSample.objects.filter(node=other).count() == 1
    assert NodeUsage.objects.filter(node=node).exists()
