"""The lease service of one web process: its pool, its coordinator, its ears."""

import asyncio
import hmac
import logging
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from django.db import connection as django_connection
from django.db.models.functions import Now
from psycopg import conninfo
from psycopg_pool import AsyncConnectionPool

from budgets.domain.budgets import arm_budgets
from budgets.domain.delegations import delegate, end_delegation
from budgets.domain.incarnation import current_incarnation, is_learning
from budgets.enums import BudgetState
from budgets.errors import NotFreeError
from budgets.models import Budget
from controlplane.identity.domain import derived_key
from controlplane.identity.models import Organization
from enforcement.domain.ingest import take_usage
from enforcement.domain.introductions import register_upstreams
from enforcement.errors import UnsafeDatabaseError
from enforcement.leasing import hello as hellos
from enforcement.leasing import metrics
from enforcement.leasing.auth import Authenticator, SidecarIdentity
from enforcement.leasing.batch import Terms
from enforcement.leasing.checks import check_header, check_hello, check_sync, to_uuid
from enforcement.leasing.coordinator import Coordinator, Recalls
from enforcement.leasing.failover import notice_failover
from enforcement.leasing.hints import RECALL_CHANNEL, Hints
from enforcement.leasing.later import Connection
from enforcement.leasing.policies import Policies
from enforcement.leasing.spools import latest_cursor
from enforcement.leasing.store import holders
from enforcement.leasing.threads import DjangoThreads
from enforcement.leasing.trees import told, wish_of
from enforcement.models import Sidecar, Spool
from enforcement.rules.ledger import Balance
from enforcement.rules.wire import (
    Delegate,
    Delegated,
    EncodedUsage,
    EndDelegation,
    Hello,
    Recall,
    Sync,
    SyncAnswer,
    UsageAnswer,
    Welcome,
)

POOL_SIZE = 6
ARM_EVERY_S = 1.0
RECALLS_OF_A_GIFT = 5  # how often idle leases are called home before a gift is refused
RECALL_PAUSE_S = 0.2
PATIENCE_S = 5.0  # how long a message waits for a connection before it is told to come again
# A batch is a dozen small statements with arrays for parameters: to plan each anew takes longer
# than to run it, and the plan does not depend on what is in the arrays.
SESSION_SETTINGS = (
    "-c plan_cache_mode=force_generic_plan"
    " -c lock_timeout=500 -c statement_timeout=5000 -c synchronous_commit=on"
    " -c idle_in_transaction_session_timeout=10000"
    " -c default_transaction_isolation=read\\ committed"
)
KEEPALIVE: dict[str, Any] = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
REQUIRED = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
THROWAWAY = {"fsync", "full_page_writes"}  # what a test database may do without

log = logging.getLogger(__name__)


class LeaseService:
    """Started lazily, on the loop that serves; stopped with it."""

    def __init__(self, *, lease_ttl_ms: int = 10_000, policy_ttl_ms: int = 30_000) -> None:
        self._lease_ttl_ms = lease_ttl_ms
        self._policy_ttl_ms = policy_ttl_ms
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = DjangoThreads()
        self._address = _conninfo()
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            self._address,
            min_size=1,
            max_size=POOL_SIZE,
            open=False,
            timeout=PATIENCE_S,
            kwargs={"options": SESSION_SETTINGS},
            configure=notice_failover,
        )
        self.stopping = asyncio.Event()

    async def start(self) -> None:
        """Open the pool, check the database, start the coordinator and the listener.

        Raises UnsafeDatabaseError.
        """
        await self._pool.open(wait=True, timeout=10)
        await self._check_database()
        await self._threads.run(current_incarnation, now=_now())  # the first one begins here
        self.terms = Terms(
            sign=_signer(),
            lease_ttl_ms=self._lease_ttl_ms,
            policy_ttl_ms=self._policy_ttl_ms,
        )
        self.policies = Policies(self._threads)
        self.authenticator = Authenticator(self._pool)
        self.hints = Hints(self._address, on_change=self.policies.forget)
        self.coordinator = Coordinator(self._pool, self.terms, recall=self._recall)
        for name, work in (
            ("coordinator", self.coordinator.run()),
            ("hints", self.hints.run()),
            ("arming", self._arm()),
        ):
            self._start_task(work, name=name)

    async def stop(self) -> None:
        """End everything that was started."""
        self.stopping.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._pool.close()
        await self._threads.close()

    def _start_task(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("the task %r of the lease service died", task.get_name(), exc_info=error)

    async def _check_database(self) -> None:
        async with self._pool.connection() as connection:
            for name, value in REQUIRED.items():
                row = await (await connection.execute(f"SHOW {name}")).fetchone()
                if row is None or (row[0] != value and not _may_lack(name)):
                    raise UnsafeDatabaseError(f"PostgreSQL runs with {name}={row and row[0]}")

    # ------------------------------------------------------------------ messages

    async def hello(self, identity: SidecarIdentity, hello: Hello) -> Welcome:
        """Register the nodes that it names, then welcome the book.

        Raises MessageError, SpoolOfAnotherError.
        """
        check_header(hello.header, organization=identity.organization)
        check_hello(hello)
        sidecar = await self._threads.run(_sidecar, identity.sidecar)
        await self._threads.run(
            register_upstreams,
            sidecar=sidecar,
            upstreams=hello.upstreams,
            version=hello.version,
            now=_now(),
        )
        async with self._pool.connection() as connection:
            order_cursor = await latest_cursor(connection, identity.organization)
        self.policies.forget(identity.organization)
        policy = await self.policies.get(identity.organization)
        async with self._pool.connection() as connection, connection.transaction():
            return await hellos.welcome(
                connection,
                hello,
                identity=identity,
                policy=policy,
                order_cursor=order_cursor,
                terms=self.terms,
            )

    async def sync(self, identity: SidecarIdentity, sync: Sync) -> SyncAnswer:
        """Book what it reports, answer what it asks.

        Raises MessageError, SpoolOfAnotherError, GroupKeyReusedError, BusyError.
        """
        check_header(sync.header, organization=identity.organization)
        check_sync(sync)
        policy = await self.policies.get(identity.organization)
        if policy.revision < sync.header.policy_revision:
            # another process told the book first: its hint is still on the way to this one
            self.policies.forget(identity.organization)
            policy = await self.policies.get(identity.organization)
        answer = await self.coordinator.submit(sync, identity=identity, policy=policy)
        if answer.status == "ok":
            recalls = self.hints.take_recalls(sync.header.spool)
            answer.recalls.extend(Recall(budget, value) for budget, value in sorted(recalls))
        return answer

    async def usage(self, identity: SidecarIdentity, usage: EncodedUsage) -> UsageAnswer:
        """Book usage events and refusals, each once; what cannot be true is kept aside.

        Raises MessageError, SpoolOfAnotherError.
        """
        check_header(usage.header, organization=identity.organization)
        sidecar = await self._threads.run(_sidecar, identity.sidecar)
        booked = await self._threads.run(take_usage, sidecar=sidecar, usage=usage, now=_now())
        contradicting = len(booked.contradictions)
        for result, count in (
            ("booked", booked.accepted),
            ("duplicate", booked.duplicates),
            ("contradicting", contradicting),
            ("untrue", booked.rejected - contradicting),
        ):
            metrics.USAGE_EVENTS.labels(result).inc(count)
        return UsageAnswer(*booked[:2], usage.position, rejected=booked.rejected)

    async def delegate(self, identity: SidecarIdentity, message: Delegate) -> Delegated:
        """Let a session give to a child session; what sidecars have idle is called home for it.

        Raises MessageError, SpoolOfAnotherError, DelegationError.
        """
        check_header(message.header, organization=identity.organization)
        policy = await self.policies.get(identity.organization)
        wish, organization = wish_of(message, policy), UUID(identity.organization)
        for patience in range(RECALLS_OF_A_GIFT, -1, -1):
            try:
                given = await self._threads.run(
                    delegate, organization_id=organization, wish=wish, now=_now()
                )
                break
            except NotFreeError as error:
                if not patience or not error.held:
                    raise
                await self._call_home(str(error.budget.id), wish.values)
                await asyncio.sleep(RECALL_PAUSE_S)
        return told(given, policy)

    async def end_delegation(
        self, identity: SidecarIdentity, message: EndDelegation
    ) -> EndDelegation:
        """End a child session, as its parent's or its own agent asks.

        Raises MessageError, SpoolOfAnotherError, DelegationNotFoundError.
        """
        check_header(message.header, organization=identity.organization)
        rows = await self._threads.run(
            end_delegation,
            organization_id=UUID(identity.organization),
            handle=to_uuid(message.delegation),
            agent_id=to_uuid(message.attribution.agent),
            now=_now(),
        )
        await self._recall_of([str(row.child_id) for row in rows])
        return message

    async def _call_home(self, budget: str, values: Mapping[str, str]) -> None:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT id::text FROM budgets_balance WHERE (budget_id, value) = (%s, %s)",
                [UUID(budget), values[budget]],
            )
            balances = [row[0] async for row in cursor]
        await self._recall_of(balances)

    async def _recall_of(self, balances: list[str]) -> None:
        async with self._pool.connection() as connection:
            recalls = await holders(connection, balances)
        if recalls:
            await self._notify_recalls(recalls)

    # ------------------------------------------------------------------ in the background

    def _recall(self, recalls: Recalls) -> None:
        self._start_task(self._notify_recalls(recalls), name="recall")

    async def _notify_recalls(self, recalls: Recalls) -> None:
        """Outside of any grant's transaction: NOTIFY takes a lock at commit."""
        async with self._pool.connection() as connection:
            for start in range(0, len(recalls), 50):
                payload = msgspec.json.encode(recalls[start : start + 50]).decode()
                await connection.execute("SELECT pg_notify(%s, %s)", [RECALL_CHANNEL, payload])

    async def _arm(self) -> None:
        """Arm budgets once every live book works by a policy that names them (L12)."""
        while True:
            await asyncio.sleep(ARM_EVERY_S)
            try:
                await self._threads.run(arm_what_is_known, now=_now())
            except Exception:
                log.exception("budgets could not be armed; trying again")


def arm_what_is_known(*, now: datetime) -> None:
    """Arm the budgets that every book has acknowledged, or that books cannot work without.

    Not after a failover until every spool has told: it may have forgotten who works by what (L11).
    """
    arming = Budget.objects.filter(state=BudgetState.ARMING, archived_at__isnull=True)
    for organization_id in set(arming.values_list("organization_id", flat=True)):
        if not is_learning(organization_id):
            oldest = _oldest_in_use(organization_id)
            arm_budgets(organization_id=organization_id, revision=oldest, now=now)


def _oldest_in_use(organization_id: UUID) -> int:
    # by the database's clock, which wrote the deadlines
    live = Spool.objects.filter(organization_id=organization_id, policy_valid_until__gt=Now())
    revisions = list(live.values_list("policy_revision", flat=True))
    if revisions:
        return min(revisions)
    return Organization.objects.values_list("policy_revision", flat=True).get(pk=organization_id)


def _signer() -> Callable[[str, Balance, int], str]:
    key = derived_key("grant-mac")

    def sign(lease: str, balance: Balance, amount: int) -> str:
        # not its id: a balance that a failover forgot is made anew
        place = f"{balance.budget}:{balance.value}:{balance.window_start_s}"
        return hmac.digest(key, f"{lease}:{place}:{amount}".encode(), "sha256").hex()

    return sign


def _conninfo() -> str:
    """The address that Django uses, the test database included."""
    settings = django_connection.settings_dict
    parts = {
        "dbname": settings["NAME"],
        "user": settings["USER"],
        "password": settings["PASSWORD"],
        "host": settings["HOST"],
        "port": settings["PORT"],
    }
    known = {name: value for name, value in parts.items() if value}
    return conninfo.make_conninfo(**known, **KEEPALIVE, application_name="comptroller-leases")


def _may_lack(setting: str) -> bool:
    """A test database may run without fsync; the launcher and production never do."""
    is_throwaway = str(django_connection.settings_dict["NAME"]).startswith("test_")
    return is_throwaway and setting in THROWAWAY


def _sidecar(sidecar_id: str) -> Sidecar:
    return Sidecar.objects.get(pk=sidecar_id)


def _now() -> datetime:
    return datetime.now(tz=UTC)
