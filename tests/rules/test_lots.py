"""Lots and holds: all or nothing, never pooled, exact to the unit."""

import pytest

from enforcement.rules import records
from enforcement.rules.lots import (
    NS_PER_MS,
    Hold,
    InvariantError,
    Lot,
    Lots,
    Need,
    Shortage,
    life_ns,
)
from enforcement.rules.wire import Grant, Outcome, Part, UsageEvent

SECOND = 1_000 * NS_PER_MS
A, B = ("a", ""), ("b", "x")


def lots_with(*grants: tuple[tuple[str, str], int], ttl_ms: int = 10_000) -> Lots:
    lots = Lots()
    for number, (key, amount) in enumerate(grants, 1):
        grant = Grant(f"l{number}", "g", key[0], key[1], 0, amount, ttl_ms, "mac")
        lots.add(grant, incarnation="i", asked_ns=0, now_ns=0, live=True)
    lots.mark_durable(list(lots.by_lease))
    lots.journal_out.clear()
    return lots


def place(lots: Lots, *needs: tuple[tuple[str, str], int], now_ns: int = 0) -> Hold:
    hold = lots.place([Need(*key, amount) for key, amount in needs], now_ns=now_ns)
    assert isinstance(hold, Hold)
    return hold


def state(lot: Lot) -> tuple[int, int, int, int]:
    return lot.used, lot.open, lot.returned, lot.free


def test_a_hold_takes_from_every_balance_or_from_none() -> None:
    lots = lots_with((A, 100), (B, 10))
    assert lots.place([Need(*A, 50), Need(*B, 11)], now_ns=0) == Shortage((Need(*B, 1),))
    assert [state(lot) for lot in lots.by_lease.values()] == [(0, 0, 0, 100), (0, 0, 0, 10)]
    assert lots.journal_out == []
    hold = place(lots, (A, 50), (B, 10))
    assert [state(lot) for lot in lots.by_lease.values()] == [(0, 50, 0, 50), (0, 10, 0, 0)]
    assert lots.journal_out == [records.Held(hold.id, [("l1", 50), ("l2", 10)])]


def test_a_need_may_be_split_over_lots_of_its_balance() -> None:
    lots = lots_with((A, 30), (A, 30))
    hold = place(lots, (A, 40))
    assert hold.as_parts() == [Part("a", "", "l1", 30), Part("a", "", "l2", 10)]
    assert lots.settle(hold, {A: 35}, now_ns=0) == [Part("a", "", "l1", 30), Part("a", "", "l2", 5)]
    assert [state(lot) for lot in lots.by_lease.values()] == [(30, 0, 0, 0), (5, 0, 0, 25)]


def test_a_lot_is_not_used_before_its_grant_is_durable() -> None:
    lots = Lots()
    lots.add(Grant("l", "g", *A, 0, 9, 1_000, ""), incarnation="", asked_ns=0, now_ns=0, live=True)
    assert lots.free_of(A, now_ns=0) == 0
    lots.mark_durable(["l"])
    assert lots.free_of(A, now_ns=0) == 9


def test_a_life_counts_from_the_ask_less_the_drift() -> None:
    assert life_ns(10_000) == 9_800 * NS_PER_MS
    lots = lots_with((A, 9), ttl_ms=1_000)
    assert lots.free_of(A, now_ns=980 * NS_PER_MS - 1) == 9
    assert lots.free_of(A, now_ns=980 * NS_PER_MS) == 0


def test_past_its_deadline_a_lot_lets_running_requests_finish() -> None:
    lots = lots_with((A, 10), ttl_ms=1_000)
    hold = place(lots, (A, 6))
    lots.expire(now_ns=SECOND)
    assert state(lots.by_lease["l1"]) == (0, 6, 4, 0)
    assert not lots.by_lease["l1"].final
    lots.settle(hold, {A: 5}, now_ns=2 * SECOND)
    assert state(lots.by_lease["l1"]) == (5, 0, 5, 0)
    assert lots.by_lease["l1"].final


def test_a_settlement_above_its_hold_takes_the_rest_then_others_then_overruns() -> None:
    lots = lots_with((A, 10), (A, 4))
    hold = place(lots, (A, 6))
    parts = lots.settle(hold, {A: 17}, now_ns=0)
    assert sum(part.amount for part in parts) == 17
    assert [(lot.used, lot.overrun) for lot in lots.by_lease.values()] == [(10, 3), (4, 0)]
    settled = next(r for r in lots.journal_out if isinstance(r, records.Settled))
    assert settled.overrun == [("l1", 3)]


def test_an_overrun_without_any_lease_is_said_loose() -> None:
    lots = lots_with((A, 10))
    hold = place(lots, (A, 0))
    lots.by_lease["l1"].live = False
    assert lots.settle(hold, {A: 7}, now_ns=0) == [Part("a", "", "", 7)]


def test_a_hold_settles_once() -> None:
    lots = lots_with((A, 10))
    hold = place(lots, (A, 5))
    lots.settle(hold, {A: 5}, now_ns=0)
    with pytest.raises(InvariantError, match="twice"):
        lots.settle(hold, {A: 5}, now_ns=0)


def test_the_journal_carries_the_event_with_its_parts() -> None:
    lots = lots_with((A, 10))
    event = UsageEvent("e", "agent", "m", 0, Outcome.COMPLETED)
    hold = lots.place([Need(*A, 8)], now_ns=0, event=event)
    assert isinstance(hold, Hold)
    lots.settle(hold, {A: 3}, now_ns=0, event=event)
    held, settled = lots.journal_out
    assert isinstance(held, records.Held)
    assert held.event is event
    assert isinstance(settled, records.Settled)
    assert settled.event is not None
    assert settled.event.parts == [Part("a", "", "l1", 3)]


def test_extending_is_all_or_nothing_too() -> None:
    lots = lots_with((A, 10), (B, 10))
    hold = place(lots, (A, 5), (B, 5))
    assert lots.extend(hold, [Need(*A, 5), Need(*B, 6)], now_ns=0) == Shortage((Need(*B, 1),))
    assert lots.extend(hold, [Need(*A, 5), Need(*B, 5)], now_ns=0) is None
    assert (hold.amount(A), hold.amount(B)) == (10, 10)


def test_a_recall_sends_idle_money_home_now_and_released_money_for_a_second() -> None:
    lots = lots_with((A, 10))
    hold = place(lots, (A, 4))
    lots.recall(A, now_ns=0)
    assert state(lots.by_lease["l1"]) == (0, 4, 6, 0)
    lots.settle(hold, {A: 1}, now_ns=SECOND - 1)
    assert state(lots.by_lease["l1"]) == (1, 0, 9, 0)


def test_a_lot_that_is_used_up_is_final_at_once() -> None:
    lots = lots_with((A, 10))
    lots.settle(place(lots, (A, 10)), {A: 10}, now_ns=0)
    assert lots.by_lease["l1"].final


def test_an_acknowledged_final_is_forgotten_after_a_while() -> None:
    lots = lots_with((A, 10))
    lots.close()
    lots.acknowledge_final(lots.by_lease["l1"], at_ms=5)
    assert lots.by_balance == {}
    assert lots.forget(before_ms=5) == []
    assert lots.forget(before_ms=6) == ["l1"]


def test_a_lot_that_contradicts_itself_fails_loudly() -> None:
    lots = lots_with((A, 10))
    hold = place(lots, (A, 4))
    lots.by_lease["l1"].used = 20
    with pytest.raises(InvariantError):
        lots.settle(hold, {A: 4}, now_ns=0)
