"""Six books at two services, lost answers, a limit that moves; afterwards every token is where it
was spent (I1, I3, I6).
"""

import random
import threading
import time

import pytest
from django.db import connection

from budgets.domain.budgets import change_budget
from budgets.domain.verify import verify
from budgets.models import Balance, Budget, Lease
from enforcement.rules.lots import Hold, Need
from tests.enforcement.stack import ACTOR, HttpError, Peer, Site, counters, now, web

LIMIT = 3_000
SECONDS = 4.0


class Customer:
    """Requests of one book: each holds its worst case, uses some of it, and may lose an answer."""

    def __init__(self, peer: Peer, site: Site, budgets: list[Budget], seed: int) -> None:
        self.peer, self.agent, self.budgets = peer, str(site.agent.id), budgets
        self.random = random.Random(seed)
        self.used = 0

    def run(self, ends_at: float) -> None:
        while time.monotonic() < ends_at:
            need = self.random.randint(1, 60)
            needs = [Need(str(budget.id), "", need) for budget in self.budgets]
            hold = self.peer.book.lots.place(needs, now_ns=time.monotonic_ns())
            if not isinstance(hold, Hold):
                for need_of in hold.missing:
                    self.peer.ask(self.agent, need_of.budget, need=need_of.amount, wait_ms=40)
                self.talk()
                continue
            use = self.random.randint(0, need)
            self.talk()
            used = {(str(budget.id), ""): use for budget in self.budgets}
            self.peer.book.lots.settle(hold, used, now_ns=time.monotonic_ns())
            self.used += use

    def talk(self) -> None:
        sequence = self.peer.book.sequence + 1
        try:
            self.peer.sync(lose_answer=self.random.random() < 0.2)
        except HttpError as error:
            if error.status != 503:
                raise
            self.peer.book.on_sync_failed(sequence)

    def go_home(self) -> None:
        for _ in range(4):
            self.peer.sync()  # grants whose answers were lost arrive at last
            self.peer.book.lots.close()


def move_the_limit(site: Site, budget: Budget, stop: threading.Event) -> None:
    limit = LIMIT
    while not stop.wait(0.15):
        limit = LIMIT // 2 if limit == LIMIT else LIMIT
        change_budget(
            organization_id=site.organization.id,
            budget_id=budget.id,
            changes={"limit_amount": limit},
            actor=ACTOR,
            now=now(),
            reason="storm",
        )
        for balance in Balance.objects.filter(budget__organization=site.organization):
            assert balance.committed_amount <= LIMIT
    connection.close()


@pytest.mark.parametrize("seed", [1, 2])
def test_after_a_storm_every_token_is_where_it_was_spent(site: Site, seed: int) -> None:
    fixed, moving = site.budget(LIMIT), site.budget(LIMIT, name="moving")
    stop = threading.Event()
    with web() as one, web() as other:
        customers = []
        for number in range(6):
            peer = Peer((one, other)[number % 2], site.token)
            peer.hello()
            customers.append(Customer(peer, site, [fixed, moving], seed * 100 + number))
        ends_at = time.monotonic() + SECONDS
        threads = [threading.Thread(target=c.run, args=[ends_at]) for c in customers]
        mover = threading.Thread(target=move_the_limit, args=[site, moving, stop])
        for thread in [*threads, mover]:
            thread.start()
        for thread in threads:
            thread.join(30)
        stop.set()
        mover.join(10)
        for customer in customers:
            customer.go_home()
    used = sum(customer.used for customer in customers)
    assert used > LIMIT // 3
    assert counters(fixed) == (used, 0, 0, 0)
    assert counters(moving) == (used, 0, 0, 0)
    assert verify(organization_id=site.organization.id).differences == []
    assert set(Lease.objects.values_list("state", flat=True)) == {"settled"}
