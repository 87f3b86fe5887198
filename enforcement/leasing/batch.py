"""One transaction of the coordinator: lock, run the rules, write back."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec

from controlplane.identity.ids import new_id
from enforcement.errors import GroupKeyReusedError, SpoolOfAnotherError
from enforcement.leasing import spools, store
from enforcement.leasing.auth import SidecarIdentity
from enforcement.leasing.balances import Key, Wanted, open_balances, wanted
from enforcement.leasing.policies import Policy
from enforcement.leasing.spools import SpoolRow
from enforcement.leasing.store import Connection
from enforcement.rules.grantqueue import GrantQueue
from enforcement.rules.ledger import Ask, Balance, Ledger, committed_over_cap, inventory_item
from enforcement.rules.lots import InvariantError
from enforcement.rules.spools import standing
from enforcement.rules.wire import Denial, DenialCause, Grant, Group, GroupItem, Sync, SyncAnswer

MAX_DUE = 500


@dataclass(frozen=True)
class Terms:
    """What a ledger promises: how long things live without word, and how grants are signed."""

    sign: Callable[[str, Balance, int], str]
    lease_ttl_ms: int = 10_000
    grace_ms: int = 1_000
    policy_ttl_ms: int = 30_000


@dataclass
class Work:
    """One Sync on its way: answered when all of its groups are resolved."""

    sync: Sync
    identity: SidecarIdentity
    policy: Policy
    answer: SyncAnswer = field(default_factory=SyncAnswer)
    unresolved: set[str] = field(default_factory=set)

    @property
    def spool(self) -> str:
        return self.sync.header.spool

    @property
    def organization(self) -> str:
        return self.identity.organization


@dataclass
class Waiting:
    """Groups that wait for their grant, kept between transactions."""

    queue: GrantQueue = field(default_factory=GrantQueue)
    works: dict[str, Work] = field(default_factory=dict)  # group key → who is to be told
    hashes: dict[str, str] = field(default_factory=dict)  # group key → its content
    spools: dict[str, str] = field(default_factory=dict)  # group key → whose it is
    learned: dict[str, set[str]] = field(default_factory=dict)  # incarnation → organizations


def new_ledger(terms: Terms) -> Ledger:
    """An empty working set."""
    return Ledger(
        new_id=lambda: str(new_id()),
        sign=terms.sign,
        lease_ttl_ms=terms.lease_ttl_ms,
        grace_ms=terms.grace_ms,
    )


Outcome = Denial | list[Grant]
Known = dict[tuple[str, str], list[str]]  # (spool, group key) → the leases granted before


class Batch:
    """The working set of one transaction. `resolved` and `recalls` are to be told after it."""

    def __init__(self, terms: Terms, works: list[Work], waiting: Waiting, *, sweep: bool) -> None:
        self.works = works
        self.resolved: dict[str, Outcome] = {}
        self.recalls: list[tuple[str, str, str]] = []
        self.superseded: list[Work] = []
        self.granted = self.expired = 0
        self._terms = terms
        self._waiting = waiting
        self._sweep = sweep
        self._ledger = new_ledger(terms)
        self._organizations: dict[str, str] = {}  # of each locked balance
        self._incarnation = ""
        self._asks: list[tuple[Work, Group, list[Wanted]]] = []
        self._opened: set[str] = set()  # balances of the groups that are new

    async def run(self, connection: Connection) -> None:
        """Raises GroupKeyReusedError, SpoolOfAnotherError, BusyError, InvariantError; then nothing
        has happened.
        """
        now, self._incarnation = await store.moment(connection)
        now_ms = int(now.timestamp() * 1000)
        rows = await spools.lock(connection, {work.spool for work in self.works})
        live = [work for work in self.works if self._admit(work, rows.get(work.spool))]
        for work in live:
            self._collect_groups(work, now)
        known = await self._known_groups(connection)
        asks = await self._open(connection, now, known)
        due = await self._lock(connection, now, live, known)
        self._ledger.turn(now_ms=now_ms)
        for work in live:
            self._book(work, now_ms)
        self.expired = sum(self._ledger.expire(lease, now_ms=now_ms) for lease in due)
        self._repeat(known, now_ms)
        for work, group, items in asks:
            self._submit(work, group, items, rows[work.spool], now_ms)
        recalled = self._pump(now_ms)
        self.granted = len(self._ledger.new_leases)
        broken = committed_over_cap(self._ledger.balances[i] for i in self._ledger.touched_balances)
        if broken:
            raise InvariantError(f"I1 would break: {broken}")
        async with connection.pipeline():  # nobody waits for the answers to these
            await store.write_back(
                connection,
                self._ledger,
                organizations=self._organizations,
                group_hashes=self._waiting.hashes,
                now=now,
            )
            if live:
                await self._note(connection, live, now)
        if live:
            await self._tell_spools(connection, live)
        if recalled:
            self.recalls = await store.holders(connection, recalled)

    # ------------------------------------------------------------------ who may speak

    def _admit(self, work: Work, row: SpoolRow | None) -> bool:
        work.answer = SyncAnswer(incarnation=self._incarnation)
        if row is not None and row.sidecar != work.identity.sidecar:
            raise SpoolOfAnotherError("this spool belongs to another sidecar")
        status = standing(
            row.spool if row else None, work.sync.header, incarnation=self._incarnation
        )
        work.answer.status = status
        return status == "ok"

    def _collect_groups(self, work: Work, now: datetime) -> None:
        """Find the balances of each group; what matches nothing is denied at once."""
        for group in work.sync.groups:
            budgets = work.policy.budgets_of(group)
            ttl_ms = self._terms.lease_ttl_ms
            wants: list[Wanted] | DenialCause = DenialCause.MISMATCH
            if budgets is not None:
                wants = wanted(group, budgets, now=now, lease_ttl_ms=ttl_ms)
            if isinstance(wants, DenialCause):
                work.answer.denials.append(_refuse(group, wants))
            else:
                pairs = zip(wants, group.items, strict=True)
                given = [w._replace(given=work.policy.is_given(group, i)) for w, i in pairs]
                self._asks.append((work, group, given))

    # ------------------------------------------------------------------ the working set

    async def _known_groups(self, connection: Connection) -> Known:
        """Groups that were granted before: the same key gets the same leases (L10)."""
        keys = {(work.spool, group.key): group for work, group, _ in self._asks}
        found = await store.leases_of_groups(connection, list(keys))
        for place, leases in found.items():
            if any(content != _content(keys[place]) for _, _, content in leases):
                raise GroupKeyReusedError(f"group {place[1]} was asked before with other content")
        return {place: [lease for lease, _, _ in leases] for place, leases in found.items()}

    async def _open(
        self, connection: Connection, now: datetime, known: Known
    ) -> list[tuple[Work, Group, list[str]]]:
        """The balance ids of the groups that are new."""
        learning = await self._learning(connection)
        fresh = []
        for work, group, wants in self._asks:
            if (work.spool, group.key) in known:
                continue  # granted before: told again, whatever the policy says now (L10)
            if work.organization in learning:
                work.answer.denials.append(_refuse(group, DenialCause.LEARNING))
            elif work.sync.header.policy_revision < work.policy.revision:
                work.answer.denials.append(_refuse(group, DenialCause.STALE_POLICY))
            else:
                fresh.append((work, group, wants))
        balances: dict[Key, str | DenialCause] = {}
        for organization in sorted({work.organization for work, _, _ in fresh}):
            wants = [w for work, _, ws in fresh if work.organization == organization for w in ws]
            balances |= await open_balances(connection, wants, organization=organization, now=now)
        asks = []
        for work, group, wants in fresh:
            items: list[str] = []
            for item, want in zip(group.items, wants, strict=True):
                place = balances[want.key]
                if isinstance(place, DenialCause):
                    work.answer.denials.append(_refuse(group, place, item=item))
                    break
                items.append(place)
            else:
                asks.append((work, group, items))
        self._opened = {balance for _, _, items in asks for balance in items}
        return asks

    async def _learning(self, connection: Connection) -> set[str]:
        """The organizations whose ledger has not heard of all leases yet (L11)."""
        learned = self._waiting.learned
        unsure = {work.organization for work, _, _ in self._asks} - learned.get(
            self._incarnation, set()
        )
        if not unsure:
            return set()
        learning = await spools.still_learning(connection, unsure)
        learned.setdefault(self._incarnation, set()).update(unsure - learning)
        return learning

    async def _lock(
        self, connection: Connection, now: datetime, live: list[Work], known: Known
    ) -> list[str]:
        """Lock balances by id, then leases by id; returns the leases that are due to expire."""
        leases = {report.lease for work in live for report in work.sync.reports}
        leases |= {lease for group in known.values() for lease in group}
        due: dict[str, str] = {}
        if self._sweep:
            grace = timedelta(milliseconds=self._terms.grace_ms)
            after = now + timedelta(milliseconds=self._terms.lease_ttl_ms) + grace
            due = await store.due_leases(connection, before=now - grace, after=after, most=MAX_DUE)
        places = await store.balances_of_leases(connection, leases) | due
        wanted_balances = self._opened | set(places.values()) | self._waiting.queue.balances()
        if wanted_balances:
            self._organizations = await store.lock_balances(
                connection, self._ledger, wanted_balances
            )
        if places:
            await store.lock_leases(connection, self._ledger, places)
        return list(due)

    # ------------------------------------------------------------------ the rules

    def _book(self, work: Work, now_ms: int) -> None:
        for report in work.sync.reports:
            lease = self._ledger.leases.get(report.lease)
            recalled = lease is not None and self._waiting.queue.is_recalled(
                lease.balance, now_ms=now_ms
            )
            ack = self._ledger.report(report, spool=work.spool, now_ms=now_ms, recalled=recalled)
            if ack is not None:
                work.answer.acks.append(ack)

    def _repeat(self, known: Known, now_ms: int) -> None:
        for work, group, _ in self._asks:
            for lease in known.get((work.spool, group.key), ()):
                grant = self._ledger.grant_message(self._ledger.leases[lease], now_ms=now_ms)
                work.answer.grants.append(grant)

    def _submit(
        self, work: Work, group: Group, items: list[str], row: SpoolRow, now_ms: int
    ) -> None:
        content = _content(group)
        if self._waiting.hashes.setdefault(group.key, content) != content:
            raise GroupKeyReusedError(f"group {group.key} waits with other content")
        if self._waiting.spools.setdefault(group.key, row.spool.id) != row.spool.id:
            raise GroupKeyReusedError(f"group {group.key} waits for another book")
        pairs = list(zip(items, group.items, strict=True))
        self._waiting.queue.submit(
            Ask(group, row.spool.id, row.spool.epoch, self._incarnation, pairs, now_ms)
        )
        older = self._waiting.works.get(group.key)
        if older is not None and older is not work:  # the same ask came again on its own
            older.unresolved.discard(group.key)
            self.superseded.append(older)
        self._waiting.works[group.key] = work
        work.unresolved.add(group.key)

    def _pump(self, now_ms: int) -> list[str]:
        answers = self._waiting.queue.pump(self._ledger, now_ms=now_ms)
        for key, leases in answers.granted.items():
            self.resolved[key] = [self._ledger.grant_message(x, now_ms=now_ms) for x in leases]
        for denial in answers.denied:
            self.resolved[denial.group] = denial
        return answers.recalls

    # ------------------------------------------------------------------ the spools

    async def _note(self, connection: Connection, live: list[Work], now: datetime) -> None:
        await spools.note(connection, live, now=now, policy_ttl_ms=self._terms.policy_ttl_ms)
        await spools.acknowledge(connection, live, now=now)

    async def _tell_spools(self, connection: Connection, live: list[Work]) -> None:
        """What else an answer carries: orders, leases to account for, the policy's lease."""
        await spools.add_orders(connection, live)
        owed = await store.owed_leases(connection, {work.spool for work in live})
        for work in live:
            reported = {report.lease for report in work.sync.reports}
            for lease, balance in owed:
                if lease.spool == work.spool and lease.id not in reported:
                    item = inventory_item(lease, balance, sign=self._terms.sign)
                    work.answer.unsettled.append(item)
            work.answer.policy_revision = work.policy.revision
            work.answer.policy_ttl_ms = self._terms.policy_ttl_ms
            if work.sync.header.policy_revision < work.policy.revision:
                work.answer.policy = work.policy.snapshot


def _refuse(group: Group, cause: DenialCause, *, item: GroupItem | None = None) -> Denial:
    item = item or group.items[0]
    return Denial(group=group.key, budget=item.budget, value=item.value, cause=cause)


def _content(group: Group) -> str:
    """What a key stands for; a retry may be more patient, but may not ask for something else."""
    body = msgspec.json.encode((group.attribution, group.items))
    return hashlib.sha256(body).hexdigest()
