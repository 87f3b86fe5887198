"""A history of concurrent clients over real HTTP: no moment of it can be explained by overspending.

Every client writes down when it heard of a grant and when it began to say that something came home.
At each grant's answer, all grants that were answered by then, less all returns that were begun by
then, is the least that can have been out: it may not pass the limit that held.
"""

import random
import threading
import time
from typing import NamedTuple

from budgets.domain.verify import verify
from budgets.models import Budget
from tests.enforcement.stack import Peer, Site, counters, make_site, web

CLIENTS = 6
STEPS = 40
LIMIT = 3_000


class Event(NamedTuple):
    """An amount that went out (heard of) or came home (begun to be said)."""

    at_ns: int
    amount: int
    client: int


class Client:
    """One book that asks, uses and gives back at random, and remembers."""

    def __init__(self, url: str, site: Site, budget: Budget, number: int) -> None:
        self.peer = Peer(url, site.token)
        self.peer.hello()
        self.agent, self.budget, self.number = str(site.agent.id), str(budget.id), number
        self.chance = random.Random(number)
        self.history: list[Event] = []
        self.home = 0

    def run(self) -> None:
        for _ in range(STEPS):
            self.step()

    def step(self) -> None:
        choice = self.chance.random()
        lots = self.peer.book.lots
        if choice < 0.6:
            need = self.chance.randint(1, 300)
            self.peer.ask(self.agent, self.budget, need=need, want=need * 2, wait_ms=50)
        elif choice < 0.8:
            for lot in list(lots.by_lease.values()):
                if lot.live and lot.free:
                    lot.used += self.chance.randint(0, lot.free)
        else:
            lots.close()
        self.sync()

    def sync(self) -> None:
        lots = self.peer.book.lots
        home = sum(lot.returned for lot in lots.by_lease.values())
        if home > self.home:
            self.history.append(Event(time.monotonic_ns(), -(home - self.home), self.number))
            self.home = home
        effects = self.peer.sync(lose_answer=self.chance.random() < 0.1)
        heard_ns = time.monotonic_ns()
        for leases in effects.granted.values():
            for lease in leases:
                amount = lots.by_lease[lease].amount
                self.history.append(Event(heard_ns, amount, self.number))


def most_out(history: list[Event]) -> int:
    """The least that must have been out, at its highest moment."""
    out = highest = 0
    for event in sorted(history):
        out += event.amount
        highest = max(highest, out)
    return highest


def test_the_oracle_sees_a_grant_too_many() -> None:
    fine = [Event(1, 100, 1), Event(2, -40, 1), Event(3, 40, 2)]
    assert most_out(fine) == 100
    assert most_out([*fine, Event(4, 1, 3)]) == 101


def test_no_moment_of_a_concurrent_history_is_past_the_limit(transactional_db: None) -> None:
    site = make_site()
    budget = site.budget(LIMIT)
    with web() as url:
        clients = [Client(url, site, budget, number) for number in range(CLIENTS)]
        for client in clients:
            client.peer.learn(site)
        threads = [threading.Thread(target=client.run) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        history = [event for client in clients for event in client.history]
        assert most_out(history) <= LIMIT
        assert sum(event.amount > 0 for event in history) > CLIENTS
        for _ in range(3):
            for client in clients:
                client.peer.book.lots.close()
                client.sync()
    used = sum(lot.used for client in clients for lot in client.peer.book.lots.by_lease.values())
    assert counters(budget) == (used, 0, 0, 0)
    assert verify().holds
