"""Time, chance and the network of a simulated world."""

import hashlib
import heapq
from collections.abc import Callable
from random import Random
from typing import Any

NS_PER_MS = 1_000_000


class Kernel:
    """An event queue with one seeded source of chance. Time is in whole microseconds."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)  # noqa: S311 -- reproducible chance is the point
        self.now_us = 0
        self.events = 0
        self.trace: list[str] | None = None
        self._queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self._digest = hashlib.sha256()

    @property
    def now_ms(self) -> int:
        return self.now_us // 1_000

    def at(self, delay_ms: float, act: Callable[..., None], *args: Any) -> None:
        """Run `act` after a delay; ties run in the order in which they were planned."""
        self._order += 1
        due_us = self.now_us + max(0, int(delay_ms * 1_000))
        heapq.heappush(self._queue, (due_us, self._order, act, args))

    def run(self, *, until_ms: int, stop: Callable[[], bool]) -> None:
        while self._queue and self._queue[0][0] <= until_ms * 1_000 and not stop():
            self.now_us, _, act, args = heapq.heappop(self._queue)
            self.events += 1
            act(*args)

    def note(self, text: str) -> None:
        """Add a line to the run's log: hashed always, kept when a trace is wanted."""
        line = f"{self.now_us} {text}"
        self._digest.update(line.encode())
        if self.trace is not None:
            self.trace.append(line)

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()


class Link:
    """Messages between one host and the control plane: lost, doubled, late, out of order."""

    def __init__(self, kernel: Kernel, *, loss: float, duplicates: float, delay_ms: int) -> None:
        self._kernel = kernel
        self._loss = loss
        self._duplicates = duplicates
        self._delay_ms = delay_ms
        self.cut = False
        self.healed = False

    def send(self, deliver: Callable[..., None], *args: Any, once: bool = False) -> None:
        """`once` for requests that no proxy repeats (Hello)."""
        chance = self._kernel.random
        if self.healed:
            self._kernel.at(1, deliver, *args)
            return
        if self.cut:
            return
        copies = 1 if once else 1 + (chance.random() < self._duplicates)
        for _ in range(copies):
            if chance.random() >= self._loss:
                delay_ms = chance.uniform(1, 50 if once else self._delay_ms)
                self._kernel.at(delay_ms, deliver, *args)
