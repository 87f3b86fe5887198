"""A ledger that has forgotten commits: it asks, adopts what it signed, and grants nothing before."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec
import psycopg
import pytest
from django.db import connection, transaction
from rest_framework.test import APIClient

from budgets.domain.incarnation import begin_incarnation
from budgets.domain.verify import verify
from budgets.models import Balance, Budget, Lease, LedgerIncarnation
from controlplane.launcher import postgres
from enforcement.domain.enrolment import enrol_sidecar, revoke_sidecar
from enforcement.errors import UnsafeDatabaseError
from enforcement.leasing.failover import notice_failover
from enforcement.leasing.service import arm_what_is_known
from enforcement.models import Spool
from enforcement.rules.policy import Per
from enforcement.rules.wire import DenialCause, Hello, Welcome
from tests.budgets.api.conftest import client_of
from tests.budgets.world import World
from tests.enforcement.stack import ACTOR, HttpError, Peer, Site, counters, now, post
from tests.enforcement.test_leasing import granted, use
from tests.plugin import Server


def forget(lease: str) -> None:
    """As a promoted replica that lacks the grant: the lease, its journal, its hold are not there."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        row = Lease.objects.get(id=lease)
        Balance.objects.filter(id=row.balance_id).update(held_amount=0, spent_amount=0)
        cursor.execute("DELETE FROM budgets_transfer WHERE lease_id = %s", [lease])
        cursor.execute("DELETE FROM budgets_lease WHERE id = %s", [lease])


@pytest.fixture
def budget(site: Site, peer: Peer) -> Budget:
    budget = site.budget(1_000)
    peer.learn(site)
    return budget


def after_failover(peer: Peer) -> None:
    """A Sync finds that the ledger is another one; the inventory is then said for this one."""
    begin_incarnation(now=now())
    assert peer.sync().rehello


def test_a_forgotten_lease_is_adopted_with_all_it_used(
    site: Site, peer: Peer, budget: Budget
) -> None:
    lease = granted(peer, site, budget, 400)
    use(peer, budget, 300, 250)
    forget(lease)
    after_failover(peer)
    assert counters(budget) == (0, 0, 0, 0)
    peer.hello()
    assert counters(budget) == (250, 150, 0, 0)
    peer.sync()
    assert counters(budget) == (250, 0, 0, 0)  # lots of the old ledger take no new hold
    row = Lease.objects.get(id=lease)
    assert (row.state, row.used_amount, row.returned_amount) == ("settled", 250, 150)
    assert verify().holds


def test_a_forgotten_lease_of_which_nothing_was_used_is_held_again(
    site: Site, peer: Peer, budget: Budget
) -> None:
    lease = granted(peer, site, budget, 400)
    forget(lease)
    after_failover(peer)
    peer.hello()
    assert counters(budget) == (0, 400, 0, 0)
    peer.sync()
    assert counters(budget) == (0, 0, 0, 0)
    assert verify().holds


def test_what_was_settled_and_forgotten_is_adopted_as_it_ended(
    site: Site, peer: Peer, budget: Budget
) -> None:
    lease = granted(peer, site, budget, 400)
    use(peer, budget, 400, 400)
    peer.book.lots.close()
    peer.sync()
    assert Lease.objects.get(id=lease).state == "settled"
    forget(lease)
    after_failover(peer)
    peer.hello()
    assert counters(budget) == (400, 0, 0, 0)
    assert Lease.objects.get(id=lease).state == "settled"


def test_nothing_is_granted_until_every_spool_has_told(
    url: str, site: Site, peer: Peer, budget: Budget
) -> None:
    silent = Peer(url, site.token)
    silent.hello()
    after_failover(peer)
    peer.hello()
    key = peer.ask(str(site.agent.id), str(budget.id), need=10)
    assert peer.sync().denied[key].cause is DenialCause.LEARNING
    assert silent.sync().rehello
    silent.hello()
    assert granted(peer, site, budget, 10)


def test_no_budget_is_armed_until_every_spool_has_told(url: str, site: Site, peer: Peer) -> None:
    silent = Peer(url, site.token)
    silent.hello()
    budget = site.budget(1_000)
    peer.learn(site)
    silent.learn(site)
    after_failover(peer)
    peer.hello()
    arm_what_is_known(now=now())
    budget.refresh_from_db()
    assert budget.state == "arming"
    assert silent.sync().rehello
    silent.hello()
    arm_what_is_known(now=now())
    budget.refresh_from_db()
    assert budget.state == "armed"


def test_a_forgotten_lease_is_adopted_though_its_split_is_full(
    url: str, site: Site, peer: Peer
) -> None:
    site.budget(10_000)
    budget = site.budget(1_000, name="per session", per=Per.SESSION, max_values=1)
    peer.learn(site)
    lease = granted(peer, site, budget, 400, value="s1", session="s1")
    use(peer, budget, 300, 250, value="s1")
    forget(lease)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute("DELETE FROM budgets_balance")
    other = Peer(url, site.token)
    other.hello()
    other.learn(site)
    granted(other, site, budget, 10, value="s2", session="s2")
    after_failover(peer)
    peer.hello()
    adopted = Lease.objects.select_related("balance").get(id=lease)
    assert (adopted.balance.value, adopted.balance.spent_amount) == ("s1", 250)
    other.sync()
    other.hello()
    key = peer.ask(str(site.agent.id), str(budget.id), need=1, value="s3", session="s3")
    assert peer.sync().denied[key].cause is DenialCause.MAX_VALUES


def test_a_person_waives_a_spool_that_is_gone(
    url: str, site: Site, peer: Peer, budget: Budget
) -> None:
    gone = Peer(url, site.token)
    gone.hello()
    after_failover(peer)
    peer.hello()
    client: APIClient = client_of(_world(site), ["read", "nodes:write"])
    answer = client.post(
        f"/api/v1/spools/{gone.book.spool}/waive", {"reason": "the host burnt"}, format="json"
    )
    incarnation = LedgerIncarnation.objects.get(ended_at=None)
    assert (answer.status_code, answer.json()["waived_for"]) == (200, str(incarnation.id))
    assert granted(peer, site, budget, 10)
    begin_incarnation(now=now())  # the next one waits for it again
    peer.sync()
    peer.hello()
    key = peer.ask(str(site.agent.id), str(budget.id), need=10)
    assert peer.sync().denied[key].cause is DenialCause.LEARNING


def _world(site: Site) -> World:
    return World(site.organization, None, None, site.agent, site.agent)  # type: ignore[arg-type]


def test_a_spool_that_was_silent_for_a_day_is_not_waited_for(
    url: str, site: Site, peer: Peer, budget: Budget
) -> None:
    Peer(url, site.token).hello()
    Spool.objects.exclude(id=peer.book.spool).update(last_sync_at=datetime(2020, 1, 1, tzinfo=UTC))
    after_failover(peer)
    peer.hello()
    assert granted(peer, site, budget, 10)


def test_a_spool_of_a_revoked_sidecar_is_not_waited_for(
    url: str, site: Site, peer: Peer, budget: Budget
) -> None:
    enrolled = enrol_sidecar(
        organization_id=site.organization.id, name="s2", actor=ACTOR, now=now()
    )
    Peer(url, enrolled.secret).hello()
    revoke_sidecar(
        organization_id=site.organization.id,
        sidecar_id=enrolled.sidecar.id,
        actor=ACTOR,
        reason="",
        now=now(),
    )
    after_failover(peer)
    peer.hello()
    assert granted(peer, site, budget, 10)


@pytest.mark.usefixtures("peer")
def test_an_incarnation_knows_its_history_from_its_first_moment() -> None:
    first = LedgerIncarnation.objects.get()
    assert (first.system_identifier, len(first.timeline)) == (_identifier(), 8)
    again = begin_incarnation(now=now())  # a person says so; no connection is made for it
    assert (again.system_identifier, again.timeline) == (_identifier(), first.timeline)


def _identifier() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT system_identifier FROM pg_control_system()")
        return int(cursor.fetchone()[0])


@pytest.mark.parametrize("forged", [{"amount": 999}, {"mac": "0" * 64}, {"mac": ""}])
def test_a_lease_that_was_never_signed_is_not_adopted(
    site: Site, peer: Peer, budget: Budget, forged: dict[str, object]
) -> None:
    lease = granted(peer, site, budget, 400)
    forget(lease)
    after_failover(peer)
    hello = peer.book.make_hello(
        boot=peer.boot, kernel_boot_id="k", clean=False, upstreams=[], version="1"
    )
    lie = [msgspec.structs.replace(item, **forged) for item in hello.inventory]
    welcome = say(peer, msgspec.structs.replace(hello, inventory=lie))
    assert not welcome.again
    assert not Lease.objects.exists()
    assert counters(budget) == (0, 0, 0, 0)


def say(peer: Peer, hello: Hello) -> Welcome:
    return post(peer.url + "hello", peer.token, msgspec.json.encode(hello), Welcome)


def test_an_inventory_that_was_made_before_does_not_count(
    site: Site, peer: Peer, budget: Budget
) -> None:
    delayed = peer.book.make_hello(
        boot=peer.boot, kernel_boot_id="k", clean=False, upstreams=[], version="1"
    )
    lease = granted(peer, site, budget, 400)
    forget(lease)
    begin_incarnation(now=now())
    assert say(peer, delayed).again
    assert Spool.objects.get().incarnation != LedgerIncarnation.objects.get(ended_at=None).id
    assert peer.sync().rehello
    assert not peer.hello().again
    assert Lease.objects.filter(id=lease).exists()


def test_a_cap_follows_what_was_committed_before(site: Site, peer: Peer, budget: Budget) -> None:
    lease = granted(peer, site, budget, 900)
    use(peer, budget, 900, 900)
    forget(lease)
    Balance.objects.update(limit_amount=500, cap_amount=500)  # the raise to 1,000 was lost too
    after_failover(peer)
    peer.hello()
    balance = Balance.objects.get()
    assert (balance.spent_amount, balance.limit_amount, balance.cap_amount) == (900, 500, 900)
    with pytest.raises(psycopg.Error), psycopg.connect(_address()) as outside:
        outside.execute("UPDATE budgets_balance SET cap_amount = 950")


def _address() -> str:
    settings = connection.settings_dict
    return f"postgresql://{settings['USER']}@/{settings['NAME']}?host={settings['HOST']}"


def test_a_budget_that_is_gone_is_told_and_does_no_harm(
    site: Site, peer: Peer, budget: Budget
) -> None:
    lease = granted(peer, site, budget, 400)
    forget(lease)
    after_failover(peer)
    hello = peer.book.make_hello(
        boot=peer.boot, kernel_boot_id="k", clean=False, upstreams=[], version="1"
    )
    strange = [msgspec.structs.replace(item, budget="no-budget") for item in hello.inventory]
    strange += [msgspec.structs.replace(item, window_start_s=10**15) for item in hello.inventory]
    try:
        assert not say(peer, msgspec.structs.replace(hello, inventory=strange)).again
    except HttpError as error:
        pytest.fail(f"the Hello was refused: {error}")


# ------------------------------------------------------------------------------ a real promotion


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.start()
    try:
        yield server
    finally:
        server.stop()


def incarnations(server: Server) -> list[tuple[bool, str]]:
    """Look at the database as a web process does; whether each has ended, and its timeline."""

    async def look() -> list[tuple[bool, str]]:
        async with await psycopg.AsyncConnection.connect(server.cluster.url) as held:
            await held.set_autocommit(True)
            await notice_failover(held)
            rows = await held.execute(
                "SELECT ended_at IS NOT NULL, timeline FROM budgets_ledgerincarnation"
                " ORDER BY started_at"
            )
            return [(row[0], row[1]) async for row in rows]

    return asyncio.run(look())


def begin_first(server: Server) -> None:
    with psycopg.connect(server.cluster.url) as held:
        held.execute(
            "CREATE TABLE budgets_ledgerincarnation (id uuid, started_at timestamptz,"
            " ended_at timestamptz, system_identifier bigint, timeline text NOT NULL DEFAULT '')"
        )
        held.execute(
            "INSERT INTO budgets_ledgerincarnation VALUES"
            " ('00000000-0000-0000-0000-000000000001', now())"
        )


def test_a_promotion_begins_a_new_incarnation(server: Server) -> None:
    begin_first(server)
    assert incarnations(server) == [(False, "00000001")]
    assert incarnations(server) == [(False, "00000001")]
    restart(server)
    assert incarnations(server) == [(False, "00000001")]
    restart(server, signal_file="recovery.signal")
    promoted(server)
    assert incarnations(server) == [(True, "00000001"), (False, "00000002")]
    assert incarnations(server) == [(True, "00000001"), (False, "00000002")]


def test_no_connection_to_a_replica_is_kept_until_its_promotion(server: Server) -> None:
    begin_first(server)
    assert incarnations(server) == [(False, "00000001")]
    restart(server, signal_file="standby.signal")
    with pytest.raises(UnsafeDatabaseError, match="this PostgreSQL is a replica"):
        incarnations(server)
    with psycopg.connect(server.cluster.url) as held:
        assert held.execute("SELECT pg_promote()").fetchone() == (True,)
    promoted(server)
    assert incarnations(server) == [(True, "00000001"), (False, "00000002")]


def restart(server: Server, *, signal_file: str = "") -> None:
    """Stop and start; with a signal file as a backup that is restored, or a replica."""
    assert server.process is not None
    server.process.send_signal(postgres.STOP)
    server.process.wait(30)
    settings = dict(postgres.THROWAWAY_SETTINGS)
    if signal_file:
        (server.cluster.data / signal_file).touch(mode=0o644)
        settings["restore_command"] = "/bin/false"
    server.process = postgres.start(server.cluster, settings, log=server.home / "log")


def promoted(server: Server) -> None:
    """Wait until its recovery has ended."""
    with psycopg.connect(server.cluster.url) as held:
        for _ in range(200):
            row = held.execute("SELECT pg_is_in_recovery()").fetchone()
            if row == (False,):
                break
            held.execute("SELECT pg_sleep(0.05)")
