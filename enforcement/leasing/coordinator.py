"""The coalescing coordinator: one transaction for all messages of a moment.

1. Messages that arrive while a transaction runs form the next batch; nothing waits on a timer.
2. A batch locks spools, balances and leases in one global order, runs the rules of
   `enforcement.rules.ledger`, writes back, commits, and only then answers (L9).
3. A group that does not fit waits in this process, in order of arrival, for at most its patience.
4. If a batch fails, its messages are tried one by one, so that a bad one harms nobody else. Where
   rows stay locked, or no database answers, books are told to come again: they have their lots.
"""

import asyncio
import logging
from collections.abc import Callable

from psycopg import errors
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from enforcement.errors import BusyError, EnforcementError
from enforcement.leasing import metrics
from enforcement.leasing.auth import SidecarIdentity
from enforcement.leasing.batch import Batch, Terms, Waiting
from enforcement.leasing.later import Connection
from enforcement.leasing.policies import Policy
from enforcement.leasing.work import Work
from enforcement.rules.wire import Denial, Sync, SyncAnswer

MAX_BATCH = 256
MAX_INBOX = 5_000
PUMP_S = 0.02
SWEEP_S = 1.0
# The plan of a foreign key's check that was made while a table was small walks all leases of a
# balance later on, and would stay for as long as its session. A plan for each check is right too,
# but costs a third of all grants.
FORGET_PLANS = "DISCARD PLANS"
RETRIES = 5
DEADLOCKED = (errors.DeadlockDetected, errors.SerializationFailure)
LOCKED = (*DEADLOCKED, errors.LockNotAvailable)

Recalls = list[tuple[str, str, str]]  # spool, budget, value

log = logging.getLogger(__name__)


class Coordinator:
    """One for each web process. `recall` is told whose lots should go home."""

    def __init__(
        self,
        pool: AsyncConnectionPool[Connection],
        terms: Terms,
        *,
        recall: Callable[[Recalls], None],
    ) -> None:
        self._pool = pool
        self._terms = terms
        self._recall = recall
        self._inbox: asyncio.Queue[Work] = asyncio.Queue(MAX_INBOX)
        self._waiting = Waiting()
        self._replies: dict[int, asyncio.Future[SyncAnswer]] = {}
        self._sweep_at = 0.0

    async def submit(self, sync: Sync, *, identity: SidecarIdentity, policy: Policy) -> SyncAnswer:
        """The answer to a Sync.

        Raises:
            BusyError: too many messages wait; the book keeps serving from its lots.
            GroupKeyReusedError: a group key came with other content than before.
            SpoolOfAnotherError: another sidecar introduced this spool.
        """
        work = Work(sync, identity, policy)
        reply: asyncio.Future[SyncAnswer] = asyncio.get_running_loop().create_future()
        self._replies[id(work)] = reply
        try:
            self._inbox.put_nowait(work)
            return await reply
        except asyncio.QueueFull as error:
            raise BusyError("the ledger has more messages than it can answer") from error
        finally:
            del self._replies[id(work)]

    async def run(self) -> None:
        """Answer messages for as long as the process lives."""
        while True:
            await self._attempt(await self._gather())

    async def _gather(self) -> list[Work]:
        patience = PUMP_S if self._waiting.queue.waiting else SWEEP_S
        try:
            async with asyncio.timeout(patience):
                works = [await self._inbox.get()]
        except TimeoutError:
            return []
        while len(works) < MAX_BATCH and not self._inbox.empty():
            works.append(self._inbox.get_nowait())
        return works

    async def _attempt(self, works: list[Work], *, hurried: bool = False) -> None:
        """Commit a batch; if it cannot be, its messages one by one."""
        kept = self._keep()
        for attempt in range(RETRIES):
            try:
                await self._commit(works, hurried=hurried)
                return
            except Exception as error:  # noqa: BLE001 -- somebody waits for it, whatever it is
                self._restore(kept)
                failure = error
            if not _may_pass(failure, attempt):
                break
            await asyncio.sleep(0.005 * 2**attempt)
        await self._give_up(works, failure)

    async def _give_up(self, works: list[Work], failure: Exception) -> None:
        """Answer those who are to blame, and try the others without them."""
        if isinstance(failure, errors.OperationalError) and not isinstance(failure, LOCKED):
            log.warning("the ledger's database does not answer: %s", failure)
            self._fail([*works, *self._give_up_waiting()], BusyError("no database answers"))
            return
        if not isinstance(failure, EnforcementError):
            # a group that waits may be the reason: it is part of every batch
            self._fail(self._give_up_waiting(), BusyError("ask again"))
        if len(works) > 1:
            for work in works:
                await self._attempt([work], hurried=isinstance(failure, LOCKED))
            return
        if isinstance(failure, LOCKED):
            failure = BusyError("the rows of the ledger stay locked")
        elif not isinstance(failure, EnforcementError):
            log.error("a batch of the ledger failed", exc_info=failure)
            await asyncio.sleep(0.1)
        self._fail(works, failure)

    def _fail(self, works: list[Work], error: Exception) -> None:
        for work in works:
            self._reply(work, error)

    def _give_up_waiting(self) -> list[Work]:
        """Forget the groups that wait: their books ask again, under the same keys."""
        works = list(self._waiting.works.values())
        self._restore(Waiting())
        return works

    def _keep(self) -> Waiting:
        waiting = self._waiting
        kept = Waiting(
            works=dict(waiting.works), hashes=dict(waiting.hashes), spools=dict(waiting.spools)
        )
        kept.queue.waiting = dict(waiting.queue.waiting)
        return kept

    def _restore(self, kept: Waiting) -> None:
        """A rolled-back batch leaves no trace among the groups that wait."""
        self._waiting.works, self._waiting.hashes = dict(kept.works), dict(kept.hashes)
        self._waiting.spools = dict(kept.spools)
        self._waiting.queue.waiting = dict(kept.queue.waiting)

    async def _commit(self, works: list[Work], *, hurried: bool) -> None:
        time_s = asyncio.get_running_loop().time()
        sweep = time_s >= self._sweep_at and not hurried
        if not works and not sweep and not self._waiting.queue.waiting:
            return
        for work in works:
            work.unresolved.clear()
        batch = Batch(self._terms, works, self._waiting, sweep=sweep)
        async with self._pool.connection() as connection:
            with metrics.BATCH_SECONDS.time():
                async with connection.transaction():
                    if hurried:
                        await connection.execute("SET LOCAL lock_timeout = '20ms'")
                    if sweep:
                        await connection.execute(FORGET_PLANS)
                    await batch.run(connection)
        if sweep:
            self._sweep_at = time_s + SWEEP_S
        self._tell(batch)

    def _tell(self, batch: Batch) -> None:
        """After the commit: grants become known, and recalls go out."""
        told = [*batch.works, *batch.superseded]
        for key, outcome in batch.resolved.items():
            self._waiting.hashes.pop(key, None)
            self._waiting.spools.pop(key, None)
            work = self._waiting.works.pop(key)
            work.unresolved.discard(key)
            if isinstance(outcome, Denial):
                work.answer.denials.append(outcome)
            else:
                work.answer.grants.extend(outcome)
            told.append(work)
        for work in told:
            if not work.unresolved:
                self._reply(work, work.answer)
        if batch.recalls:
            self._recall(batch.recalls)
        metrics.BATCH_MESSAGES.observe(len(batch.works))
        metrics.GRANTS.inc(batch.granted)
        metrics.EXPIRED.inc(batch.expired)
        metrics.RECALLS.inc(len(batch.recalls))
        metrics.WAITING.set(len(self._waiting.works))

    def _reply(self, work: Work, outcome: SyncAnswer | Exception) -> None:
        reply = self._replies.get(id(work))
        if reply is None or reply.done():
            return  # answered before, or nobody waits any more
        if isinstance(outcome, Exception):
            reply.set_exception(outcome)
            return
        reply.set_result(outcome)
        for denial in outcome.denials:
            metrics.DENIALS.labels(denial.cause.value).inc()


def _may_pass(failure: Exception, attempt: int) -> bool:
    """Whether trying the same again can help: a deadlock was broken, or a connection had died."""
    if isinstance(failure, DEADLOCKED):
        return True
    hopeless = isinstance(failure, (PoolTimeout, errors.LockNotAvailable, errors.QueryCanceled))
    return attempt == 0 and isinstance(failure, errors.OperationalError) and not hopeless
