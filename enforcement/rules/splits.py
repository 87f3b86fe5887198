"""Balances of split budgets: made when first asked for, and never more than allowed (L15).

A budget has `max_values` balances of its own in each window. The values beyond are refused, or
share the balance of `OTHER_VALUE`, as the budget says.
"""

from collections.abc import Iterable

from enforcement.rules.matching import BalanceOf, Subject, value_of
from enforcement.rules.policy import BudgetPolicy, Overflow
from enforcement.rules.wire import Denial, DenialCause

OTHER_VALUE = "*"
REMEMBERED_NS = 60_000_000_000  # how long a value is known to have no balance of its own
MAX_REMEMBERED = 10_000


def values_of(budget: BudgetPolicy, subject: Subject) -> tuple[str, ...]:
    """The balances that a subject may have: its own, and the shared one of a full split."""
    own = value_of(budget.per, subject)
    shares = budget.per and budget.overflow is Overflow.SHARE
    return (own, OTHER_VALUE) if shares else (own,)


def is_counted(value: str) -> bool:
    """Whether a balance is one of the values that `max_values` bounds."""
    return value not in ("", OTHER_VALUE)


def is_full(budget: BudgetPolicy, *, values: int) -> bool:
    """Whether a split that has so many counted values in a window gets no other one."""
    return values >= budget.max_values


class Overflows:
    """What a book remembers of values that share the balance of others."""

    def __init__(self) -> None:
        self._until_ns: dict[BalanceOf, int] = {}

    def note(self, denial: Denial, budget: BudgetPolicy | None, *, now_ns: int) -> bool:
        """Whether a denial means that its value shares the balance of others."""
        if denial.cause is not DenialCause.MAX_VALUES or denial.value == OTHER_VALUE:
            return False
        if budget is None or budget.overflow is not Overflow.SHARE:
            return False
        if len(self._until_ns) >= MAX_REMEMBERED:
            self._until_ns.clear()
        self._until_ns[denial.budget, denial.value] = now_ns + REMEMBERED_NS
        return True

    def apply(self, keys: Iterable[BalanceOf], *, now_ns: int) -> tuple[BalanceOf, ...]:
        """The balances of a call, those of such values replaced by the shared one."""
        if not self._until_ns:
            return tuple(keys)
        return tuple(
            (key[0], OTHER_VALUE) if self._until_ns.get(key, 0) > now_ns else key for key in keys
        )
