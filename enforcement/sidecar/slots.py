"""The calls that a node gets at once, and those that wait for it, agents in turn.

A node without a limit has no `Slots`, and its calls pass without a look.
"""

import asyncio
from typing import Protocol

from enforcement.rules.fairqueue import FairQueue
from enforcement.sidecar.config import UpstreamConfig

MAX_RETRY_AFTER_S = 30
_ANY = 1 << 30


class Waiter(Protocol):
    """Who waits for a slot. It hears of one of both, once, unless it leaves."""

    def on_slot(self) -> None: ...
    def on_no_slot(self) -> None: ...


class Slots:
    """The slots of one node, in one worker."""

    def __init__(self, target: UpstreamConfig, *, workers: int) -> None:
        self.permits = max((target.concurrency or _ANY) // workers, 1)
        most = target.concurrency_per_agent
        self.most = None if most is None else max(most // workers, 1)
        self.timeout_s = target.queue_timeout
        self.taken = 0
        self.batch_timeout_s = target.batch_queue_timeout
        self.queue: FairQueue[Waiter] = FairQueue(limit=target.queue)
        self.batch: FairQueue[Waiter] = FairQueue(limit=target.queue)  # served when that is empty
        self.batch.using = self.queue.using

    @property
    def full(self) -> bool:
        """Whether a newcomer would have to wait."""
        return self.taken >= self.permits or bool(len(self.queue))

    def take(self, agent: str, waiter: Waiter, *, weight: int = 1, batch: bool = False) -> bool:
        """Take a slot now, or wait for one."""
        queue = self.batch if batch else self.queue
        capped = self.most is not None and queue.using.get(agent, 0) >= self.most
        if not self.full and not capped and not len(queue):
            self._taken_by(agent)
            return True
        gone = queue.push(agent, waiter, weight=weight)
        if gone is not None:
            asyncio.get_running_loop().call_soon(gone.on_no_slot)
        self._serve()
        return False

    def leave(self, agent: str, waiter: Waiter) -> None:
        """Wait no more."""
        self.queue.remove(agent, waiter)
        self.batch.remove(agent, waiter)

    def give_back(self, agent: str) -> None:
        """A call has ended: whose turn is it?"""
        self.taken -= 1
        self.queue.give_back(agent)
        self._serve()

    def _serve(self) -> None:
        while self.taken < self.permits:
            found = self.queue.pop(most=self.most) or self.batch.pop(most=self.most)
            if found is None:
                return
            agent, waiter = found
            self._taken_by(agent)
            # Not at once: a chain of calls that fail would make the stack as deep as the queue.
            asyncio.get_running_loop().call_soon(waiter.on_slot)

    def _taken_by(self, agent: str) -> None:
        self.taken += 1
        self.queue.take(agent)

    @property
    def retry_after_s(self) -> int:
        """A guess at when there may be room."""
        return min(max(len(self.queue) // self.permits, 1), MAX_RETRY_AFTER_S)
