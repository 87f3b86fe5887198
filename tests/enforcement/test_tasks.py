"""The whole way: beat, broker, worker, node, row. Real processes, a real Valkey, a real HTTP node."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlencode

import pytest
from django.db import connection

from controlplane.celery import app
from enforcement.domain.gather import EVERY, SLACK
from enforcement.enums import NodeState
from enforcement.models import NodeSample, NodeUsage, ServingNode
from enforcement.tasks import scrape_nodes
from tests.budgets.world import World, make_world
from tests.collectors import servers
from tests.enforcement.domain.nodes import make_node
from tests.enforcement.stack import now

WITHIN_S = 45


class Counting:
    """A llama.cpp that makes ten tokens between two visits."""

    def __init__(self) -> None:
        self.visits = 0

    def __call__(self, connection: socket.socket, head: bytes) -> None:
        if head.startswith(b"GET /props"):
            connection.sendall(servers.answer(b'{"build_info":"b11434"}'))
            return
        self.visits += 1
        page = (
            f"llamacpp:prompt_tokens_total {100 * self.visits}\n"
            f"llamacpp:tokens_predicted_total {10 * self.visits}\n"
        )
        connection.sendall(servers.answer(page.encode()))


@pytest.fixture
def world(transactional_db: None) -> World:
    return make_world()


@pytest.fixture
def engine() -> Iterator[tuple[Counting, str]]:
    counting = Counting()
    with servers.serving(counting) as url:
        yield counting, url


@pytest.fixture
def worker(world: World, valkey_url: str, tmp_path: Path) -> Iterator[Path]:
    """Celery with its beat, as the launcher starts it; yields its log."""
    log = tmp_path / "worker.log"
    command = [sys.executable, "-m", "celery", "-A", "controlplane.celery:app", "worker", "--beat"]
    command += ["--schedule", str(tmp_path / "schedule"), "--concurrency", "1"]
    command += ["--loglevel", "WARNING", "--without-mingle", "--without-gossip"]
    settings = connection.settings_dict
    place = urlencode({"host": settings["HOST"]})
    database = f"postgresql://{settings['USER']}@/{settings['NAME']}?{place}"
    environment = os.environ | {"DATABASE_URL": database, "BROKER_URL": valkey_url}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        yield log
        process.terminate()
        process.wait(30)


def wait_for(condition: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def test_beat_sends_the_worker_to_every_node_again_and_again(
    world: World, engine: tuple[Counting, str], worker: Path
) -> None:
    counting, url = engine
    good = make_node(world, "good", base_url=url, created_at=now())
    dead = make_node(world, "dead", created_at=now())
    wait_for(lambda: NodeSample.objects.filter(node=good).count() >= 2, worker)
    wait_for(lambda: not ServingNode.objects.filter(pk=dead.pk, last_error="").exists(), worker)

    usage = NodeUsage.objects.filter(node=good)
    samples = list(NodeSample.objects.filter(node=good).order_by("at"))
    made = 10 * (len(samples) - 1)
    assert sum(row.generation_tokens for row in usage) >= made
    assert [sample.generation_tokens_total for sample in samples] == [
        10 * (number + 1) for number in range(len(samples))
    ]
    good.refresh_from_db()
    dead.refresh_from_db()
    assert (good.engine, good.engine_version, good.last_error) == ("llama.cpp", "b11434", "")
    assert dead.last_error == "/metrics: Connection refused"
    assert counting.visits >= len(samples)


def test_a_visit_that_is_asked_for_ten_times_books_once(
    world: World, engine: tuple[Counting, str], worker: Path, valkey_url: str
) -> None:
    counting, url = engine
    node = make_node(world, "good", base_url=url, created_at=now())
    wait_for(lambda: NodeSample.objects.filter(node=node).exists(), worker)
    with app.connection_for_write(valkey_url) as broker:
        for _ in range(10):
            scrape_nodes.apply_async(kwargs={"node_ids": [str(node.pk)]}, connection=broker)
    wait_for(lambda: NodeSample.objects.filter(node=node).count() >= 3, worker)
    ServingNode.objects.filter(pk=node.pk).update(state=NodeState.GONE)
    time.sleep(1)  # a visit that has begun ends

    samples = list(NodeSample.objects.filter(node=node).order_by("at"))
    assert all(after.at - before.at >= EVERY - SLACK for before, after in pairwise(samples))
    assert len(samples) == counting.visits
    made = samples[-1].generation_tokens_total - samples[0].generation_tokens_total
    assert sum(row.generation_tokens for row in NodeUsage.objects.filter(node=node)) == made
