"""Two lease services on one database: neither knows of the other, the ledger holds all the same.

The first test runs whole processes; the others two services with loops and pools of their own,
which share no state either and start at once.
"""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle

import pytest

from budgets.domain.verify import verify
from budgets.models import Balance, Budget, Lease
from enforcement.rules.policy import Per
from enforcement.rules.wire import DenialCause
from tests.enforcement.stack import Peer, Site, Watch, counters, web, web_processes
from tests.enforcement.test_leasing import granted

KEY = "3f0e7f0a-1111-4a4a-9c9c-222222222222"


@pytest.fixture
def urls(site: Site) -> Iterator[list[str]]:
    with web() as one, web() as other:
        yield [one, other]


@pytest.fixture
def peers(urls: list[str], site: Site) -> list[Peer]:
    return make_peers(urls, site)


def make_peers(urls: list[str], site: Site) -> list[Peer]:
    """Eight books, every other one at the same process."""
    places = cycle(urls)
    peers = [Peer(next(places), site.token) for _ in range(8)]
    for peer in peers:
        peer.hello()
    return peers


def at_once(*works: Callable[[], object]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def check_the_ledger(budget: Budget) -> None:
    report = verify(organization_id=budget.organization_id)
    assert report.differences == []
    for balance in Balance.objects.filter(budget=budget):
        assert balance.committed_amount <= budget.limit_amount


def test_two_processes_never_lend_more_than_the_limit(site: Site) -> None:
    budget = site.budget(1_000)

    def grab(peer: Peer) -> None:
        for _ in range(6):
            peer.ask(str(site.agent.id), str(budget.id), need=30)
            peer.sync()

    with web_processes(2) as urls:
        peers = make_peers(urls, site)
        for peer in peers:
            peer.learn(site)
        at_once(*[partial(grab, peer) for peer in peers])
    check_the_ledger(budget)
    assert sum(Lease.objects.values_list("amount", flat=True)) >= 960


def test_what_a_book_of_the_other_process_holds_is_recalled(site: Site, peers: list[Peer]) -> None:
    budget = site.budget(100)
    holder, asker = peers[:2]
    holder.learn(site)
    asker.learn(site)
    granted(holder, site, budget, 90)
    one_at_a_time = threading.Lock()

    def hinted() -> None:
        with one_at_a_time:
            holder.sync()
            holder.sync()  # sends home what the first answer recalled

    watch = Watch(holder, hinted)
    key = asker.ask(str(site.agent.id), str(budget.id), need=50, wait_ms=1_900)
    outcome = asker.sync()
    watch.close()
    assert list(outcome.granted) == [key]
    assert counters(budget) == (0, 50, 0, 0)
    check_the_ledger(budget)


def test_a_group_asked_at_both_is_granted_once(
    urls: list[str], site: Site, peers: list[Peer]
) -> None:
    budget = site.budget(1_000)
    peer, twin = peers[0], Peer(urls[1], site.token, spool=peers[0].book.spool, boot=peers[0].boot)
    twin.hello()
    peer.learn(site)
    twin.learn(site)
    leases: list[list[str]] = []

    def ask(one: Peer) -> None:
        one.ask(str(site.agent.id), str(budget.id), need=100, key=KEY)
        leases.extend(one.sync().granted.values())

    at_once(lambda: ask(peer), lambda: ask(twin))
    assert len(leases) == 2
    assert leases[0] == leases[1]
    assert counters(budget) == (0, 100, 0, 0)
    check_the_ledger(budget)


def test_a_split_stays_within_its_values(site: Site, peers: list[Peer]) -> None:
    site.budget(10_000)
    budget = site.budget(1_000, name="each session", per=Per.SESSION, max_values=5)
    for peer in peers:
        peer.learn(site)
    causes: list[DenialCause] = []

    def ask(peer: Peer, number: int) -> None:
        session = f"s{number}"
        peer.ask(str(site.agent.id), str(budget.id), need=1, value=session, session=session)
        causes.extend(denial.cause for denial in peer.sync().denied.values())

    at_once(*[partial(ask, peer, number) for number, peer in enumerate(peers)])
    assert causes == [DenialCause.MAX_VALUES] * 3
    assert Balance.objects.filter(budget=budget).count() == 5
