"""Everything that writes the ledger at once: grants, settlements, usage, limits, folds, checks.

Two web processes' coordinators, six books that lose answers and repeat their usage, a person who
moves the limit, calls that nothing held, and a worker that folds and checks. In the end nothing is
held or in suspense, and the ledger is the truth, to the unit (I1, I3, I6).
"""

import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from uuid import UUID

import pytest

from budgets.domain.budgets import change_budget
from budgets.domain.rollups import fold_usage
from budgets.domain.usage import book_usage
from budgets.domain.verify import verify
from budgets.models import Balance, Budget, Lease, UsageEvent
from controlplane.identity.ids import new_id
from enforcement.rules.lots import Need, Shortage
from enforcement.rules.policy import Mode
from enforcement.rules.wire import Outcome, Part
from enforcement.rules.wire import UsageEvent as WireEvent
from tests.enforcement.stack import ACTOR, Peer, Site, make_site, now, web
from tests.races.crowd import at_once

ROUNDS = 12
LIMIT = 4_000
LEASE_TTL_MS = 1_500


@pytest.fixture
def site(transactional_db: None) -> Site:
    return make_site()


@pytest.fixture
def urls(site: Site) -> Iterator[tuple[str, str]]:
    with web(lease_ttl_ms=LEASE_TTL_MS) as first, web(lease_ttl_ms=LEASE_TTL_MS) as second:
        yield first, second


def event(site: Site, used: int, parts: list[Part]) -> WireEvent:
    return WireEvent(
        id=str(new_id()),
        agent=str(site.agent.id),
        model="gemma",
        started_at_ms=time.time_ns() // 1_000_000,
        outcome=Outcome.COMPLETED,
        output_tokens=used,
        parts=parts,
    )


def live(url: str, site: Site, budget: Budget, seed: int) -> int:
    """A book: asks, uses some of what it got, reports it (twice), and closes. What it used."""
    chance = random.Random(seed)
    peer = Peer(url, site.token)
    peer.hello()
    key, total = (str(budget.id), ""), 0
    for _ in range(ROUNDS):
        need = chance.randint(10, 120)
        peer.ask(str(site.agent.id), str(budget.id), need=need, want=need * 2)
        peer.sync(lose_answer=chance.random() < 0.1)
        hold = peer.book.lots.place([Need(*key, need)], now_ns=time.monotonic_ns())
        if isinstance(hold, Shortage):
            continue
        used = chance.randint(0, need + need // 10)
        parts = peer.book.lots.settle(hold, {key: used}, now_ns=time.monotonic_ns())
        said = event(site, used, parts)
        for _ in range(2):
            if used:
                peer.usage(said)
        total += used
    _go_home(peer)
    return total


def _go_home(peer: Peer) -> None:
    """Report until nothing is out: finals, and grants whose answer was lost, once they expired."""
    out = Lease.objects.filter(spool=UUID(peer.book.spool)).exclude(state="settled")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        peer.book.lots.close()
        peer.sync()
        if not out.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"still out: {list(out)}")


def bypass(site: Site, seed: int) -> int:
    """Calls that no lease pays: they began before the budget. What they used."""
    chance, total = random.Random(seed), 0
    for _ in range(ROUNDS):
        used = chance.randint(1, 60)
        book_usage(
            organization_id=site.organization.id,
            sidecar_id=None,
            events=[event(site, used, [])],
            now=now(),
        )
        total += used
    return total


def move_the_limit(site: Site, budget: Budget) -> int:
    for limit in (LIMIT // 2, LIMIT, LIMIT // 4, LIMIT * 2, LIMIT):
        change_budget(
            organization_id=site.organization.id,
            budget_id=budget.id,
            changes={"limit_amount": limit},
            actor=ACTOR,
            now=now(),
        )
        time.sleep(0.1)
    return 0


def look_on() -> int:
    for _ in range(ROUNDS):
        fold_usage(now=now())
        report = verify()
        assert report.holds, report.differences
        for balance in Balance.objects.filter(hard=True):
            assert balance.committed_amount <= balance.cap_amount
        time.sleep(0.05)
    return 0


def test_the_ledger_is_the_truth_in_the_end(site: Site, urls: tuple[str, str]) -> None:
    hard = site.budget(LIMIT)
    soft = site.budget(1, name="soft", mode=Mode.SOFT)
    jobs: list[Callable[[], int]] = [
        *[partial(live, urls[seed % 2], site, hard, seed) for seed in range(6)],
        partial(bypass, site, 7),
        partial(move_the_limit, site, hard),
        look_on,
    ]
    truth = sum(at_once(jobs))
    balance = Balance.objects.get(budget=hard)
    assert (balance.held_amount, balance.suspense_amount) == (0, 0)
    assert balance.spent_amount + balance.overrun_amount == truth
    assert balance.spent_amount <= balance.cap_amount
    assert Balance.objects.get(budget=soft).spent_amount == truth
    assert sum(UsageEvent.objects.values_list("output_tokens", flat=True)) == truth
    report = verify(organization_id=UUID(str(site.organization.id)))
    assert (report.differences, report.unexplained) == ([], {})
