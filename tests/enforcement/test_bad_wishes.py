"""Wishes that take something away while money is out: each is answered, and nothing is lost."""

import pytest

from budgets.domain.budgets import archive_budget, change_budget
from budgets.domain.verify import verify
from budgets.models import Balance, Budget, Lease
from enforcement.rules.wire import DenialCause
from tests.enforcement.stack import ACTOR, Peer, Site, counters, now
from tests.enforcement.test_leasing import granted, use


@pytest.fixture
def budget(site: Site, peer: Peer) -> Budget:
    budget = site.budget(100)
    peer.learn(site)
    return budget


def test_a_budget_with_live_leases_is_archived_and_their_use_is_still_settled(
    site: Site, peer: Peer, budget: Budget
) -> None:
    granted(peer, site, budget, 80)
    use(peer, budget, 40, 30)
    archive_budget(
        organization_id=site.organization.id, budget_id=budget.id, actor=ACTOR, now=now()
    )
    assert counters(budget)[1] == 80
    peer.book.lots.close()
    peer.sync()
    assert counters(budget) == (30, 0, 0, 0)
    assert Lease.objects.get().state == "settled"
    assert verify().holds


def test_a_limit_below_what_is_spent_grants_nothing_more_and_the_cap_falls(
    site: Site, peer: Peer, budget: Budget
) -> None:
    granted(peer, site, budget, 80)
    use(peer, budget, 40, 30)
    peer.sync()
    change_budget(
        organization_id=site.organization.id,
        budget_id=budget.id,
        changes={"limit_amount": 10},
        actor=ACTOR,
        now=now(),
    )
    balance = Balance.objects.get()
    assert (balance.limit_amount, balance.cap_amount) == (10, 80)
    peer.learn(site)
    other = Peer(peer.url.removesuffix("/sidecar/v1/"), site.token)
    other.hello()
    key = other.ask(str(site.agent.id), str(budget.id), need=1)
    assert other.sync().denied[key].cause == DenialCause.LIMIT
    peer.book.lots.close()
    peer.sync()
    balance.refresh_from_db()
    assert (balance.spent_amount, balance.held_amount, balance.cap_amount) == (30, 0, 30)
    assert verify().holds
