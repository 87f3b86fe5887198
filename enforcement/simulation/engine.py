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


class Engine:
    """The truth about the calls of one sidecar."""

    def __init__(self) -> None:
        self.truth: dict[str, int] = {}  # by lease: what engines really made on it
        self.unheld: dict[str, int] = {}  # by budget: what no hold paid for
        self.of_trees: dict[BalanceOf, int] = {}  # by budget and root: what a tree made

    def _produce(self, request: Request, tokens: int) -> None:
        """The engine makes tokens: never more than the limit that stands in the request."""
        tokens = max(
            0, min(tokens, request.output - request.produced, request.limit - request.produced)
        )
        request.produced += tokens
        self._count(request, tokens)

    def _count(self, request: Request, tokens: int) -> None:
        """Ground truth, lease by lease, in the order in which a settlement pays."""
        if request.hold is None:
            raise AssertionError("an engine made tokens that nobody forwarded")
        before = request.tokens - tokens
        root = root_of(request.facts.session)
        for key in request.keys:
            if tokens and key[0] in OF_SESSIONS:
                place = (key[0], root)
                self.of_trees[place] = self.of_trees.get(place, 0) + tokens
            position, left = 0, tokens
            for lot, amount in request.hold.parts.get(key, ()):
                start = max(position, before)
                take = max(0, min(position + amount, before + tokens) - start)
                self.truth[lot.lease] = self.truth.get(lot.lease, 0) + take
                left -= take
                position += amount
            if left:
                self.unheld[key[0]] = self.unheld.get(key[0], 0) + left

    def _move_overrun(self, request: Request, parts: list[Part]) -> None:
        """What a settlement paid from other lots is, from then on, their truth."""
        held = request.hold.amount if request.hold else (lambda _key: 0)
        for key in request.keys:
            extra = request.tokens - held(key)
            if extra > 0:
                paid = [part for part in parts if (part.budget, part.value) == key]
                self.unheld[key[0]] = self.unheld.get(key[0], 0) - extra
                for part in reversed(paid):
                    take = min(part.amount, extra)
                    self.truth[part.lease] = self.truth.get(part.lease, 0) + take
                    extra -= take
