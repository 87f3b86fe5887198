"""Work that may wait, a piece in each turn of the event loop."""

import asyncio
from collections import deque
from collections.abc import Callable


class Turns:
    """Pieces of work that take turns: however many there are, calls wait for one at a time."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], bool]] = deque()

    def add(self, work: Callable[[], bool]) -> None:
        """Call `work` once in each of its turns, until it says that nothing is left."""
        self._waiting.append(work)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        work = self._waiting[0]  # it stays in line meanwhile: what it adds begins no second line
        try:
            more = work()
        finally:
            self._waiting.popleft()
            if self._waiting:
                asyncio.get_running_loop().call_soon(self._turn)
        if more:
            self.add(work)
