"""Messages that come twice, late, or in another order than they were sent."""

import time

import msgspec

from budgets.domain.verify import verify
from budgets.models import Budget, Lease, Transfer
from enforcement.rules.wire import DenialCause, LeaseReport, Sync, SyncAnswer
from tests.enforcement.stack import Peer, Site, counters, post
from tests.enforcement.test_leasing import granted, use


def said(peer: Peer) -> Sync:
    """What the book says now, not sent yet."""
    for lot in peer.book.lots.by_lease.values():
        lot.said = None
    return peer.book.make_sync(now_ns=time.monotonic_ns())


def send(peer: Peer, sync: Sync) -> SyncAnswer:
    return post(peer.url + "sync", peer.token, msgspec.json.encode(sync), SyncAnswer)


def moved(budget: Budget) -> list[tuple[str, int]]:
    rows = Transfer.objects.filter(balance__budget=budget).order_by("id")
    return list(rows.values_list("kind", "amount"))


def test_an_older_report_after_a_newer_one_changes_nothing(site: Site, peer: Peer) -> None:
    budget = site.budget(1_000)
    peer.learn(site)
    granted(peer, site, budget, 100)
    use(peer, budget, 50, 20)
    older = said(peer)
    use(peer, budget, 50, 30)
    newer = said(peer)
    assert [ack.used for ack in send(peer, newer).acks] == [50]
    assert [ack.used for ack in send(peer, older).acks] == [50]
    assert counters(budget) == (50, 50, 0, 0)
    assert moved(budget) == [("grant", 100), ("settle", 50)]


def test_the_same_report_twice_is_booked_once(site: Site, peer: Peer) -> None:
    budget = site.budget(1_000)
    peer.learn(site)
    granted(peer, site, budget, 100)
    use(peer, budget, 50, 20)
    report = said(peer)
    for _ in range(3):
        send(peer, report)
    assert counters(budget) == (20, 80, 0, 0)


def test_a_report_after_the_final_one_changes_nothing(site: Site, peer: Peer) -> None:
    budget = site.budget(1_000)
    peer.learn(site)
    lease = granted(peer, site, budget, 100)
    use(peer, budget, 50, 20)
    late = said(peer)
    peer.book.lots.close()
    peer.sync()
    (ack,) = send(peer, late).acks
    assert ack.final
    assert counters(budget) == (20, 0, 0, 0)
    assert Lease.objects.get(pk=lease).state == "settled"


def test_more_than_was_leased_cannot_be_reported(site: Site, peer: Peer) -> None:
    budget = site.budget(1_000)
    peer.learn(site)
    lease = granted(peer, site, budget, 100)
    sync = said(peer)
    lie = LeaseReport(lease=lease, used=900, returned=900, overrun=7)
    send(peer, msgspec.structs.replace(sync, reports=[lie]))
    assert counters(budget) == (100, 0, 0, 7)
    assert verify(organization_id=site.organization.pk).differences == []


def test_a_lease_of_another_book_is_not_touched(url: str, site: Site, peer: Peer) -> None:
    budget = site.budget(1_000)
    peer.learn(site)
    lease = granted(peer, site, budget, 100)
    sibling = Peer(url, site.token)
    sibling.hello()
    lie = LeaseReport(lease=lease, used=0, returned=100, final=True)
    answer = send(sibling, msgspec.structs.replace(said(sibling), reports=[lie]))
    assert answer.acks == []
    assert counters(budget) == (0, 100, 0, 0)


def test_many_groups_of_one_message_get_what_there_is(site: Site, peer: Peer) -> None:
    budget = site.budget(1_000)
    peer.learn(site)
    agent = str(site.agent.id)
    keys = [peer.ask(agent, str(budget.id), need=40, floor=40, wait_ms=100) for _ in range(32)]
    effects = peer.sync()
    assert set(effects.granted) == set(keys[:25])
    assert [effects.denied[key].cause for key in keys[25:]] == [DenialCause.HELD] * 7
    assert counters(budget) == (0, 1_000, 0, 0)
    assert verify(organization_id=site.organization.pk).differences == []
