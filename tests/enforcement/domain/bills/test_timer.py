"""Bills that are asked for once a day: when, how often at most, and what is seen of failures."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from enforcement.domain.bills.fetching import SOURCES, fetch_bill
from enforcement.domain.bills.timer import UNENDED, fetch_due
from enforcement.errors import BillError
from enforcement.models import BillAccount, BillLine
from enforcement.rules.billplan import PROVIDERS, BillPlan
from tests.budgets.world import NOW, World, make_world
from tests.enforcement.domain.bills.pages import DAY
from tests.enforcement.domain.bills.test_fetching import KEY, Provider, provider

MINUTE = timedelta(minutes=1)


@pytest.fixture
def url(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A provider that answers, named as the only account, with its key."""
    monkeypatch.setenv("COMPTROLLER_OPENAI_ADMIN_KEY", KEY)
    with provider() as address:
        settings.BILLS = (BillPlan("openai", base_url=address),)
        yield address


def only() -> BillAccount:
    return BillAccount.objects.get()


def test_every_provider_that_can_be_asked_may_be_named() -> None:
    assert set(PROVIDERS) == set(SOURCES)


def test_a_bill_is_asked_for_once_a_day(world: World, url: str) -> None:
    assert fetch_due(now=NOW) is not None
    row = only()
    assert (row.state, row.attempts, row.error, row.succeeded_at) == ("current", 0, "", NOW)
    assert DAY + timedelta(days=1, hours=1) <= row.due_at < DAY + timedelta(days=1, hours=3)
    line = BillLine.objects.filter(kind="usage").order_by("starts_at").first()
    assert line is not None
    assert (line.starts_at, line.source, line.account) == (DAY - timedelta(days=3), url, "")
    asked = len(Provider.asked)
    assert fetch_due(now=NOW + timedelta(hours=8)) is None
    assert len(Provider.asked) == asked
    assert fetch_due(now=NOW + timedelta(days=1)) is not None
    assert only().succeeded_at == NOW + timedelta(days=1)


def test_a_failure_is_told_and_comes_again_later_each_time(
    world: World, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPTROLLER_OPENAI_ADMIN_KEY", "wrong")
    fetch_due(now=NOW)
    row = only()
    assert (row.state, row.attempts, row.due_at) == ("failing", 1, NOW + 15 * MINUTE)
    assert "answered 401" in row.error
    assert KEY not in row.error
    assert fetch_due(now=NOW + 14 * MINUTE) is None
    fetch_due(now=NOW + 15 * MINUTE)
    assert (only().attempts, only().due_at) == (2, NOW + 45 * MINUTE)
    monkeypatch.setenv("COMPTROLLER_OPENAI_ADMIN_KEY", KEY)
    fetch_due(now=NOW + 45 * MINUTE)
    assert (only().state, only().attempts, only().error) == ("current", 0, "")


def test_a_key_that_is_missing_is_named(
    world: World, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COMPTROLLER_OPENAI_ADMIN_KEY")
    fetch_due(now=NOW)
    assert only().error == "COMPTROLLER_OPENAI_ADMIN_KEY is not set"
    monkeypatch.setenv("COMPTROLLER_OPENAI_ADMIN_KEY_FILE", "/nowhere")
    fetch_due(now=NOW + 15 * MINUTE)
    assert "COMPTROLLER_OPENAI_ADMIN_KEY_FILE cannot be read" in only().error


def test_one_account_does_not_hold_up_another(world: World, url: str, settings: Any) -> None:
    settings.BILLS = (BillPlan("anthropic", "research"), *settings.BILLS)
    tried = {str(fetch_due(now=NOW)), str(fetch_due(now=NOW))}
    assert tried == {"openai", "anthropic/research"}
    states = {row.provider: row.state for row in BillAccount.objects.all()}
    assert states == {"openai": "current", "anthropic": "failing"}
    assert fetch_due(now=NOW) is None


def test_an_account_without_use_has_told_its_bill(
    world: World, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = {"object": "page", "data": [], "has_more": False, "next_page": None}
    monkeypatch.setattr(Provider, "_openai", lambda *_: empty)
    fetch_due(now=NOW)
    assert (only().state, BillLine.objects.count()) == ("current", 0)


def test_who_is_named_no_more_is_forgotten(world: World, url: str, settings: Any) -> None:
    fetch_due(now=NOW)
    settings.BILLS = ()
    assert fetch_due(now=NOW + timedelta(days=1)) is None
    assert BillAccount.objects.count() == 0
    assert BillLine.objects.count() > 0


def test_an_organization_must_be_named_where_there_are_several(
    world: World, url: str, settings: Any
) -> None:
    other = make_world("other")
    with pytest.raises(BillError, match="COMPTROLLER_BILLS_ORGANIZATION"):
        fetch_due(now=NOW)
    settings.BILLS_ORGANIZATION = "other"
    fetch_due(now=NOW)
    assert only().organization_id == other.id


@pytest.mark.django_db(transaction=True)
def test_of_several_workers_one_asks(url: str) -> None:
    make_world()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: _apart(), range(4)))
    assert [str(row) for row in found if row] == ["openai"]
    completions = [asked for asked in Provider.asked if "completions" in asked]
    assert len(completions) == 3  # its three pages, once


@contextmanager
def trickle() -> Iterator[str]:
    """A provider that accepts, and then sends a byte now and then for as long as one listens."""
    ended = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.1)

    def serve() -> None:
        while not ended.is_set():
            try:
                peer, _ = server.accept()
            except TimeoutError:
                continue
            with peer:
                peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
                while not ended.wait(0.05):
                    try:
                        peer.sendall(b" ")
                    except OSError:
                        break

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        ended.set()
        thread.join(5)
        server.close()


@pytest.mark.django_db(transaction=True)
def test_an_attempt_counts_before_it_ends(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """So whoever is killed in it is followed by a pause, not by the next tick."""
    make_world()
    monkeypatch.setenv("COMPTROLLER_OPENAI_ADMIN_KEY", KEY)
    with trickle() as address, ThreadPoolExecutor(1) as pool:
        settings.BILLS = (BillPlan("openai", base_url=address),)
        running = pool.submit(_apart)
        for _ in range(200):
            if BillAccount.objects.filter(attempts=1).exists():
                break
            time.sleep(0.02)
        assert (only().error, only().due_at) == (UNENDED, NOW + 15 * MINUTE)
        assert fetch_due(now=NOW + MINUTE) is None
        assert not running.done()


def _apart() -> BillAccount | None:
    """In another thread, with its own connection to the database."""
    try:
        return fetch_due(now=NOW)
    finally:
        connection.close()


def test_a_provider_that_dribbles_has_its_time_and_no_more() -> None:
    began = time.monotonic()
    with trickle() as address, pytest.raises(BillError, match="did not answer within 0"):
        fetch_bill(
            SOURCES["openai"], key=KEY, since=DAY, until=DAY, base_url=address, longest_s=0.5
        )
    assert time.monotonic() - began < 3


def test_pages_without_end_have_the_time_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    page = {"object": "page", "data": [], "has_more": True, "next_page": "page_1"}
    monkeypatch.setattr(Provider, "_openai", lambda *_: page)
    with (
        provider() as address,
        pytest.raises(BillError, match=r"not read to its end|did not answer"),
    ):
        fetch_bill(
            SOURCES["openai"], key=KEY, since=DAY, until=DAY, base_url=address, longest_s=0.3
        )
