"""Session trees over real HTTP: a child leases of its own part, and of its parent's other budgets."""

import threading
import time

import msgspec
import pytest
from django.db import connection, transaction

from budgets.domain.delegations import settle_delegations
from budgets.domain.incarnation import begin_incarnation
from budgets.domain.verify import verify
from budgets.models import Balance, Budget, Delegation
from enforcement.rules.wire import (
    Attribution,
    Delegate,
    Delegated,
    DenialCause,
    EndDelegation,
    GroupItem,
)
from tests.enforcement.stack import HttpError, Peer, Site, now, post
from tests.enforcement.test_leasing import use


@pytest.fixture
def run(site: Site) -> Budget:
    site.budget(100_000, name="Cap")
    return site.budget(1_000, name="Run", per="session")


def delegate(peer: Peer, site: Site, child: str = "run/1", **more: object) -> Delegated:
    facts = Attribution(agent=str(site.agent.id), session="run")
    wish: dict[str, object] = {"amounts": {"Run": 300}} | more
    message = Delegate(peer.book.make_header(), facts, child, **wish)  # type: ignore[arg-type]
    return post(peer.url + "delegate", peer.token, msgspec.json.encode(message), Delegated)


def end(peer: Peer, site: Site, given: Delegated) -> None:
    facts = Attribution(agent=str(site.agent.id))
    message = EndDelegation(peer.book.make_header(), facts, given.delegation)
    post(peer.url + "undelegate", peer.token, msgspec.json.encode(message), EndDelegation)


def ask(peer: Peer, site: Site, given: Delegated, items: dict[tuple[str, str], int]) -> str:
    key = f"00000000-0000-4000-8000-{time.monotonic_ns() % 10**12:012d}"
    facts = Attribution(str(site.agent.id), given.session, delegation=given.token)
    wanted = [GroupItem(*place, 1, need, need) for place, need in items.items()]
    peer.book.ask(key, facts, wanted)
    return key


def test_a_child_leases_its_part_and_no_more(site: Site, peer: Peer, run: Budget) -> None:
    peer.learn(site)
    given = delegate(peer, site)
    assert (given.session, given.amounts) == ("run/1", {"Run": 300})
    key = ask(peer, site, given, {(str(run.id), "run/1"): 200})
    assert list(peer.sync().granted) == [key]
    use(peer, run, 200, 150, value="run/1")
    peer.book.lots.close()
    peer.sync()
    more = ask(peer, site, given, {(str(run.id), "run/1"): 151})
    assert peer.sync().granted.get(more)  # what is left of it, at least the floor
    end(peer, site, given)
    for _ in range(5):
        peer.sync()
        peer.book.lots.close()
    settle_delegations(now=now())
    parent = Balance.objects.get(budget=run, value="run")
    assert (parent.spent_amount, parent.given_amount, parent.free_amount) == (150, 0, 850)
    assert Delegation.objects.get().state == "closed"
    assert verify().holds
    late = ask(peer, site, given, {(str(run.id), "run/1"): 1})
    assert peer.sync().denied[late].cause is DenialCause.ENDED


def test_a_token_of_others_matches_nothing(site: Site, peer: Peer, run: Budget) -> None:
    peer.learn(site)
    given = delegate(peer, site)
    forged = msgspec.structs.replace(given, token=given.token[:-4] + "AAAA")
    key = ask(peer, site, forged, {(str(run.id), "run/1"): 1})
    assert peer.sync().denied[key].cause is DenialCause.MISMATCH
    elsewhere = ask(peer, site, given, {(str(run.id), "run"): 1})  # the parent's own part
    assert peer.sync().denied[elsewhere].cause is DenialCause.MISMATCH


def test_a_part_that_nobody_gave_is_never_made(site: Site, peer: Peer, run: Budget) -> None:
    """As after a failover that forgot the delegation: no new money by an old token."""
    peer.learn(site)
    given = delegate(peer, site)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        for table, where in (("delegation", "true"), ("balance", "value = 'run/1'")):
            cursor.execute(f"DELETE FROM budgets_{table} WHERE {where}")
    key = ask(peer, site, given, {(str(run.id), "run/1"): 1})
    assert peer.sync().denied[key].cause is DenialCause.ENDED
    assert not Balance.objects.filter(value="run/1").exists()


def test_a_child_whose_part_is_forgotten_has_nothing_to_give(
    site: Site, peer: Peer, run: Budget
) -> None:
    peer.learn(site)
    given = delegate(peer, site)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        for table, where in (("delegation", "true"), ("balance", "value = 'run/1'")):
            cursor.execute(f"DELETE FROM budgets_{table} WHERE {where}")
    facts = Attribution(str(site.agent.id), given.session, delegation=given.token)
    message = Delegate(peer.book.make_header(), facts, "run/1/1", amounts={"Run": 10})
    with pytest.raises(HttpError) as refused:
        post(peer.url + "delegate", peer.token, msgspec.json.encode(message), Delegated)
    assert refused.value.status == 422
    assert not Balance.objects.filter(value__startswith="run/1").exists()


def test_after_a_failover_no_part_moves_before_all_leases_are_known(
    site: Site, peer: Peer, run: Budget
) -> None:
    peer.learn(site)
    given = delegate(peer, site)
    begin_incarnation(now=now())
    with pytest.raises(HttpError) as refused:
        delegate(peer, site, "run/2")
    assert refused.value.status == 503
    end(peer, site, given)
    assert settle_delegations(now=now()) == 1
    parent = Balance.objects.get(budget=run, value="run")
    assert (parent.given_amount, Delegation.objects.get().state) == (300, "closing")
    assert peer.sync().rehello
    peer.hello()
    assert settle_delegations(now=now()) == 1
    parent.refresh_from_db()
    assert (parent.given_amount, parent.free_amount) == (0, 1_000)
    assert Delegation.objects.get().state == "closed"
    assert verify().holds


def test_a_child_pays_its_parents_undelegated_budgets(site: Site, peer: Peer, run: Budget) -> None:
    other = site.budget(500, name="Other", per="session")
    peer.learn(site)
    given = delegate(peer, site)
    items = {(str(run.id), "run/1"): 10, (str(other.id), "run"): 10}
    key = ask(peer, site, given, items)
    assert len(peer.sync().granted[key]) == 2
    wrong = ask(peer, site, given, {(str(other.id), "run/1"): 10})
    assert peer.sync().denied[wrong].cause is DenialCause.MISMATCH


def test_a_gift_waits_for_what_sidecars_have_idle(site: Site, peer: Peer, run: Budget) -> None:
    peer.learn(site)
    peer.ask(str(site.agent.id), str(run.id), need=900, value="run", session="run")
    peer.sync()
    stop = threading.Event()

    def keep_in_step() -> None:
        while not stop.is_set():
            peer.sync()
            time.sleep(0.05)

    other = Peer(peer.url.removesuffix("/sidecar/v1/"), site.token)
    other.hello()
    beating = threading.Thread(target=keep_in_step)
    beating.start()
    try:
        given = delegate(other, site)
    finally:
        stop.set()
        beating.join(10)
    assert given.amounts == {"Run": 300}


@pytest.mark.parametrize(
    ("wish", "status", "words"),
    [
        ({"amounts": {"Run": 2_000}}, 409, "1000 is free"),
        ({"amounts": {"Ran": 1}}, 422, "no budget 'Ran'"),
        ({"amounts": {}}, 422, "give amounts by budget"),
        ({"amounts": {}, "percent": 900}, 422, "percent is 1 to 100"),
        ({"expires_in_s": -5}, 422, "lasts 1 second"),
        ({"expires_in_s": 10**15}, 422, "lasts 1 second"),
        ({"child_agent": "nobody"}, 422, "no agent"),
    ],
)
def test_what_cannot_be_given_is_told(
    site: Site, peer: Peer, run: Budget, wish: dict[str, object], status: int, words: str
) -> None:
    peer.learn(site)
    with pytest.raises(HttpError, match=words) as refused:
        delegate(peer, site, **wish)
    assert refused.value.status == status
    assert not Delegation.objects.exists()


def test_a_child_delegates_further(site: Site, peer: Peer, run: Budget) -> None:
    peer.learn(site)
    given = delegate(peer, site)
    facts = Attribution(agent=str(site.agent.id), delegation=given.token)
    message = Delegate(peer.book.make_header(), facts, "run/1/a", amounts={"Run": 100})
    deeper = post(peer.url + "delegate", peer.token, msgspec.json.encode(message), Delegated)
    assert Balance.objects.get(budget=run, value="run/1").given_amount == 100
    assert deeper.session == "run/1/a"
