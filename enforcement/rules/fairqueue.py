"""Who gets the next free slot of a node: agents in turn, not requests in order of arrival.

1. The agent that uses the fewest slots for its weight is next (max-min fairness); among equals the
   one that has waited longest. Within an agent: in order of arrival.
2. The queue is bounded. When it is full, the newest entry of the agent with the most waiting gives
   way to a newcomer with fewer (McKenney, *Stochastic Fairness Queueing*, 1990: drop from the
   longest queue), so a flood fills only its own part.
"""

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Entries that wait, by agent. Entries are compared by identity and wait once."""

    def __init__(self, *, limit: int) -> None:
        self.limit = limit
        self.using: dict[str, int] = {}  # slots in use, by agent
        self._waiting: dict[str, OrderedDict[int, tuple[int, T]]] = {}
        self._weights: dict[str, int] = {}
        self._arrivals = 0
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, agent: str, entry: T, *, weight: int = 1) -> T | None:
        """Wait. What has to go because of it, if anything: perhaps this entry itself."""
        gone: T | None = None
        if self._length >= self.limit:
            longest = max(self._waiting, key=lambda name: len(self._waiting[name]), default="")
            own = len(self._waiting.get(agent, ()))
            if not longest or len(self._waiting[longest]) <= own + 1:
                return entry
            _, (_, gone) = self._waiting[longest].popitem()
            self._dropped(longest)
        self._arrivals += 1
        self._waiting.setdefault(agent, OrderedDict())[id(entry)] = (self._arrivals, entry)
        self._weights[agent] = weight
        self._length += 1
        return gone

    def pop(self, *, most: int | None = None) -> tuple[str, T] | None:
        """The next to be served; `most`: agents that use so many slots already must wait."""
        best: str | None = None
        best_rank = (0, 1, 0)
        for agent, entries in self._waiting.items():
            using, weight = self.using.get(agent, 0), self._weights[agent]
            if most is not None and using >= most:
                continue
            arrival = next(iter(entries.values()))[0]
            if best is None or _before((using, weight, arrival), best_rank):
                best, best_rank = agent, (using, weight, arrival)
        if best is None:
            return None
        _, (_, entry) = self._waiting[best].popitem(last=False)
        self._dropped(best)
        return best, entry

    def remove(self, agent: str, entry: T) -> None:
        """Wait no more."""
        entries = self._waiting.get(agent)
        if entries is not None and entries.pop(id(entry), None) is not None:
            self._dropped(agent)

    def take(self, agent: str) -> None:
        """A slot is used."""
        self.using[agent] = self.using.get(agent, 0) + 1

    def give_back(self, agent: str) -> None:
        """A slot is free again."""
        left = self.using[agent] - 1
        if left:
            self.using[agent] = left
        else:
            del self.using[agent]

    def _dropped(self, agent: str) -> None:
        self._length -= 1
        if not self._waiting[agent]:
            del self._waiting[agent], self._weights[agent]


def _before(rank: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
    """Whether (using, weight, arrival) is served before another."""
    mine, theirs = rank[0] * other[1], other[0] * rank[1]
    return mine < theirs or (mine == theirs and rank[2] < other[2])
