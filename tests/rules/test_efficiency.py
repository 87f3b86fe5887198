"""Whom a node's cost is for: the lines add up to it exactly, whatever was used."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.rules import efficiency as rule
from enforcement.rules.efficiency import HOUR_MS, Line, NodeHour, Payer, Use, Weights, charge

IDLE, UNREAD, UNMETERED = Payer(Line.IDLE), Payer(Line.UNREAD), Payer(Line.UNMETERED)
BOB, EVE = Payer(Line.AGENT, "bob", "m"), Payer(Line.AGENT, "eve", "m")
USED = {("bob", "m"): Use(100, 0, 50), ("eve", "m"): Use(0, 0, 25)}  # weigh 3,000 and 1,000


def hour(
    cost: int = 3_600,
    busy: int = HOUR_MS,
    idle: int = 0,
    produced: Use = Use(100, 0, 75),  # noqa: B008 -- a tuple
    used: dict[tuple[str, str], Use] = USED,
) -> NodeHour:
    return NodeHour(cost, busy, idle, HOUR_MS, produced, used)


@pytest.mark.parametrize(
    ("given_hour", "parts"),
    [
        (hour(), {BOB: 2_700, EVE: 900}),
        (hour(busy=HOUR_MS // 2, idle=HOUR_MS // 4), {BOB: 1_350, EVE: 450, IDLE: 900, UNREAD: 900}),
        (hour(busy=0, idle=HOUR_MS), {IDLE: 3_600}),
        (hour(busy=0), {UNREAD: 3_600}),
        (hour(produced=Use(200, 0, 150)), {BOB: 1_350, EVE: 450, UNMETERED: 1_800}),
        (hour(produced=Use()), {BOB: 2_700, EVE: 900}),
        (hour(used={}, produced=Use()), {UNMETERED: 3_600}),
        (hour(cost=0), {}),
        (hour(cost=5), {BOB: 4, EVE: 1}),
    ],
    ids=[
        *("all worked", "half waited", "idle", "unread", "past the sidecars", "produced later"),
        *("spanned", "free", "remainders"),
    ],
)  # fmt: skip
def test_an_hour_is_charged_to_those_it_worked_for(
    given_hour: NodeHour, parts: dict[Payer, int]
) -> None:
    assert charge(given_hour, Weights()) == parts


def test_the_rest_goes_to_the_largest_remainders() -> None:
    assert rule.divide(10, {"a": 1, "b": 1, "c": 1}) == {"a": 4, "b": 3, "c": 3}
    assert rule.divide(7, {"a": 6, "b": 5, "c": 3}) == {"a": 3, "b": 3, "c": 1}
    assert rule.divide(0, {"a": 0}) == {"a": 0}


@pytest.mark.parametrize(("total", "weights"), [(-1, {"a": 1}), (1, {"a": -1}), (1, {})])
def test_what_cannot_be_divided(total: int, weights: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"negative|nobody"):
        rule.divide(total, weights)


def test_cached_tokens_weigh_a_tenth() -> None:
    assert rule.weight_of(Use(100, 40, 5), Weights()) == 60 * 10 + 40 * 1 + 5 * 40


counts = st.integers(0, 10**9)
uses = st.builds(Use, counts, counts, counts)


@given(
    cost=st.integers(0, 10**15),
    busy=st.integers(0, HOUR_MS),
    idle=st.integers(0, HOUR_MS),
    produced=uses,
    used=st.dictionaries(st.tuples(st.text(max_size=3), st.text(max_size=3)), uses, max_size=8),
)
def test_the_lines_of_an_hour_add_up_to_its_cost(
    cost: int, busy: int, idle: int, produced: Use, used: dict[tuple[str, str], Use]
) -> None:
    idle = min(idle, HOUR_MS - busy)
    parts = charge(NodeHour(cost, busy, idle, HOUR_MS, produced, used), Weights())
    assert sum(parts.values()) == cost
    assert all(nanos > 0 for nanos in parts.values())


def test_ratios_say_nothing_of_nothing() -> None:
    assert rule.tokens_per_usd(1_000, 2_000_000_000) == 500
    assert rule.tokens_per_usd(1_000, 0) is None
    assert rule.nanos_per_million(3, 2_000_000) == 2
    assert rule.nanos_per_million(3, 0) is None
    assert rule.nanos_per_million(0, 3) is None
    assert rule.millijoules_per_token(1_001, 10) == 100
    assert rule.millijoules_per_token(None, 10) is None
    assert rule.permille(1, 3) == 333
    assert rule.permille(0, 0) is None
