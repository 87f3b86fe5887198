"""The lease protocol over real HTTP against a real PostgreSQL."""

import threading
import time
from uuid import uuid4

import pytest

from budgets.domain.overrides import set_override
from budgets.domain.verify import verify
from budgets.models import Balance, Budget, Lease, Transfer
from enforcement.models import Spool
from enforcement.rules.policy import Overflow, Per, ScopeKind, Unit
from enforcement.rules.wire import Attribution, DenialCause, GroupItem
from tests.enforcement.stack import ACTOR, HttpError, Peer, Site, counters, make_site, now


def lease_of(peer: Peer, group: str, effects_granted: dict[str, list[str]]) -> str:
    (lease,) = effects_granted[group]
    return lease


def granted(peer: Peer, site: Site, budget: Budget, need: int, **more: object) -> str:
    key = peer.ask(str(site.agent.id), str(budget.id), need=need, **more)  # type: ignore[arg-type]
    return lease_of(peer, key, peer.sync().granted)


def use(peer: Peer, budget: Budget, held: int, used: int, value: str = "") -> None:
    from enforcement.rules.lots import Hold, Need

    key = (str(budget.id), value)
    hold = peer.book.lots.place([Need(*key, held)], now_ns=0)
    assert isinstance(hold, Hold)
    peer.book.lots.settle(hold, {key: used}, now_ns=0)


def test_a_lease_is_granted_used_and_settled(site: Site, peer: Peer) -> None:
    budget = site.budget(1_000)
    peer.learn(site)
    lease = granted(peer, site, budget, 100)
    assert counters(budget) == (0, 100, 0, 0)
    use(peer, budget, 60, 40)
    peer.sync()
    assert counters(budget) == (40, 60, 0, 0)
    peer.book.lots.close()
    peer.sync()
    assert counters(budget) == (40, 0, 0, 0)
    assert Lease.objects.get(pk=lease).state == "settled"
    kinds = Transfer.objects.filter(lease_id=lease).order_by("id").values_list("kind", "amount")
    assert list(kinds) == [("grant", 100), ("settle", 40), ("release", 60)]


def test_the_same_group_asked_again_gets_the_same_lease(site: Site, peer: Peer) -> None:
    budget = site.budget(1_000)
    peer.learn(site)
    key = peer.ask(str(site.agent.id), str(budget.id), need=100)
    peer.sync(lose_answer=True)
    assert list(peer.sync().granted) == [key]
    assert Lease.objects.count() == 1
    assert counters(budget) == (0, 100, 0, 0)


def test_a_lost_grant_is_told_again_though_the_policy_has_changed(site: Site, peer: Peer) -> None:
    budget = site.budget(1_000)
    peer.learn(site)
    key = peer.ask(str(site.agent.id), str(budget.id), need=100)
    peer.sync(lose_answer=True)
    site.budget(5_000, name="another")
    peer.wait_for_news()
    assert list(peer.sync().granted) == [key]


def test_the_same_key_with_other_content_is_an_error_of_its_own(site: Site, peer: Peer) -> None:
    budget = site.budget(1_000)
    peer.learn(site)
    key = str(uuid4())
    granted(peer, site, budget, 100, key=key)
    peer.ask(str(site.agent.id), str(budget.id), need=101, key=key)
    with pytest.raises(HttpError, match="other content") as refused:
        peer.sync()
    assert refused.value.status == 422
    assert counters(budget) == (0, 100, 0, 0)


def test_an_exhausted_budget_denies_with_its_counters(site: Site, peer: Peer) -> None:
    budget = site.budget(100)
    peer.learn(site)
    granted(peer, site, budget, 100)
    use(peer, budget, 100, 100)
    key = peer.ask(str(site.agent.id), str(budget.id), need=1)
    denial = peer.sync().denied[key]
    assert (denial.cause, denial.limit, denial.spent) == (DenialCause.LIMIT, 100, 100)


def test_what_another_book_holds_is_recalled_and_granted(url: str, site: Site, peer: Peer) -> None:
    budget = site.budget(100)
    peer.learn(site)
    granted(peer, site, budget, 90)
    other = Peer(url, site.token)
    other.hello()
    key = other.ask(str(site.agent.id), str(budget.id), need=50, wait_ms=2_000)
    outcome: dict[str, object] = {}
    waiting = threading.Thread(target=lambda: outcome.update(other.sync().granted))
    waiting.start()
    for _ in range(1_000):
        if not waiting.is_alive():
            break
        peer.sync()
    waiting.join(10)
    assert list(outcome) == [key]
    assert counters(budget) == (0, 50, 0, 0)


def test_many_at_once_never_exceed_the_limit(url: str, site: Site) -> None:
    budget = site.budget(1_000)
    peers = [Peer(url, site.token) for _ in range(8)]
    for one in peers:
        one.hello()

    def grab(one: Peer) -> None:
        for _ in range(8):
            one.ask(str(site.agent.id), str(budget.id), need=30, want=30)
            one.sync()

    threads = [threading.Thread(target=grab, args=[one]) for one in peers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    leased = sum(Lease.objects.values_list("amount", flat=True))
    balance = Balance.objects.get(budget=budget)
    assert balance.held_amount == leased - sum(
        lease.used_amount + lease.returned_amount for lease in Lease.objects.all()
    )
    assert balance.committed_amount <= 1_000
    assert leased >= 960


def test_another_boot_of_the_same_spool_fences_the_first(url: str, site: Site, peer: Peer) -> None:
    twin = Peer(url, site.token, spool=peer.book.spool)
    assert twin.hello().epoch == 2
    assert peer.sync().fenced


def test_a_hello_said_twice_keeps_the_epoch(peer: Peer) -> None:
    assert peer.hello().epoch == 1
    assert not peer.sync().fenced


def test_a_lost_grant_comes_home_with_the_next_boot(url: str, site: Site, peer: Peer) -> None:
    budget = site.budget(1_000)
    peer.learn(site)
    peer.ask(str(site.agent.id), str(budget.id), need=100)
    peer.sync(lose_answer=True)
    reborn = Peer(url, site.token, spool=peer.book.spool)
    unknown = reborn.hello().unknown
    assert [(item.amount, item.used) for item in unknown] == [(100, 0)]
    reborn.sync()
    assert counters(budget) == (0, 0, 0, 0)


def test_an_unknown_spool_is_told_to_say_hello(url: str, site: Site) -> None:
    stranger = Peer(url, site.token)
    assert stranger.sync().rehello


def test_another_sidecars_token_cannot_take_a_spool(url: str, site: Site, peer: Peer) -> None:
    rival = make_site("rival")
    thief = Peer(url, rival.token, spool=peer.book.spool)
    with pytest.raises(HttpError) as refused:
        thief.hello()
    assert refused.value.status == 403


def test_another_organizations_rows_neither_move_nor_show(url: str, site: Site, peer: Peer) -> None:
    budget = site.budget(1_000)
    peer.learn(site)
    granted(peer, site, budget, 100)
    rival = make_site("rival")
    thief = Peer(url, rival.token)
    thief.hello()
    stolen = peer.book.lots.by_lease
    thief.book.lots.by_lease.update(stolen)
    thief.book.lots.by_balance.update(peer.book.lots.by_balance)
    for lot in stolen.values():
        lot.said = None
    key = thief.ask(str(site.agent.id), str(budget.id), need=10)
    effects = thief.sync()
    assert effects.denied[key].cause is DenialCause.MISMATCH
    assert (effects.denied[key].limit, effects.denied[key].spent) == (0, 0)
    assert thief.answer.acks == []
    assert counters(budget) == (0, 100, 0, 0)


@pytest.mark.parametrize("wrong", ["other-agent", "other-value", "no-budget"])
def test_a_group_must_be_what_its_attribution_says(site: Site, peer: Peer, wrong: str) -> None:
    budget = site.budget(
        1_000, per=Per.AGENT, scope_kind=ScopeKind.ORGANIZATION, scope_id=site.organization.id
    )
    peer.learn(site)
    agent = str(uuid4()) if wrong == "other-agent" else str(site.agent.id)
    value = "x" if wrong == "other-value" else agent
    named = str(uuid4()) if wrong == "no-budget" else str(budget.id)
    key = peer.ask(agent, named, need=1, value=value)
    assert peer.sync().denied[key].cause is DenialCause.MISMATCH
    assert not Balance.objects.exists()


def test_a_split_has_no_more_values_than_it_may(site: Site, peer: Peer) -> None:
    site.budget(10_000)
    budget = site.budget(1_000, name="per session", per=Per.SESSION, max_values=2)
    peer.learn(site)
    causes = []
    for session in ("s1", "s2", "s3"):
        key = peer.ask(str(site.agent.id), str(budget.id), need=10, value=session, session=session)
        effects = peer.sync()
        causes.append(effects.denied[key].cause if key in effects.denied else "granted")
    assert causes == ["granted", "granted", DenialCause.MAX_VALUES]


def test_a_stale_policy_is_settled_but_granted_nothing(site: Site, peer: Peer) -> None:
    budget = site.budget(1_000)
    peer.wait_for_news()
    key = peer.ask(str(site.agent.id), str(budget.id), need=10)
    effects = peer.sync()
    assert effects.denied[key].cause is DenialCause.STALE_POLICY
    assert effects.policy is not None
    assert [b.id for b in effects.policy.budgets] == [str(budget.id)]
    assert granted(peer, site, budget, 10)


def test_a_budget_is_armed_when_every_book_has_learned_of_it(site: Site, peer: Peer) -> None:
    from enforcement.leasing.service import arm_what_is_known
    from tests.enforcement.stack import now

    budget = site.budget(1_000)
    arm_what_is_known(now=now())
    budget.refresh_from_db()
    assert budget.state == "arming"
    peer.learn(site)
    arm_what_is_known(now=now())
    budget.refresh_from_db()
    assert budget.state == "armed"


def test_a_book_that_was_heard_is_written_down(site: Site, peer: Peer) -> None:
    peer.sync()
    spool = Spool.objects.get(pk=peer.book.spool)
    assert (spool.organization_id, spool.sidecar_id) == (site.organization.id, site.sidecar.id)
    assert (spool.epoch, spool.book) == (1, "peer/0")
    assert spool.policy_revision == peer.book.policy_revision


def ask_as(
    peer: Peer, site: Site, budget: Budget, value: str, *, need: int = 1, **facts: object
) -> str:
    """Ask one lease for a request with these facts; the group's key."""
    key = str(uuid4())
    attribution = Attribution(agent=str(site.agent.id), **facts)  # type: ignore[arg-type]
    item = GroupItem(str(budget.id), value, need, need, need)
    peer.book.ask(key, attribution, [item], wait_ms=50)
    return key


def test_filters_and_splits_are_checked_against_the_facts(site: Site, peer: Peer) -> None:
    site.budget(1_000, name="above")
    budget = site.budget(
        100, name="split", per="user", filters={"tag:env": ["prod*"]}, unit=Unit.REQUESTS
    )
    peer.learn(site)
    prod = {"tags": {"env": "prod-1"}}
    keys = {
        "own": ask_as(peer, site, budget, "ann", user="ann", **prod),
        "foreign": ask_as(peer, site, budget, "bob", user="ann", **prod),
        "filtered": ask_as(peer, site, budget, "ann", user="ann", tags={"env": "test"}),
    }
    effects = peer.sync()
    assert list(effects.granted) == [keys["own"]]
    causes = {key: denial.cause for key, denial in effects.denied.items()}
    assert causes == dict.fromkeys([keys["foreign"], keys["filtered"]], DenialCause.MISMATCH)


def test_values_beyond_the_most_share_one_balance_if_the_budget_says_so(
    site: Site, peer: Peer
) -> None:
    site.budget(1_000, name="above")
    budget = site.budget(
        10, name="split", per="user", max_values=1, overflow=Overflow.SHARE, unit=Unit.REQUESTS
    )
    peer.learn(site)
    first = ask_as(peer, site, budget, "ann", user="ann")
    second = ask_as(peer, site, budget, "bob", user="bob")
    effects = peer.sync()
    assert list(effects.granted) == [first]
    denial = effects.denied[second]
    assert (denial.cause, denial.budget, denial.value) == (
        DenialCause.MAX_VALUES,
        str(budget.id),
        "bob",
    )
    shared = [ask_as(peer, site, budget, "*", user=user, need=4) for user in ("bob", "eve")]
    assert sorted(peer.sync().granted) == sorted(shared)
    assert counters(budget, "*") == (0, 8, 0, 0)


def test_a_new_balance_takes_the_own_limit_of_its_value(site: Site, peer: Peer) -> None:
    site.budget(1_000, name="above")
    budget = site.budget(10, name="split", per="user", unit=Unit.REQUESTS)
    set_override(
        organization_id=site.organization.id,
        budget_id=budget.id,
        value="ann",
        limit_amount=77,
        actor=ACTOR,
        now=now(),
    )
    peer.learn(site)
    for user in ("ann", "bob"):
        ask_as(peer, site, budget, user, user=user)
    peer.sync()
    rows = Balance.objects.filter(budget=budget).order_by("value")
    assert [(row.value, row.limit_amount) for row in rows] == [("ann", 77), ("bob", 10)]


def test_permits_are_lent_and_nothing_is_spent(site: Site, peer: Peer) -> None:
    budget = site.budget(100, unit=Unit.CONCURRENCY)
    peer.learn(site)
    lease = granted(peer, site, budget, 10)
    use(peer, budget, 6, 0)
    peer.sync()
    assert counters(budget) == (0, 10, 0, 0)
    peer.book.lots.close()
    peer.sync()
    assert counters(budget) == (0, 0, 0, 0)
    assert Lease.objects.get(pk=lease).state == "settled"


def test_what_a_dead_book_had_lent_waits_in_suspense(site: Site, peer: Peer) -> None:
    budget = site.budget(100, unit=Unit.CONCURRENCY)
    peer.learn(site)
    lease = granted(peer, site, budget, 10)
    use(peer, budget, 6, 3)  # as its recovery would report what ran
    peer.book.lots.close()
    peer.sync()
    assert counters(budget) == (0, 0, 3, 0)
    assert Lease.objects.get(pk=lease).state == "suspended"
    assert verify().differences == []


def test_a_dead_book_says_once_what_it_had_lent(url: str, site: Site, peer: Peer) -> None:
    budget = site.budget(100, unit=Unit.CONCURRENCY)
    peer.learn(site)
    granted(peer, site, budget, 10)
    use(peer, budget, 6, 3)  # as its recovery would report what ran
    again = Peer(url, site.token, spool=peer.book.spool)
    again.book.lots = peer.book.lots
    again.book.lots.close()
    again.hello()
    again.sync()
    assert counters(budget) == (0, 0, 3, 0)
    again.sync()
    assert again.answer.unsettled == []
    assert not again.book.needs_sync(now_ns=time.monotonic_ns())
