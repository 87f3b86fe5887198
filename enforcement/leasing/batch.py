"""One transaction of the coordinator: lock, run the rules, write back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from controlplane.identity.ids import new_id_text
from enforcement.errors import GroupKeyReusedError, SpoolOfAnotherError
from enforcement.leasing import spools, store
from enforcement.leasing.balances import (
    Key,
    Places,
    Wanted,
    find_balances,
    open_balances,
    wanted,
)
from enforcement.leasing.later import Connection
from enforcement.leasing.spools import SpoolRow
from enforcement.leasing.work import Work
from enforcement.rules.grantqueue import Answers, GrantQueue, content_of
from enforcement.rules.inventory import inventory_item
from enforcement.rules.ledger import (
    Ask,
    Balance,
    Lease,
    Ledger,
    committed_over_cap,
)
from enforcement.rules.lots import InvariantError
from enforcement.rules.policy import BudgetPolicy
from enforcement.rules.spools import standing
from enforcement.rules.wire import (
    Denial,
    DenialCause,
    Grant,
    Group,
    GroupItem,
    Order,
    SyncAnswer,
)

MAX_DUE = 500


@dataclass(frozen=True)
class Terms:
    """What a ledger promises: how long things live without word, and how grants are signed."""

    sign: Callable[[str, Balance, int], str]
    lease_ttl_ms: int = 10_000
    grace_ms: int = 1_000
    policy_ttl_ms: int = 30_000


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
        new_id=new_id_text,
        sign=terms.sign,
        lease_ttl_ms=terms.lease_ttl_ms,
        grace_ms=terms.grace_ms,
    )


Outcome = Denial | list[Grant]
Known = dict[tuple[str, str], list[str]]  # (spool, group key) → the leases granted before


Matched = tuple[Group, list[BudgetPolicy] | None, str]  # with its budgets and its content


class Asked(NamedTuple):
    """A group of a message, the balances it needs, and what its key stands for."""

    work: Work
    group: Group
    wants: list[Wanted]
    content: str

    @property
    def place(self) -> tuple[str, str]:
        return self.work.spool, self.group.key


class Read(NamedTuple):
    """What a batch reads before it locks balances and leases."""

    known: Known
    found: dict[Key, str]  # the balances that there are
    places: dict[str, str]  # the balance of each lease that is reported
    due: dict[str, str]  # leases that may expire, with their balances
    orders: dict[str, list[Order]]
    owed: list[tuple[Lease, Balance]]


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
        self._asks: list[Asked] = []
        self._opened: set[str] = set()  # balances of the groups that are new

    async def run(self, connection: Connection) -> None:
        """Raises GroupKeyReusedError, SpoolOfAnotherError, BusyError, InvariantError; then nothing
        has happened.

        Four journeys to the database: who speaks, what there is, what is locked, what is written.
        """
        async with connection.pipeline():
            recalled = await self._work(connection)
        if recalled:
            self.recalls = await store.holders(connection, recalled)

    async def _work(self, connection: Connection) -> list[str]:
        """All but the recalls; returns the balances whose holders are to be recalled."""
        moment = await store.moment(connection)
        locked = await spools.lock(connection, {work.spool for work in self.works})
        matched = [_match(work) for work in self.works]  # while the database looks and locks
        now, self._incarnation = await moment.get()
        rows = await locked.get()
        now_ms = int(now.timestamp() * 1000)
        live = []
        for work, groups in zip(self.works, matched, strict=True):
            if self._admit(work, rows.get(work.spool)):
                live.append(work)
                self._collect_groups(work, groups, now)
        read = await self._read(connection, now, live)
        asks = await self._open(connection, now, read)
        await self._lock(connection, read)
        self._ledger.turn(now_ms=now_ms)
        for work in live:
            self._book(work, now_ms)
        self.expired = sum(self._ledger.expire(lease, now_ms=now_ms) for lease in read.due)
        self._repeat(read.known, now_ms)
        for asked, items in asks:
            self._submit(asked, items, rows[asked.work.spool], now_ms)
        answers = self._waiting.queue.pump(self._ledger, now_ms=now_ms)
        self.granted = len(self._ledger.new_leases)
        broken = committed_over_cap(self._ledger.balances[i] for i in self._ledger.touched_balances)
        if broken:
            raise InvariantError(f"I1 would break: {broken}")
        await self._write(connection, live, rows, now)
        self._resolve(answers, now_ms)
        self._tell_spools(live, read)
        return answers.recalls

    async def _write(
        self, connection: Connection, live: list[Work], rows: dict[str, SpoolRow], now: datetime
    ) -> None:
        """Nobody waits for the answers to these: the end of the pipeline does.

        What is told after the commit is made ready meanwhile.
        """
        await store.write_back(
            connection,
            self._ledger,
            organizations=self._organizations,
            group_hashes=self._waiting.hashes,
            now=now,
        )
        if live:
            ttl_ms = self._terms.policy_ttl_ms
            await spools.note(connection, live, rows, now=now, policy_ttl_ms=ttl_ms)
            await spools.acknowledge(connection, live, now=now)

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

    def _collect_groups(self, work: Work, matched: list[Matched], now: datetime) -> None:
        """Find the balances of each group; what matches nothing is denied at once."""
        ttl_ms = self._terms.lease_ttl_ms
        for group, budgets, content in matched:
            wants: list[Wanted] | DenialCause = DenialCause.MISMATCH
            if budgets is not None:
                wants = wanted(group, budgets, now=now, lease_ttl_ms=ttl_ms)
            if isinstance(wants, DenialCause):
                work.answer.denials.append(_refuse(group, wants))
            else:
                pairs = zip(wants, group.items, strict=True)
                given = [w._replace(given=work.policy.is_given(group, i)) for w, i in pairs]
                self._asks.append(Asked(work, group, given, content))

    # ------------------------------------------------------------------ the working set

    async def _read(self, connection: Connection, now: datetime, live: list[Work]) -> Read:
        """Everything that needs no lock, in one journey."""
        keys = {want.key for asked in self._asks for want in asked.wants}
        leases = {report.lease for work in live for report in work.sync.reports}
        grace = timedelta(milliseconds=self._terms.grace_ms)
        after = now + timedelta(milliseconds=self._terms.lease_ttl_ms) + grace
        groups = await store.leases_of_groups(connection, {asked.place for asked in self._asks})
        found = await find_balances(connection, keys)
        places = await store.balances_of_leases(connection, leases)
        most = MAX_DUE if self._sweep else 0
        due = await store.due_leases(connection, before=now - grace, after=after, most=most)
        orders = await spools.orders_unseen(connection, live)
        owed = await store.owed_leases(connection, {work.spool for work in live})
        return Read(
            known=self._known_groups(await groups.get()),
            found=await found.get(),
            places=await places.get(),
            due=await due.get(),
            orders=await orders.get(),
            owed=await owed.get(),
        )

    def _known_groups(self, found: dict[tuple[str, str], list[tuple[str, str]]]) -> Known:
        """Groups that were granted before: the same key gets the same leases (L10)."""
        for asked in self._asks:
            if any(content != asked.content for _, content in found.get(asked.place, ())):
                raise GroupKeyReusedError(
                    f"group {asked.group.key} was asked before with other content"
                )
        return {place: [lease for lease, _ in leases] for place, leases in found.items()}

    async def _open(
        self, connection: Connection, now: datetime, read: Read
    ) -> list[tuple[Asked, list[str]]]:
        """The groups that are new, each with the ids of its balances."""
        learning = await self._learning(connection)
        fresh = []
        for asked in self._asks:
            work, group = asked.work, asked.group
            if asked.place in read.known:
                continue  # granted before: told again, whatever the policy says now (L10)
            if work.organization in learning:
                work.answer.denials.append(_refuse(group, DenialCause.LEARNING))
            elif work.sync.header.policy_revision < work.policy.revision:
                work.answer.denials.append(_refuse(group, DenialCause.STALE_POLICY))
            else:
                fresh.append(asked)
        places: Places = {}
        for organization in sorted({asked.work.organization for asked in fresh}):
            wants = [w for a in fresh if a.work.organization == organization for w in a.wants]
            places |= await open_balances(
                connection, wants, read.found, organization=organization, now=now
            )
        asks = []
        for asked in fresh:
            items: list[str] = []
            for item, want in zip(asked.group.items, asked.wants, strict=True):
                place = places[want.key]
                if isinstance(place, DenialCause):
                    refusal = _refuse(asked.group, place, item=item)
                    asked.work.answer.denials.append(refusal)
                    break
                items.append(place)
            else:
                asks.append((asked, items))
        self._opened = {balance for _, items in asks for balance in items}
        return asks

    async def _learning(self, connection: Connection) -> set[str]:
        """The organizations whose ledger has not heard of all leases yet (L11)."""
        learned = self._waiting.learned
        unsure = {asked.work.organization for asked in self._asks} - learned.get(
            self._incarnation, set()
        )
        if not unsure:
            return set()
        learning = await spools.still_learning(connection, unsure)
        learned.setdefault(self._incarnation, set()).update(unsure - learning)
        return learning

    async def _lock(self, connection: Connection, read: Read) -> None:
        """Lock balances by id, then leases by id, into the working set."""
        repeated = {lease for leases in read.known.values() for lease in leases}
        of_repeated = await (await store.balances_of_leases(connection, repeated)).get()
        places = read.places | read.due | of_repeated
        balances = self._opened | set(places.values()) | self._waiting.queue.balances()
        if not balances:
            return
        organizations = await store.lock_balances(connection, self._ledger, balances)
        if places:
            leases = await store.lock_leases(connection, self._ledger, places)
            self._organizations = await organizations.get()
            await leases.get()
        else:
            self._organizations = await organizations.get()

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
        for asked in self._asks:
            for lease in known.get(asked.place, ()):
                grant = self._ledger.grant_message(self._ledger.leases[lease], now_ms=now_ms)
                asked.work.answer.grants.append(grant)

    def _submit(self, asked: Asked, items: list[str], row: SpoolRow, now_ms: int) -> None:
        work, group, _, content = asked
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

    def _resolve(self, answers: Answers, now_ms: int) -> None:
        for key, leases in answers.granted.items():
            self.resolved[key] = [self._ledger.grant_message(x, now_ms=now_ms) for x in leases]
        for denial in answers.denied:
            self.resolved[denial.group] = denial

    # ------------------------------------------------------------------ the spools

    def _tell_spools(self, live: list[Work], read: Read) -> None:
        """What else an answer carries: orders, leases to account for, the policy's lease."""
        owed: dict[str, list[tuple[Lease, Balance]]] = {}
        for lease, balance in read.owed:
            owed.setdefault(lease.spool, []).append((lease, balance))
        for work in live:
            seen = work.sync.header.order_cursor
            orders = read.orders.get(work.organization, ())
            work.answer.orders.extend(order for order in orders if order.cursor > seen)
            work.answer.order_cursor = max([seen, *(order.cursor for order in orders)])
            reported = {report.lease for report in work.sync.reports}
            for lease, balance in owed.get(work.spool, ()):
                if lease.id not in reported:
                    item = inventory_item(lease, balance, sign=self._terms.sign)
                    work.answer.unsettled.append(item)
            work.answer.policy_revision = work.policy.revision
            work.answer.policy_ttl_ms = self._terms.policy_ttl_ms
            if work.sync.header.policy_revision < work.policy.revision:
                work.answer.policy = work.policy.snapshot


def _match(work: Work) -> list[Matched]:
    return [(g, work.policy.budgets_of(g), content_of(g)) for g in work.sync.groups]


def _refuse(group: Group, cause: DenialCause, *, item: GroupItem | None = None) -> Denial:
    item = item or group.items[0]
    return Denial(group=group.key, budget=item.budget, value=item.value, cause=cause)
