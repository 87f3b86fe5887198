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
    produced: int = 0
    counted: int = 0  # of its tokens: what the truth has divided among leases
    forwarded: bool = False
    stopped: bool = False
    asked: str = ""
    deadline_us: int = 0
    waited: bool = False

    @property
    def tokens(self) -> int:
        return self.prompt + self.produced


class Truth:
    """What the engines of a world really made, whoever listened.

    Tokens are told at once, and divided among leases when somebody looks.
    """

    def __init__(self) -> None:
        self.by_lease: dict[str, int] = {}
        self.fresh: set[str] = set()  # leases on which tokens were made since somebody looked
        self.unheld = 0  # what no hold paid for
        self.of_trees: dict[BalanceOf, int] = {}  # by budget and root: what a tree made
        self._loose: dict[int, Request] = {}  # with tokens that are not divided yet

    def note(self, request: Request) -> None:
        """An engine made tokens for a call."""
        if request.hold is None:
            raise AssertionError("an engine made tokens that nobody forwarded")
        self._loose[id(request)] = request

    def catch_up(self) -> None:
        """Divide what was made since the last look."""
        for request in list(self._loose.values()):
            self.divide(request)

    def divide(self, request: Request) -> None:
        """Lease by lease, in the order in which a settlement pays. To do before a hold grows."""
        if self._loose.pop(id(request), None) is None or request.hold is None:
            return
        before, after = request.counted, request.tokens
        request.counted = after
        for key in request.keys:
            if key[0] in OF_SESSIONS:
                place = (key[0], root_of(request.facts.session))
                self.of_trees[place] = self.of_trees.get(place, 0) + after - before
            start = 0
            for lot, amount in request.hold.parts.get(key, ()):
                end = start + amount
                if end > before:
                    self.count(lot.lease, min(end, after) - max(start, before))
                    if end >= after:
                        break
                start = end
            else:
                self.unheld += after - max(start, before)

    def count(self, lease: str, tokens: int) -> None:
        self.by_lease[lease] = self.by_lease.get(lease, 0) + tokens
        self.fresh.add(lease)

    def move_overrun(self, request: Request, parts: list[Part]) -> None:
        """What a settlement paid from other lots is, from then on, their truth."""
        self.divide(request)
        held = request.hold.amount if request.hold else (lambda _key: 0)
        for key in request.keys:
            extra = request.tokens - held(key)
            if extra > 0:
                paid = [part for part in parts if (part.budget, part.value) == key]
                self.unheld -= extra
                for part in reversed(paid):
                    take = min(part.amount, extra)
                    self.count(part.lease, take)
                    extra -= take


class Engine:
    """Makes tokens for the calls of one sidecar."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    def _produce(self, request: Request, tokens: int) -> None:
        """The engine makes tokens: never more than the limit that stands in the request."""
        tokens = min(tokens, request.output - request.produced, request.limit - request.produced)
        if tokens > 0:
            request.produced += tokens
            self._truth.note(request)
