"""A control plane in one process: the production ledger rules behind real HTTP, no database."""

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from enforcement.rules.grantqueue import GrantQueue
from enforcement.rules.inventory import inventory_item
from enforcement.rules.ledger import Ask, Balance, Lease, Ledger
from enforcement.rules.policy import (
    AgentPolicy,
    BudgetPolicy,
    KeyPolicy,
    OrderKind,
    PolicySnapshot,
    PricePolicy,
    ScopeKind,
    Unit,
)
from enforcement.rules.sessiontree import Level, Lineage, key_of, seal, unseal
from enforcement.rules.spools import Spool, greet, owes_word, standing
from enforcement.rules.wire import (
    Delegate,
    Delegated,
    Denial,
    DenialCause,
    Group,
    Hello,
    Order,
    OrderAck,
    Recall,
    Sync,
    SyncAnswer,
    Usage,
    UsageAnswer,
    UsageEvent,
    Welcome,
)

ORGANIZATION = "organization-1"
PEPPER = "00" * 32
INCARNATION = "incarnation-1"
TOKEN = "sidecar-token"


def key_policy(key: str, *, expires_at_ms: int | None = None) -> KeyPolicy:
    digest = hmac.new(bytes.fromhex(PEPPER), key.encode(), hashlib.sha256).hexdigest()
    return KeyPolicy(id=f"id-of-{key}", hash=digest, expires_at_ms=expires_at_ms)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Plane:
    """What a sidecar talks to in tests."""

    def __init__(
        self,
        *,
        agents: list[AgentPolicy],
        budgets: list[BudgetPolicy] | None = None,
        prices: list[PricePolicy] | None = None,
        policy_ttl_ms: int = 30_000,
        lease_ttl_ms: int = 10_000,
        **policy: Any,
    ) -> None:
        self.policy = PolicySnapshot(
            organization=ORGANIZATION,
            revision=1,
            pepper=PEPPER,
            agents=agents,
            budgets=budgets or [],
            prices=prices or [],
            **policy,
        )
        self.policy_ttl_ms = policy_ttl_ms
        self.lease_ttl_ms = lease_ttl_ms
        self._ids = 0
        self.ledger = Ledger(
            new_id=self._new_id,
            sign=lambda *_: "mac",
            lease_ttl_ms=lease_ttl_ms,
            grace_ms=500,
        )
        self.spools: dict[str, Spool] = {}
        self.queue = GrantQueue()
        self.groups: dict[str, list[str] | Denial] = {}
        self.orders: list[Order] = []
        self.acknowledgements: dict[str, OrderAck] = {}
        self.events: dict[str, UsageEvent] = {}
        self.duplicates = 0
        self.refusals: dict[str, int] = {}
        self.hellos: list[Hello] = []
        self.syncs: list[Sync] = []
        self.recalls: dict[str, list[Recall]] = {}
        self.up = True
        self.usage_status = 200
        self.usage_most_bytes = 1 << 30
        self._hints: set[asyncio.Event] = set()
        self._server: asyncio.Server | None = None
        self.url = ""

    def _new_id(self) -> str:
        self._ids += 1
        return f"lease-{self._ids}"

    # ------------------------------------------------------------------ what tests do

    def change_policy(self, **changes: Any) -> None:
        revision = self.policy.revision + 1
        self.policy = msgspec.structs.replace(self.policy, revision=revision, **changes)
        self.hint()

    def order(
        self, kind: OrderKind, agent: str, *, session: str = "", drain: bool = False
    ) -> Order:
        cursor = len(self.orders) + 1
        scope = ScopeKind.SESSION if session else ScopeKind.AGENT
        order = Order(
            f"order-{cursor}",
            cursor,
            kind,
            scope,
            agent,
            "as asked",
            scope_session=session,
            drain=drain,
        )
        self.orders.append(order)
        self.hint()
        return order

    def hint(self) -> None:
        for hint in self._hints:
            hint.set()

    def balance(self, budget: str, value: str = "") -> Balance:
        return self.ledger.balances[f"{budget}/{value}"]

    @property
    def tokens(self) -> tuple[int, int]:
        """Input and output tokens of all events."""
        events = self.events.values()
        return sum(e.input_tokens for e in events), sum(e.output_tokens for e in events)

    # ------------------------------------------------------------------ messages

    def _delegate(self, message: Delegate) -> Delegated:
        """Gives what is asked of the one budget, as a child balance of its own."""
        facts = message.attribution
        key = key_of(bytes.fromhex(PEPPER))
        above = [Level(facts.session, facts.agent, [])]
        if facts.delegation:
            above = unseal(facts.delegation, key=key).levels
        (budget, amount) = next(iter(message.amounts.items()))
        child = f"{budget}/{message.child_session}"
        limit = int(amount)
        self.ledger.balances[child] = Balance(
            child, budget, message.child_session, 0, limit=limit, cap=limit
        )
        level = Level(message.child_session, message.child_agent or facts.agent, [budget])
        lineage = Lineage("delegation-1", [level, *above])
        return Delegated("delegation-1", seal(lineage, key=key), message.child_session, 0)

    def _hello(self, hello: Hello) -> Welcome:
        self.hellos.append(hello)
        spool = self.spools.setdefault(hello.header.spool, Spool(hello.header.spool))
        epoch = greet(spool, boot=hello.boot, incarnation=INCARNATION)
        known = {item.lease for item in hello.inventory}
        unknown = [
            inventory_item(lease, self.ledger.balances[lease.balance], sign=lambda *_: "mac")
            for lease in self.ledger.leases.values()
            if lease.state in ("granted", "suspended")
            and owes_word(lease, spool)
            and lease.id not in known
        ]
        return Welcome(
            organization=ORGANIZATION,
            incarnation=INCARNATION,
            epoch=epoch,
            policy=self.policy,
            policy_ttl_ms=self.policy_ttl_ms,
            lease_ttl_ms=self.lease_ttl_ms,
            order_cursor=len(self.orders),
            unknown=unknown,
        )

    async def _sync(self, sync: Sync) -> SyncAnswer:
        self.syncs.append(sync)
        header = sync.header
        spool = self.spools.get(header.spool)
        status = standing(spool, header, incarnation=INCARNATION)
        if status != "ok" or spool is None:
            return SyncAnswer(status=status, incarnation=INCARNATION)
        answer = SyncAnswer(
            incarnation=INCARNATION,
            policy_revision=self.policy.revision,
            policy_ttl_ms=self.policy_ttl_ms,
            policy=self.policy if header.policy_revision < self.policy.revision else None,
            orders=[order for order in self.orders if order.cursor > header.order_cursor],
            order_cursor=len(self.orders),
        )
        for report in sync.reports:
            lease = self.ledger.leases.get(report.lease)
            recalled = lease is not None and self.queue.is_recalled(lease.balance, now_ms=now_ms())
            ack = self.ledger.report(report, spool=spool.id, now_ms=now_ms(), recalled=recalled)
            if ack is not None:
                answer.acks.append(ack)
        for acknowledgement in sync.acknowledgements:
            self.acknowledgements[acknowledgement.order] = acknowledgement
        answer.recalls.extend(self.recalls.pop(spool.id, []))
        if header.policy_revision == self.policy.revision:
            await self._grant(sync, spool, answer)
        return answer

    async def _grant(self, sync: Sync, spool: Spool, answer: SyncAnswer) -> None:
        for group in sync.groups:
            if group.key not in self.groups:
                self._submit(group, spool)
        while any(group.key not in self.groups for group in sync.groups):
            self.pump()
            if any(group.key not in self.groups for group in sync.groups):
                await asyncio.sleep(0.005)
        for group in sync.groups:
            outcome = self.groups[group.key]
            if isinstance(outcome, Denial):
                answer.denials.append(outcome)
                continue
            for lease in outcome:
                message = self.ledger.grant_message(self.ledger.leases[lease], now_ms=now_ms())
                answer.grants.append(message)

    def _submit(self, group: Group, spool: Spool) -> None:
        items = []
        for item in group.items:
            balance_id = f"{item.budget}/{item.value}"
            if balance_id not in self.ledger.balances:
                budget = next(b for b in self.policy.budgets if b.id == item.budget)
                if self._is_full(budget, item.value):
                    cause = DenialCause.MAX_VALUES
                    self.groups[group.key] = Denial(group.key, item.budget, item.value, cause, 0)
                    return
                self.ledger.balances[balance_id] = Balance(
                    balance_id,
                    item.budget,
                    item.value,
                    0,
                    budget.limit,
                    budget.limit,
                    lends=budget.unit is Unit.CONCURRENCY,
                )
            items.append((balance_id, item))
        self.queue.submit(Ask(group, spool.id, spool.epoch, spool.incarnation, items, now_ms()))

    def _is_full(self, budget: BudgetPolicy, value: str) -> bool:
        """Whether a split has no room for another value."""
        own = [
            b
            for b in self.ledger.balances.values()
            if (b.budget, b.value != "*") == (budget.id, True)
        ]
        return value not in ("", "*") and len(own) >= budget.max_values

    def pump(self) -> None:
        answers = self.queue.pump(self.ledger, now_ms=now_ms())
        for key, leases in answers.granted.items():
            self.groups[key] = [lease.id for lease in leases]
        for denial in answers.denied:
            self.groups[denial.group] = denial
        for balance_id in answers.recalls:
            balance = self.ledger.balances[balance_id]
            holders = {
                x.spool for x in self.ledger.leases.values() if x.balance == balance_id and x.rest
            }
            for spool in holders:
                self.recalls.setdefault(spool, []).append(Recall(balance.budget, balance.value))
            self.hint()
        for balance in self.ledger.balances.values():
            assert balance.spent + balance.held + balance.suspense <= balance.cap

    def expire(self) -> None:
        for lease in self.ledger.leases.values():
            self.ledger.expire(lease.id, now_ms=now_ms())

    def _usage(self, usage: Usage) -> UsageAnswer:
        fresh = [event for event in usage.events if event.id not in self.events]
        self.duplicates += len(usage.events) - len(fresh)
        self.events |= {event.id: event for event in fresh}
        for refusal in usage.refusals:
            self.refusals[refusal.code] = self.refusals.get(refusal.code, 0) + refusal.count
        return UsageAnswer(len(fresh), len(usage.events) - len(fresh), usage.position)

    # ------------------------------------------------------------------ HTTP

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Plane"]:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        try:
            yield self
        finally:
            self._server.close()
            self.hint()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, path, _ = head.split(" ", 2)
                if not self.up or f"authorization: Bearer {TOKEN}\r\n" not in head:
                    return
                if method == "GET":
                    await self._watch(writer)
                    return
                length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
                body = await reader.readexactly(length)
                status, answer = await self._dispatch(path.rsplit("/", 1)[1], body)
                if not self.up:
                    return
                writer.write(
                    b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                    % (status, len(answer), answer)
                )
                await writer.drain()
        except (EOFError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _dispatch(self, name: str, body: bytes) -> tuple[int, bytes]:
        if name == "hello":
            return 200, msgspec.json.encode(self._hello(msgspec.json.decode(body, type=Hello)))
        if name == "sync":
            answer = await self._sync(msgspec.json.decode(body, type=Sync))
            return 200, msgspec.json.encode(answer)
        if name == "delegate":
            given = self._delegate(msgspec.json.decode(body, type=Delegate))
            return 200, msgspec.json.encode(given)
        if name == "undelegate":
            return 404, b'{"detail": "no such delegation"}'
        if self.usage_status != 200:
            return self.usage_status, b"{}"
        if len(body) > self.usage_most_bytes:
            return 413, b"{}"
        return 200, msgspec.json.encode(self._usage(msgspec.json.decode(body, type=Usage)))

    async def _watch(self, writer: asyncio.StreamWriter) -> None:
        hint = asyncio.Event()
        self._hints.add(hint)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        try:
            while self.up and self._server is not None and self._server.is_serving():
                try:
                    async with asyncio.timeout(1):
                        await hint.wait()
                    hint.clear()
                    writer.write(b"event: hint\ndata: {}\n\n")
                except TimeoutError:
                    writer.write(b": beat\n\n")
                await writer.drain()
        finally:
            self._hints.discard(hint)


def lease_states(plane: Plane) -> list[tuple[str, int, int]]:
    """State, used and returned of every lease: for assertions."""
    leases: list[Lease] = list(plane.ledger.leases.values())
    return [(lease.state.value, lease.used, lease.returned) for lease in leases]
