"""Leases that run out: suspense, late words, renewal. Lifetimes are short here."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from budgets.models import Budget, Lease, Transfer
from enforcement.rules.wire import DenialCause
from tests.enforcement.stack import Peer, Site, counters, now, web
from tests.enforcement.test_leasing import granted, use

TTL_MS = 500
GRACE_S = 1.0


@pytest.fixture
def url(site: Site) -> Iterator[str]:
    with web(lease_ttl_ms=TTL_MS) as address:
        yield address


@pytest.fixture
def budget(site: Site, peer: Peer) -> Budget:
    budget = site.budget(100)
    peer.learn(site)
    return budget


def eventually(holds: Callable[[], bool], *, within_s: float = 8.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def kinds_of(lease: str) -> list[tuple[str, int]]:
    rows = Transfer.objects.filter(lease_id=lease).order_by("id")
    return [(row.kind, row.amount) for row in rows]


def test_an_expired_lease_counts_against_the_limit_until_its_spool_speaks(
    url: str, site: Site, peer: Peer, budget: Budget
) -> None:
    lease = granted(peer, site, budget, 80)
    eventually(lambda: counters(budget) == (0, 0, 80, 0))
    assert Lease.objects.get(pk=lease).state == "suspended"
    other = Peer(url, site.token)
    other.hello()
    key = other.ask(str(site.agent.id), str(budget.id), need=30, floor=21)
    denial = other.sync().denied[key]
    assert (denial.cause, denial.suspense, denial.free) == (DenialCause.SUSPENSE, 80, 20)
    peer.sync()
    assert counters(budget) == (0, 0, 0, 0)
    assert kinds_of(lease) == [("grant", 80), ("expire", 80), ("late_release", 80)]


def test_use_that_is_told_late_is_settled_out_of_suspense(
    site: Site, peer: Peer, budget: Budget
) -> None:
    lease = granted(peer, site, budget, 80)
    use(peer, budget, 60, 45)
    eventually(lambda: counters(budget) == (0, 0, 80, 0))
    peer.book.lots.close()
    peer.sync()
    assert counters(budget) == (45, 0, 0, 0)
    assert Lease.objects.get(pk=lease).state == "settled"
    assert kinds_of(lease) == [
        ("grant", 80),
        ("expire", 80),
        ("late_settle", 45),
        ("late_release", 35),
    ]


def test_a_lease_in_use_is_renewed_and_does_not_expire(
    site: Site, peer: Peer, budget: Budget
) -> None:
    lease = granted(peer, site, budget, 20)
    first = Lease.objects.get(pk=lease).expires_at
    ends_at = time.monotonic() + TTL_MS / 1000 + GRACE_S + 1.5
    while time.monotonic() < ends_at:
        peer.book.lots.by_lease[lease].last_use_ns = time.monotonic_ns()
        peer.sync()
        time.sleep(0.05)
    assert counters(budget) == (0, 20, 0, 0)
    assert Lease.objects.get(pk=lease).expires_at > first


def test_a_dead_book_is_asked_for_what_it_left_behind(
    url: str, site: Site, peer: Peer, budget: Budget
) -> None:
    granted(peer, site, budget, 80)
    eventually(lambda: counters(budget) == (0, 0, 80, 0))
    reborn = Peer(url, site.token, spool=peer.book.spool)
    (owed,) = reborn.hello().unknown
    assert (owed.amount, owed.used, owed.returned) == (80, 0, 0)
    reborn.sync()
    assert counters(budget) == (0, 0, 0, 0)


def test_a_clock_that_stepped_back_strands_no_lease(site: Site, peer: Peer, budget: Budget) -> None:
    lease = granted(peer, site, budget, 80)
    Lease.objects.filter(pk=lease).update(expires_at=now() + timedelta(hours=1))
    eventually(lambda: Lease.objects.get(pk=lease).state == "suspended")
    peer.book.lots.close()
    peer.sync()
    assert counters(budget) == (0, 0, 0, 0)
