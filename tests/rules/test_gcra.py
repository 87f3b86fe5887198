"""GCRA: bursts of a minute's worth, then the steady rate; refunds."""

from hypothesis import given
from hypothesis import strategies as st

from enforcement.rules.gcra import MINUTE_NS, Decision, Limit, refund, try_spend

NOW = 10**15


def test_a_minutes_worth_may_be_spent_at_once_then_not_one_more() -> None:
    limit, tat_ns = Limit(3), 0
    for _ in range(3):
        decision = try_spend(limit, tat_ns=tat_ns, amount=1, now_ns=NOW)
        assert decision.allowed
        tat_ns = decision.tat_ns
    refused = try_spend(limit, tat_ns=tat_ns, amount=1, now_ns=NOW)
    assert refused == Decision(tat_ns=tat_ns, retry_in_ns=MINUTE_NS // 3)
    later = try_spend(limit, tat_ns=tat_ns, amount=1, now_ns=NOW + refused.retry_in_ns)
    assert later.allowed


def test_an_amount_above_a_minutes_worth_takes_the_whole_minute() -> None:
    limit = Limit(10)
    first = try_spend(limit, tat_ns=0, amount=1_000_000, now_ns=NOW)
    assert first == Decision(tat_ns=NOW + MINUTE_NS)
    assert try_spend(limit, tat_ns=first.tat_ns, amount=10, now_ns=NOW).retry_in_ns == MINUTE_NS


def test_a_refund_makes_room_again() -> None:
    limit = Limit(10)
    spent = try_spend(limit, tat_ns=0, amount=10, now_ns=NOW)
    tat_ns = refund(limit, tat_ns=spent.tat_ns, amount=4)
    assert try_spend(limit, tat_ns=tat_ns, amount=4, now_ns=NOW).allowed
    assert not try_spend(limit, tat_ns=tat_ns, amount=5, now_ns=NOW).allowed


@given(st.integers(1, 1000), st.lists(st.tuples(st.integers(0, 10**10), st.integers(1, 50))))
def test_never_more_than_a_burst_and_the_rate(per_minute: int, asks: list[tuple[int, int]]) -> None:
    limit, tat_ns, now_ns, passed = Limit(per_minute), 0, NOW, 0
    for pause_ns, amount in asks:
        now_ns += pause_ns
        decision = try_spend(limit, tat_ns=tat_ns, amount=amount, now_ns=now_ns)
        tat_ns = decision.tat_ns
        passed += min(amount, per_minute) if decision.allowed else 0
    assert passed <= per_minute + per_minute * (now_ns - NOW) // MINUTE_NS + 1
