"""What would happen to a request, budget by budget, and why: the sidecar's own rules, said aloud.

1. Hard budgets come first, in the order in which holds are placed; each says what it would hold,
   what is free, and what it would do. Soft and observing ones only count.
2. The request fares as its worst budget says: refused, made to wait, clamped, let through.
3. `free` is what no sidecar has leased. A sidecar may still have idle lots of what is `held`.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from enforcement.rules.estimate import Bound, amount_of
from enforcement.rules.lots import BalanceKey
from enforcement.rules.policy import BudgetPolicy, Mode, PricePolicy, Unit
from enforcement.rules.verdicts import Refuse, judge_denial, unpriced
from enforcement.rules.wire import Denial, DenialCause


class Fate(StrEnum):
    """What becomes of a request at one budget, the worst last."""

    COUNT = "count"  # soft or observing: it passes, whatever stands there
    ALLOW = "allow"
    CLAMP = "clamp"  # a shorter answer fits
    WAIT = "wait"  # only holds of others stand in the way
    REFUSE = "refuse"


_SEVERITY = tuple(Fate)


class Standing(Struct, frozen=True):
    """The counters of one balance, or of one that would be made for this request."""

    limit: int
    spent: int = 0
    held: int = 0
    suspense: int = 0
    overrun: int = 0
    given: int = 0
    window_ends_at_ms: int | None = None

    @property
    def free(self) -> int:
        committed = self.spent + self.held + self.suspense + self.given
        return self.limit - committed - self.overrun


class Line(Struct, frozen=True):
    """One budget that the request matches. `need` is None where nothing can be priced."""

    budget: BudgetPolicy
    value: str
    standing: Standing
    need: int | None
    fate: Fate
    refusal: Refuse | None = None


class Explanation(Struct, frozen=True):
    """All lines, and what they come to. `refusal` is what the caller would read."""

    lines: list[Line]
    fate: Fate
    decided_by: str = ""  # the id of a budget
    refusal: Refuse | None = None

    @property
    def status(self) -> int:
        return self.refusal.status if self.refusal is not None else 200


def explain(
    budgets: Sequence[BudgetPolicy],
    balances: Sequence[BalanceKey],
    standings: Mapping[BalanceKey, Standing],
    bound: Bound,
    *,
    floor: Bound,
    price: PricePolicy | None,
    model: str = "",
    blocked: Refuse | None = None,
) -> Explanation:
    """Explain a request whose worst case is `bound` and whose least useful answer is `floor`.

    `blocked` is a refusal that no budget has to do with, as that of a paused agent.
    """
    lines = [
        _line(budget, key[1], standings[key], bound=bound, floor=floor, price=price, model=model)
        for budget, key in zip(budgets, balances, strict=True)
    ]
    if blocked is not None:
        return Explanation(lines, Fate.REFUSE, refusal=blocked)
    worst = max(lines, key=lambda line: _SEVERITY.index(line.fate), default=None)
    if worst is None or worst.fate in (Fate.COUNT, Fate.ALLOW):
        return Explanation(lines, Fate.ALLOW)
    return Explanation(lines, worst.fate, worst.budget.id, worst.refusal)


def _line(
    budget: BudgetPolicy,
    value: str,
    standing: Standing,
    *,
    bound: Bound,
    floor: Bound,
    price: PricePolicy | None,
    model: str,
) -> Line:
    if budget.unit is Unit.USD and price is None:
        if budget.mode is not Mode.HARD:
            return Line(budget, value, standing, None, Fate.COUNT)
        return Line(budget, value, standing, None, Fate.REFUSE, unpriced(model, budget=budget))
    need = _amount(budget.unit, bound, price)
    if budget.mode is not Mode.HARD:
        return Line(budget, value, standing, need, Fate.COUNT)
    if need <= standing.free:
        return Line(budget, value, standing, need, Fate.ALLOW)
    least = _amount(budget.unit, floor, price)
    if least <= standing.free:
        return Line(budget, value, standing, need, Fate.CLAMP)
    refusal = judge_denial(_denial(budget, value, standing, least), budget, floor=least)
    fate = Fate.WAIT if refusal.status == 429 else Fate.REFUSE
    return Line(budget, value, standing, need, fate, refusal)


def _amount(unit: Unit, bound: Bound, price: PricePolicy | None) -> int:
    return amount_of(unit, bound, output_tokens=bound.output_tokens, price=price)


def _denial(budget: BudgetPolicy, value: str, standing: Standing, least: int) -> Denial:
    """The denial that the ledger would send."""
    lends = budget.unit is Unit.CONCURRENCY and least <= standing.limit
    return Denial(
        group="",
        budget=budget.id,
        value=value,
        cause=DenialCause.HELD,
        free=max(0, standing.free),
        limit=standing.limit,
        spent=standing.spent,
        held=standing.held + standing.given,
        suspense=0 if lends else standing.suspense,
        overrun=standing.overrun,
        window_ends_at_ms=standing.window_ends_at_ms,
        retry_after_ms=1_000,
    )
