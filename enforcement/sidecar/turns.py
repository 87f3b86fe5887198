"""Work that may wait, a little in each turn of the event loop."""

import asyncio
from collections import deque
from collections.abc import Callable

from enforcement.sidecar import clock

TURN_NS = 500_000  # what calls wait for at most, beside one piece


class Turns:
    """Pieces of work, one after the other: however many wait, a turn of the loop stays short.

    `turn_ns`: what they may take of a turn; 0: one piece. `pace_s`: between two turns with work.
    """

    __slots__ = ("_pace_s", "_turn_ns", "_waiting")

    def __init__(self, turn_ns: int = TURN_NS, *, pace_s: float = 0.0) -> None:
        self._turn_ns = turn_ns
        self._pace_s = pace_s
        self._waiting: deque[Callable[[], bool]] = deque()

    def add(self, work: Callable[[], bool]) -> None:
        """Call `work`, again and again until it says that nothing is left, between others'."""
        self._waiting.append(work)
        if len(self._waiting) == 1:
            self._go_on()

    def _go_on(self) -> None:
        loop = asyncio.get_running_loop()
        if self._pace_s:
            loop.call_later(self._pace_s, self._turn)
        else:
            loop.call_soon(self._turn)

    def _turn(self) -> None:
        until_ns = clock.now_ns() + self._turn_ns
        try:
            while self._waiting:
                self._piece()
                if clock.now_ns() >= until_ns:
                    break
        finally:
            if self._waiting:
                self._go_on()

    def _piece(self) -> None:
        work = self._waiting[0]  # it stays in line meanwhile: what it adds begins no second line
        more = False
        try:
            more = work()
        finally:
            self._waiting.popleft()
            if more:
                self._waiting.append(work)
