"""What the lease service does when its database is slow, locked, gone or not to be trusted."""

import asyncio
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest
from django.db import connection, transaction

from budgets.models import Balance, Lease
from enforcement.errors import UnsafeDatabaseError
from enforcement.leasing import service as services
from enforcement.leasing.service import LeaseService, _conninfo
from tests.enforcement.stack import HttpError, Peer, Site, Watch, counters, make_site
from tests.enforcement.test_leasing import granted


@pytest.fixture
def administrator(site: Site) -> Iterator[psycopg.Connection]:
    with psycopg.connect(_conninfo(), autocommit=True) as connected:
        yield connected


def cut_all(administrator: psycopg.Connection) -> None:
    """End every session of the lease service but this one, as a restart of PostgreSQL would."""
    administrator.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'comptroller-leases' AND pid <> pg_backend_pid()"
        " AND datname = current_database()"  # other tests have theirs in this server
    )


def test_a_dead_connection_is_replaced_unnoticed(
    site: Site, peer: Peer, administrator: psycopg.Connection
) -> None:
    budget = site.budget(1_000)
    peer.learn(site)
    cut_all(administrator)
    assert granted(peer, site, budget, 100)
    assert counters(budget) == (0, 100, 0, 0)


def test_hints_come_again_after_the_listener_lost_its_connection(
    site: Site, peer: Peer, administrator: psycopg.Connection
) -> None:
    hinted = threading.Event()
    watch = Watch(peer, hinted.set)
    assert hinted.wait(5)
    cut_all(administrator)
    time.sleep(1.0)  # it connects again, and hints everybody
    hinted.clear()
    site.budget(1_000)
    assert hinted.wait(5)
    watch.close()


def test_locked_rows_hold_up_nobody_else(url: str, site: Site, peer: Peer) -> None:
    budget = site.budget(1_000)
    peer.learn(site)
    granted(peer, site, budget, 10)
    rival = make_site("rival")
    rivals_budget = rival.budget(1_000)
    other = Peer(url, rival.token)
    other.hello()
    refused: list[HttpError] = []

    def ask() -> None:
        peer.ask(str(site.agent.id), str(budget.id), need=10)
        try:
            peer.sync()
        except HttpError as error:
            refused.append(error)

    with transaction.atomic():
        Balance.objects.select_for_update().get(budget=budget)
        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(0.1)
        began = time.monotonic()
        assert granted(other, rival, rivals_budget, 10)
        assert time.monotonic() - began < 3
        asking.join(10)
    (error,) = refused
    assert (error.status, error.problem["type"]) == (503, "urn:comptroller:problem:busy")
    peer.book.on_sync_failed(peer.book.sequence)
    assert list(peer.sync().granted)
    assert Lease.objects.filter(balance__budget=budget).count() == 2


def test_grants_are_durable_whatever_the_database_is_set_to(site: Site) -> None:
    name = connection.settings_dict["NAME"]
    with connection.cursor() as cursor:
        cursor.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    try:
        assert asyncio.run(setting("synchronous_commit")) == "on"
        assert asyncio.run(setting("transaction_isolation")) == "read committed"
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f'ALTER DATABASE "{name}" RESET synchronous_commit')


async def setting(name: str) -> str:
    """What a connection of the running service says of a setting."""
    service = LeaseService()
    await service.start()
    try:
        async with service._pool.connection() as connected:
            row = await (await connected.execute(f"SHOW {name}")).fetchone()
            assert row is not None
            return str(row[0])
    finally:
        await service.stop()


def test_a_database_that_may_lose_grants_is_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "THROWAWAY", frozenset())  # the test cluster runs without fsync
    with pytest.raises(UnsafeDatabaseError, match=r"PostgreSQL runs with f.*=off"):
        asyncio.run(setting("fsync"))
