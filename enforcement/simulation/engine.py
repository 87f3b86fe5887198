"""Engines and the calls on them: the oracle of truth. What they make is counted as it is made, also
while nobody listens.
"""

from dataclasses import dataclass

from enforcement.rules.lots import Hold
from enforcement.rules.matching import BalanceOf
from enforcement.rules.wire import Attribution, Part
from enforcement.simulation.organization import OF_SESSIONS, root_of


@dataclass
class Request:
    """One call of an agent, and the engine's own truth about it."""

    facts: Attribution
    keys: tuple[BalanceOf, ...]  # the balances that it pays
    prompt: int
    output: int  # what the model would say if nobody stopped it
    limit: int  # the output limit written into the forwarded request
    hold: Hold | None = None
    metered: int = 0
    produced: int = 0
    forwarded: bool = False
    stopped: bool = False
    asked: str = ""
    deadline_us: int = 0
    waited: bool = False

    @property
    def tokens(self) -> int:
        return self.prompt + self.produced


class Truth:
    """What the engines of a world really made, whoever listened."""

    def __init__(self) -> None:
        self.by_lease: dict[str, int] = {}
        self.fresh: set[str] = set()  # leases on which tokens were made since somebody looked
        self.unheld = 0  # what no hold paid for
        self.of_trees: dict[BalanceOf, int] = {}  # by budget and root: what a tree made

    def count(self, lease: str, tokens: int) -> None:
        self.by_lease[lease] = self.by_lease.get(lease, 0) + tokens
        self.fresh.add(lease)


class Engine:
    """Makes tokens for the calls of one sidecar."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    def _produce(self, request: Request, tokens: int) -> None:
        """The engine makes tokens: never more than the limit that stands in the request."""
        tokens = min(tokens, request.output - request.produced, request.limit - request.produced)
        if tokens > 0:
            request.produced += tokens
            self._count(request, tokens)

    def _count(self, request: Request, tokens: int) -> None:
        """Ground truth, lease by lease, in the order in which a settlement pays."""
        if request.hold is None:
            raise AssertionError("an engine made tokens that nobody forwarded")
        truth, after = self._truth, request.tokens
        before = after - tokens
        for key in request.keys:
            if key[0] in OF_SESSIONS:
                place = (key[0], root_of(request.facts.session))
                truth.of_trees[place] = truth.of_trees.get(place, 0) + tokens
            start = 0
            for lot, amount in request.hold.parts.get(key, ()):
                end = start + amount
                if end > before:
                    truth.count(lot.lease, min(end, after) - max(start, before))
                    if end >= after:
                        break
                start = end
            else:
                truth.unheld += after - max(start, before)

    def _move_overrun(self, request: Request, parts: list[Part]) -> None:
        """What a settlement paid from other lots is, from then on, their truth."""
        held = request.hold.amount if request.hold else (lambda _key: 0)
        for key in request.keys:
            extra = request.tokens - held(key)
            if extra > 0:
                paid = [part for part in parts if (part.budget, part.value) == key]
                self._truth.unheld -= extra
                for part in reversed(paid):
                    take = min(part.amount, extra)
                    self._truth.count(part.lease, take)
                    extra -= take
