"""The ledger's side of `benchmarks/leases.py`: a coordinator, and its plain rival, under load.

    python benchmarks/ledger_load.py < GIVEN.json > ANSWER.json

Both write to the same durable PostgreSQL, in turns. The rival does what a careful service without
a coordinator does: for each grant one transaction with `SELECT … FOR UPDATE`, the check, the
lease, its transfer and the balance; on as many connections as there are clients.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")

import django

django.setup()

import uvloop
from asgiref.sync import sync_to_async
from psycopg_pool import AsyncConnectionPool

from budgets.domain.budgets import BudgetSpec, create_budget
from controlplane.audit.domain import Actor
from controlplane.identity.domain import create_agent
from controlplane.identity.ids import new_id, new_id_text
from controlplane.identity.models import Organization
from enforcement.domain.enrolment import enrol_sidecar
from enforcement.leasing import service as leasing
from enforcement.leasing.auth import SidecarIdentity
from enforcement.leasing.later import Connection
from enforcement.leasing.service import LeaseService
from enforcement.rules.policy import ScopeKind, Unit
from enforcement.rules.wire import Attribution, Group, GroupItem, Header, Hello, LeaseReport, Sync

ACTOR = Actor.system("benchmark")
LIMIT = 2**60
AMOUNT = 1_000
LEASE_TTL_MS = 10_000  # as the stack's own web process: its sweeper looks at these leases too
Step = Callable[["Client"], Awaitable[int]]


class Client:
    """A book that asks again as soon as it was answered."""

    def __init__(self, site: "Site") -> None:
        self.site = site
        self.spool = str(new_id())
        self.epoch = 0
        self.sequence = 0
        self.revision = 0
        self.incarnation = ""
        self.leases: list[str] = []
        self.used = 0

    def header(self) -> Header:
        self.sequence += 1
        return Header(
            organization=self.site.identity.organization,
            spool=self.spool,
            epoch=self.epoch,
            incarnation=self.incarnation,
            policy_revision=self.revision,
            sequence=self.sequence,
        )

    async def greet(self) -> None:
        welcome = await self.site.service.hello(
            self.site.identity,
            Hello(self.header(), boot=self.spool, kernel_boot_id="k", clean_shutdown=True),
        )
        self.epoch, self.incarnation = welcome.epoch, welcome.incarnation
        self.revision = welcome.policy.revision

    async def ask(self, groups: int = 1) -> int:
        """One Sync with groups of one balance each; the number of leases that were granted."""
        item = GroupItem(self.site.budget, "", AMOUNT, AMOUNT, AMOUNT)
        wanted = [
            Group(new_id_text(), Attribution(agent=self.site.agent), [item]) for _ in range(groups)
        ]
        answer = await self.site.service.sync(
            self.site.identity, Sync(header=self.header(), groups=wanted)
        )
        self.leases.extend(grant.lease for grant in answer.grants)
        assert len(answer.grants) == groups, answer
        return len(answer.grants)

    async def report(self) -> int:
        """One Sync that raises the watermark of every lease; the number of leases."""
        self.used += 1
        reports = [LeaseReport(lease, used=self.used, returned=0) for lease in self.leases]
        answer = await self.site.service.sync(
            self.site.identity, Sync(header=self.header(), reports=reports)
        )
        assert all(ack.used == self.used for ack in answer.acks)
        return len(answer.acks)


class Site:
    """An agent with one hot budget, and the service that leases it."""

    def __init__(self, service: LeaseService, made: dict[str, str]) -> None:
        self.service = service
        self.identity = SidecarIdentity(made["sidecar"], made["organization"])
        self.agent = made["agent"]
        self.budget = made["budget"]


def make_scene() -> dict[str, str]:
    owner = Organization.objects.get(slug="example")
    common: dict[str, Any] = {
        "organization_id": owner.pk,
        "actor": ACTOR,
        "now": datetime.now(tz=UTC),
    }
    agent = create_agent(slug="leases", name="Leases", **common)
    sidecar = enrol_sidecar(name="leases", **common).sidecar
    spec = BudgetSpec(
        name="hot",
        scope_kind=ScopeKind.ORGANIZATION,
        scope_id=owner.pk,
        unit=Unit.TOKENS,
        limit_amount=LIMIT,
    )
    budget = create_budget(spec=spec, **common)
    return {
        "organization": str(owner.pk),
        "agent": str(agent.pk),
        "sidecar": str(sidecar.pk),
        "budget": str(budget.pk),
    }


async def load(clients: list[Client], step: Step, seconds: float) -> dict[str, Any]:
    """Every client in its own closed loop, for so long; done per second and times of answers."""
    times: list[float] = []
    done = 0
    deadline = time.perf_counter() + seconds

    async def run(client: Client) -> None:
        nonlocal done
        while (began := time.perf_counter()) < deadline:
            granted = await step(client)
            done += granted
            times.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(run(client) for client in clients))
    took = time.perf_counter() - began
    times.sort()
    return {
        "rate": done / took,
        "p50_ms": times[len(times) // 2] * 1000,
        "p99_ms": times[int(len(times) * 0.99)] * 1000,
    }


class Plain:
    """The rival: one transaction for each grant, row locks, no batching."""

    def __init__(self, pool: AsyncConnectionPool[Connection], site: Site, balance: UUID) -> None:
        self._pool = pool
        self._site = site
        self._balance = balance

    async def ask(self, client: Client) -> int:
        lease, now = new_id(), datetime.now(tz=UTC)
        owner = UUID(self._site.identity.organization)
        async with self._pool.connection() as connection, connection.transaction():
            cursor = await connection.execute(
                "SELECT limit_amount - spent_amount - held_amount - suspense_amount"
                " - overrun_amount FROM budgets_balance WHERE id = %s FOR UPDATE",
                [self._balance],
            )
            row = await cursor.fetchone()
            assert row is not None
            assert row[0] >= AMOUNT
            await connection.execute(
                "UPDATE budgets_balance SET held_amount = held_amount + %s, updated_at = %s"
                " WHERE id = %s",
                [AMOUNT, now, self._balance],
            )
            await connection.execute(
                "INSERT INTO budgets_lease (id, organization_id, balance_id, spool, epoch,"
                " incarnation, group_key, group_hash, amount, granted_at, expires_at, used_amount,"
                " returned_amount, overrun_amount, open_amount, state)"
                " VALUES (%s, %s, %s, %s, 1, %s, %s, '', %s, %s, %s, 0, 0, 0, 0, 'granted')",
                [
                    *(lease, owner, self._balance, UUID(client.spool), UUID(client.incarnation)),
                    *(new_id(), AMOUNT, now, now + timedelta(milliseconds=LEASE_TTL_MS)),
                ],
            )
            await connection.execute(
                "INSERT INTO budgets_transfer (id, organization_id, balance_id, lease_id, kind,"
                " amount, at, actor, reason) VALUES (%s, %s, %s, %s, 'grant', %s, %s, '', '')",
                [new_id(), owner, self._balance, lease, AMOUNT, now],
            )
        return 1


async def close_leases(pool: AsyncConnectionPool[Connection], balance: UUID) -> None:
    """Between two measurements: what was leased is home, so that none of it expires in the next."""
    async with pool.connection() as connection, connection.transaction():
        await connection.execute(
            "SELECT id FROM budgets_balance WHERE id = %s FOR NO KEY UPDATE", [balance]
        )
        await connection.execute(
            "UPDATE budgets_lease SET returned_amount = amount - used_amount, open_amount = 0,"
            " state = 'settled', closed_at = now()"
            " WHERE balance_id = %s AND state IN ('granted', 'suspended')",
            [balance],
        )
        await connection.execute(
            "UPDATE budgets_balance SET held_amount = 0, suspense_amount = 0 WHERE id = %s",
            [balance],
        )


async def measure(given: dict[str, Any]) -> dict[str, Any]:
    service = LeaseService(lease_ttl_ms=LEASE_TTL_MS)
    await service.start()
    try:
        site = Site(service, await sync_to_async(make_scene)())
        clients = [Client(site) for _ in range(given["clients"])]
        for client in clients:
            await client.greet()
        await clients[0].ask()
        pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            leasing._conninfo(),  # noqa: SLF001 -- the very database that the service uses
            min_size=given["clients"],
            max_size=given["clients"],
            open=False,
        )
        await pool.open(wait=True)
        async with pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT id FROM budgets_balance WHERE budget_id = %s", [UUID(site.budget)]
            )
            row = await cursor.fetchone()
        assert row is not None
        plain = Plain(pool, site, row[0])
        seconds = given["seconds"]
        rounds: dict[str, list[dict[str, Any]]] = {}
        for _ in range(given["rounds"]):  # in turns: the machine is shared
            for client in clients:
                client.leases.clear()
            for name, some, step in (
                ("plain, 1 client", clients[:1], plain.ask),
                (f"plain, {len(clients)} clients", clients, plain.ask),
                ("coordinator, 1 client", clients[:1], Client.ask),
                (f"coordinator, {len(clients)} clients", clients, Client.ask),
            ):
                rounds.setdefault(name, []).append(await load(some, step, seconds))
                await close_leases(pool, row[0])
            for client in clients:
                client.leases.clear()
                client.used = 0
                await client.ask(100)
            found = await load(clients, Client.report, seconds)
            rounds.setdefault("watermarks, 100 in a Sync", []).append(found)
            await close_leases(pool, row[0])
        await pool.close()
        return rounds
    finally:
        await service.stop()


if __name__ == "__main__":
    json.dump(uvloop.run(measure(json.load(sys.stdin))), sys.stdout)  # as the web process does
