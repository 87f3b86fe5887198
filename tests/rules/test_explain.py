"""What is said of a request is what the sidecar's own rules would do."""

import pytest

from enforcement.rules.estimate import Bound
from enforcement.rules.explain import Fate, Standing, explain
from enforcement.rules.policy import (
    AgentState,
    BudgetPolicy,
    Mode,
    PricePolicy,
    Rates,
    ScopeKind,
    Unit,
)
from enforcement.rules.verdicts import state_refusal

PRICE = PricePolicy(id="p", model="m", rates=Rates(input=1_000_000, output=1_000_000))
BOUND, FLOOR = Bound(10, 90), Bound(10, 16)


def budget(name: str, unit: Unit = Unit.TOKENS, mode: Mode = Mode.HARD) -> BudgetPolicy:
    return BudgetPolicy(name, name, ScopeKind.AGENT, "a", unit, 1_000, mode)


def fate(
    standing: Standing, *, unit: Unit = Unit.TOKENS, mode: Mode = Mode.HARD
) -> tuple[Fate, int]:
    found = explain(
        [budget("b", unit, mode)],
        [("b", "")],
        {("b", ""): standing},
        BOUND,
        floor=FLOOR,
        price=None,
    )
    return found.fate, found.status


@pytest.mark.parametrize(
    ("standing", "expected"),
    [
        (Standing(1_000), (Fate.ALLOW, 200)),
        (Standing(1_000, spent=900), (Fate.ALLOW, 200)),
        (Standing(1_000, spent=901), (Fate.CLAMP, 200)),
        (Standing(1_000, spent=974), (Fate.CLAMP, 200)),
        (Standing(1_000, spent=975), (Fate.REFUSE, 402)),
        (Standing(1_000, spent=900, overrun=75), (Fate.REFUSE, 402)),
        (Standing(1_000, spent=900, suspense=75), (Fate.REFUSE, 402)),
        (Standing(1_000, spent=900, held=75), (Fate.WAIT, 429)),
    ],
)
def test_a_hard_budget(standing: Standing, expected: tuple[Fate, int]) -> None:
    assert fate(standing) == expected


@pytest.mark.parametrize("mode", [Mode.SOFT, Mode.OBSERVE])
def test_a_soft_budget_only_counts(mode: Mode) -> None:
    assert fate(Standing(1_000, spent=5_000), mode=mode) == (Fate.ALLOW, 200)


def test_permits_are_always_worth_waiting_for() -> None:
    standing = Standing(4, held=2, suspense=2)
    assert fate(standing, unit=Unit.CONCURRENCY) == (Fate.WAIT, 429)


def test_the_worst_budget_decides() -> None:
    budgets = [budget("1"), budget("2"), budget("3")]
    keys = [(item.id, "") for item in budgets]
    standings = dict(
        zip(
            keys,
            [Standing(1_000, spent=950), Standing(1_000, spent=1_000), Standing(1_000, held=990)],
            strict=True,
        )
    )
    found = explain(budgets, keys, standings, BOUND, floor=FLOOR, price=None)
    assert [line.fate for line in found.lines] == [Fate.CLAMP, Fate.REFUSE, Fate.WAIT]
    assert (found.fate, found.decided_by, found.status) == (Fate.REFUSE, "2", 402)
    assert found.refusal is not None
    assert found.refusal.message == "Budget '2' is exhausted"


def test_without_a_price_a_hard_dollar_budget_refuses_and_a_soft_one_counts() -> None:
    hard, soft = budget("h", Unit.USD), budget("s", Unit.USD, Mode.SOFT)
    standings = {("h", ""): Standing(1_000), ("s", ""): Standing(1_000)}
    found = explain([hard, soft], [("h", ""), ("s", "")], standings, BOUND, floor=FLOOR, price=None)
    assert [(line.need, line.fate) for line in found.lines] == [
        (None, Fate.REFUSE),
        (None, Fate.COUNT),
    ]
    assert found.status == 403
    priced = explain(
        [hard, soft], [("h", ""), ("s", "")], standings, BOUND, floor=FLOOR, price=PRICE
    )
    assert (priced.fate, [line.need for line in priced.lines]) == (Fate.ALLOW, [100, 100])


def test_a_paused_agent_is_refused_whatever_is_free() -> None:
    blocked = state_refusal(AgentState.PAUSED)
    found = explain([], [], {}, BOUND, floor=FLOOR, price=None, blocked=blocked)
    assert (found.fate, found.status) == (Fate.REFUSE, 403)
    assert state_refusal(AgentState.THROTTLED) is None
