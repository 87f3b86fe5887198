"""Splits have an end: what is beyond it is refused, or shares one balance."""

import pytest

from enforcement.rules.matching import Subject
from enforcement.rules.policy import BudgetPolicy, Overflow, ScopeKind, Unit
from enforcement.rules.splits import REMEMBERED_NS, Overflows, is_counted, is_full, values_of
from enforcement.rules.wire import Denial, DenialCause


def split(overflow: Overflow = Overflow.SHARE) -> BudgetPolicy:
    return BudgetPolicy(
        "b",
        "Each user",
        ScopeKind.ORGANIZATION,
        "o",
        Unit.TOKENS,
        100,
        per="user",
        max_values=2,
        overflow=overflow,
    )


def test_a_split_is_full_with_its_last_value() -> None:
    assert [is_full(split(), values=n) for n in (0, 1, 2, 3)] == [False, False, True, True]
    assert [value for value in ("", "*", "ann") if is_counted(value)] == ["ann"]


@pytest.mark.parametrize(
    ("overflow", "values"), [(Overflow.SHARE, ("ann", "*")), (Overflow.REFUSE, ("ann",))]
)
def test_a_caller_reaches_its_own_value_and_perhaps_the_shared_one(
    overflow: Overflow, values: tuple[str, ...]
) -> None:
    assert values_of(split(overflow), Subject("o", "a", user="ann")) == values


def test_a_book_remembers_what_shares_for_a_minute() -> None:
    seen = Overflows()
    keys = (("b", "ann"), ("c", ""))
    assert seen.apply(keys, now_ns=0) == keys
    full = Denial("g", "b", "ann", DenialCause.MAX_VALUES)
    assert not seen.note(full, split(Overflow.REFUSE), now_ns=0)
    assert not seen.note(Denial("g", "b", "ann", DenialCause.LIMIT), split(), now_ns=0)
    assert not seen.note(Denial("g", "b", "*", DenialCause.MAX_VALUES), split(), now_ns=0)
    assert seen.note(full, split(), now_ns=0)
    assert seen.apply(keys, now_ns=REMEMBERED_NS - 1) == (("b", "*"), ("c", ""))
    assert seen.apply(keys, now_ns=REMEMBERED_NS) == keys
