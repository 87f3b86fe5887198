"""What is settled for a call before anybody looks at how long it is, and what its size then needs.

All calls of one caller for one model on one node share their terms until the policy changes: the
view keeps them, and a call looks up what it would else decide anew. Of the sizes that calls have,
the usual ones are quoted once: what must be held, and what is booked if nothing else is heard.
"""

from msgspec import Struct

from enforcement.rules.estimate import Bound
from enforcement.rules.lots import BalanceKey, Need
from enforcement.rules.matching import Plan, Subject
from enforcement.rules.policy import Measure, PricePolicy
from enforcement.rules.wire import UsageEvent

MAX_QUOTES = 64  # for each terms; then they are made anew

Size = tuple[object, ...]  # all that a quote depends on, beside the terms


class Quote(Struct, frozen=True, gc=False):
    """What calls of one size hold. `limit`: the output of one sequence that is asked for.

    `first`: the output that metered budgets pay for at first, None if nothing is metered.
    `event`: what is booked if nothing else is heard, without its id, time and attempt.
    """

    limit: int
    bound: Bound
    first: int | None
    balances: tuple[BalanceKey, ...]
    needs: tuple[Need, ...]
    event: UsageEvent


class Terms:
    """Budgets, balances, price and measures of one caller's calls for one model."""

    __slots__ = ("balances", "measures", "plan", "price", "quotes")

    def __init__(
        self,
        subject: Subject,
        *,
        plan: Plan,
        price: PricePolicy | None,
        measures: tuple[Measure, ...],
    ) -> None:
        self.plan = plan  # the hard budgets that the calls are charged to
        self.balances = plan.balances(subject)
        self.price = price
        self.measures = measures  # what thresholds that were reached do to them
        self.quotes: dict[Size, Quote] = {}


def remember(quotes: dict[Size, Quote], size: Size, quote: Quote) -> None:
    """Keep a quote for the next call of the same size."""
    if len(quotes) >= MAX_QUOTES:
        quotes.clear()
    quotes[size] = quote
