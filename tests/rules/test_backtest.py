"""Replaying calls: what the sidecar would have done, and never more than a limit."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.rules.backtest import BacktestError, Call, replay
from enforcement.rules.money import TokenUsage
from enforcement.rules.policy import BudgetPolicy, Mode, ScopeKind, Unit, WindowSpec
from enforcement.rules.traces import read_calls, read_proposal

START = datetime(2026, 11, 16, 18, 0, tzinfo=UTC)
HOUR = WindowSpec(kind="calendar", period="hour")


def call(second: int, tokens: int = 100, **facts: Any) -> Call:
    usage = facts.pop("usage", TokenUsage(input_tokens=tokens // 2, output_tokens=tokens // 2))
    fields = {"agent": "a1", "charge": tokens} | facts
    return Call(at=START + timedelta(seconds=second), usage=usage, **fields)


def budget(limit: int, unit: Unit = Unit.TOKENS, **fields: Any) -> BudgetPolicy:
    fields = {"scope_kind": ScopeKind.ORGANIZATION, "scope_id": "", "window": HOUR} | fields
    return BudgetPolicy(id=f"b{limit}", name=f"b{limit}", unit=unit, limit=limit, **fields)


def test_filters_and_splits_are_those_of_the_sidecar() -> None:
    calls = [
        call(0, model="gpt-4o", user="ann", tags={"env": "prod"}),
        call(1, model="gemma", user="ann", tags={"env": "prod"}),
        call(2, model="gpt-4o", user="bob"),
        call(3, model="gpt-4o", user="bob", tags={"env": "prod"}),
    ]
    only = budget(
        1_000, filters={"model": ["gpt*"], "tag:env": ["prod"]}, per="user", mode=Mode.SOFT
    )
    report = replay(calls, [only])
    assert {episode.value: episode.wanted for episode in report.episodes} == {
        "ann": 100,
        "bob": 100,
    }


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        (Unit.USD, 30),
        (Unit.TOKENS, 90),
        (Unit.INPUT_TOKENS, 70),
        (Unit.OUTPUT_TOKENS, 20),
        (Unit.CACHED_TOKENS, 40),
        (Unit.REASONING_TOKENS, 5),
        (Unit.REQUESTS, 1),
        (Unit.GPU_MS, 900),
        (Unit.TOOL_CALLS, 3),
    ],
)
def test_every_unit_is_counted(unit: Unit, expected: int) -> None:
    usage = TokenUsage(
        input_tokens=70, cached_input_tokens=40, output_tokens=20, reasoning_tokens=5
    )
    one = call(0, usage=usage, charge=30, gpu_ms=900, tool_calls=3)
    (episode,) = replay([one], [budget(10_000, unit)]).episodes
    assert (episode.wanted, episode.spent) == (expected, expected)


def test_a_call_waits_for_a_window_that_opens_soon() -> None:
    near = [call(3_590), call(3_595)]
    report = replay(near, [budget(100)])
    assert (report.total.throttled, report.total.refused) == (1, 0)
    assert [episode.spent for episode in report.episodes] == [100, 100]


def test_a_rolling_window_lets_use_go_one_part_after_its_length() -> None:
    rolling = budget(100, window=WindowSpec(kind="rolling", length_s=120, parts=2))
    report = replay([call(0), call(179), call(180), call(181)], [rolling])
    assert (report.total.calls, report.total.refused, report.total.throttled) == (4, 2, 1)
    (episode,) = report.episodes
    assert (episode.spent, report.total.charge) == (100, 400)


def test_nothing_fits_after_a_budget_has_ended() -> None:
    end_s = int(START.timestamp()) + 60
    until = budget(1_000, window=WindowSpec(kind="until", ends_at_s=end_s))
    report = replay([call(0), call(59), call(60), call(500)], [until])
    assert (report.total.refused, report.episodes[0].spent) == (2, 200)


def test_a_call_that_fits_in_part_is_cut_and_one_that_does_not_is_refused() -> None:
    calls = [call(0), call(1), call(2)]
    total = replay(calls, [budget(180)]).total
    assert (total.calls, total.cut, total.refused, total.saved) == (3, 1, 1, 100)


CALLS = st.lists(
    st.builds(
        call,
        st.integers(0, 20_000),
        st.integers(2, 400),
        agent=st.sampled_from(["a1", "a2"]),
        user=st.sampled_from(["", "ann"]),
        model=st.sampled_from(["m1", "m2"]),
    ),
    max_size=40,
)
BUDGETS = st.lists(
    st.builds(
        budget,
        st.integers(50, 2_000),
        st.sampled_from([Unit.USD, Unit.TOKENS, Unit.OUTPUT_TOKENS, Unit.REQUESTS]),
        per=st.sampled_from(["", "agent", "user"]),
        mode=st.sampled_from(list(Mode)),
        window=st.sampled_from([HOUR, WindowSpec()]),
        filters=st.sampled_from([{}, {"model": ["m1"]}]),
    ),
    max_size=4,
    unique_by=lambda b: b.id,
)


@given(CALLS, BUDGETS)
def test_no_hard_balance_passes_its_limit_and_nothing_is_counted_twice(
    calls: list[Call], budgets: list[BudgetPolicy]
) -> None:
    report = replay(calls, budgets)
    hard = {b.id for b in budgets if b.mode is Mode.HARD}
    for episode in report.episodes:
        assert episode.spent <= episode.wanted
        assert episode.budget not in hard or episode.spent <= episode.limit
        assert episode.points == sorted(episode.points, key=lambda point: point[0])
    total = report.total
    assert total.calls == len(calls)
    assert total.charge == sum(one.charge or 0 for one in calls)
    assert 0 <= total.saved <= total.charge
    assert total.cut + total.refused <= total.calls
    assert sum(counts.calls for counts in report.agents.values()) == total.calls
    if not hard:
        assert (total.throttled, total.cut, total.refused, total.saved) == (0, 0, 0, 0)


def test_a_csv_may_carry_every_fact() -> None:
    text = (
        "at,agent,user,node,skill,tags,input_tokens,output_tokens,reasoning_tokens,gpu_ms,"
        "tool_calls,charge_usd\n"
        "2026-11-16T18:00:00Z,a1,ann,n1,pdf,env=prod;team=x,10,5,2,70,1,0.5\n"
    )
    (one,) = read_calls(text.splitlines(keepends=True))
    assert (one.user, one.node, one.skill, one.tags) == (
        "ann",
        "n1",
        "pdf",
        {"env": "prod", "team": "x"},
    )
    assert (one.usage.reasoning_tokens, one.gpu_ms, one.tool_calls) == (2, 70, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"per": "weather"}, "nothing to split by"),
        ({"filters": {"modle": ["x"]}}, "no fact 'modle'"),
        ({"unit": "concurrency", "limit": 2}, "not replayed"),
        ({"scope": "session:s1"}, "scope is organization"),
        ({"limit": 0}, "above zero"),
        ({"colour": "red"}, "unknown field"),
    ],
)
def test_a_proposal_that_cannot_be_meant(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BacktestError, match=words):
        read_proposal({"budgets": [{"name": "b", "unit": "tokens", "limit": 5} | change]})


def test_tags_are_pairs() -> None:
    with pytest.raises(BacktestError, match="not NAME=VALUE"):
        list(read_calls(["at,input_tokens,output_tokens,tags\n", "2026-11-16,1,1,prod\n"]))
