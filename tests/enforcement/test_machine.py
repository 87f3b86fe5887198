"""Any order of asks, use, returns, lost answers and new lives, against the real ledger.

Hypothesis drives two production books over HTTP into PostgreSQL; after each step the balance must be
what the books' own totals say, as far as the ledger has heard of them.
"""

from typing import Any, ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from budgets.domain.verify import verify
from budgets.models import Balance, Budget, Lease
from tests.enforcement.stack import Peer, Site

LIMIT = 1_000
EXAMPLES = 12
STEPS = 25
which = st.integers(0, 1)


class Books(RuleBasedStateMachine):
    """Every run has a budget and two books of its own."""

    site: ClassVar[Site]
    url: ClassVar[str]
    number = 0

    def __init__(self) -> None:
        super().__init__()
        Books.number += 1
        self.budget: Budget = self.site.budget(LIMIT, name=f"cap {Books.number}")
        self.peers = [self.new_peer() for _ in range(2)]

    def new_peer(self, **known: Any) -> Peer:
        peer = Peer(self.url, self.site.token, **known)
        peer.hello()
        peer.learn(self.site)
        return peer

    @rule(who=which, need=st.integers(1, 700), want=st.integers(0, 700), lost=st.booleans())
    def ask(self, who: int, need: int, want: int, lost: bool) -> None:
        peer = self.peers[who]
        agent, budget = str(self.site.agent.id), str(self.budget.id)
        peer.ask(agent, budget, need=need, want=want, wait_ms=1)
        peer.sync(lose_answer=lost)

    @rule(who=which, share=st.integers(1, 4))
    def use(self, who: int, share: int) -> None:
        for lot in self.peers[who].book.lots.by_lease.values():
            if not lot.final:
                lot.used += lot.free // share
        self.peers[who].sync()

    @rule(who=which, lost=st.booleans())
    def give_back(self, who: int, lost: bool) -> None:
        self.peers[who].book.lots.close()
        self.peers[who].sync(lose_answer=lost)

    @rule(who=which)
    def live_again(self, who: int) -> None:
        """Another life of the same spool, whose journal knew all."""
        old = self.peers[who]
        fresh = Peer(self.url, self.site.token, spool=old.book.spool)
        fresh.book.lots = old.book.lots
        fresh.book.lots.close()
        for lot in fresh.book.lots.by_lease.values():
            lot.said = None
        fresh.hello()
        fresh.learn(self.site)
        self.peers[who] = fresh

    @invariant()
    def the_limit_holds(self) -> None:
        balance = Balance.objects.filter(budget=self.budget).first()
        if balance is not None:
            assert balance.committed_amount <= LIMIT
            assert balance.overrun_amount == 0

    def teardown(self) -> None:
        for _ in range(3):
            for peer in self.peers:
                peer.book.lots.close()
                peer.sync()
        used = sum(
            lot.used
            for peer in self.peers
            for lot in peer.book.lots.by_lease.values()
            if lot.key[0] == str(self.budget.id)
        )
        balance = Balance.objects.filter(budget=self.budget).first()
        spent = balance.spent_amount if balance else 0
        assert (spent, balance.held_amount if balance else 0) == (used, 0)
        leases = Lease.objects.filter(balance__budget=self.budget)
        assert set(leases.values_list("state", flat=True)) <= {"settled"}
        assert verify(organization_id=self.site.organization.id).holds


def test_any_order_of_events_leaves_the_books_in_agreement(site: Site, url: str) -> None:
    run_state_machine_as_test(
        type("OfThisSite", (Books,), {"site": site, "url": url}),
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, database=None
        ),
    )
