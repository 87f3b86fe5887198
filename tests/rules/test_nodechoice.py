"""The least loaded node, and the node that a session comes back to."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from enforcement.rules.nodechoice import Load, for_session, least_loaded

FOUR = [Load(f"node-{n}", 0) for n in range(4)]
loads = st.lists(
    st.builds(Load, st.text(min_size=1), st.integers(0, 100), st.integers(1, 9)),
    min_size=1,
    max_size=8,
    unique_by=lambda load: load.name,
)


def test_the_least_loaded_for_its_weight() -> None:
    assert least_loaded([Load("a", 3), Load("b", 1), Load("c", 1)]) == 1
    assert least_loaded([Load("a", 0), Load("b", 0)]) == 0
    assert least_loaded([Load("a", 2), Load("b", 5, weight=3)]) == 1


def test_a_session_stays_on_its_node() -> None:
    assert {for_session("session-7", FOUR) for _ in range(10)} == {for_session("session-7", FOUR)}


def test_sessions_spread_by_weight() -> None:
    heavy = [Load("a", 0, weight=3), Load("b", 0, weight=1)]
    counts = Counter(for_session(f"session-{n}", heavy) for n in range(4_000))
    assert 2_850 < counts[0] < 3_150


def test_only_the_sessions_of_a_node_that_goes_move() -> None:
    names = [load.name for load in FOUR]
    for n in range(200):
        before = names[for_session(f"session-{n}", FOUR)]
        rest = [load for load in FOUR if load.name != "node-2"]
        after = rest[for_session(f"session-{n}", rest)].name
        assert before in ("node-2", after)


def test_a_busy_node_is_passed_over() -> None:
    favourite = for_session("session-1", FOUR)
    busy = [Load(load.name, 9 if n == favourite else 0) for n, load in enumerate(FOUR)]
    assert for_session("session-1", busy) != favourite


@given(loads, st.text())
def test_no_node_gets_more_than_its_share_and_a_quarter(found: list[Load], session: str) -> None:
    chosen = found[for_session(session, found)]
    calls = sum(load.running for load in found) + 1
    weights = sum(load.weight for load in found)
    assert chosen.running * 4 * weights < 5 * calls * chosen.weight + 4 * weights


@given(loads)
def test_nobody_is_less_loaded_than_the_least(found: list[Load]) -> None:
    best = found[least_loaded(found)]
    assert all(
        (best.running + 1) * load.weight <= (load.running + 1) * best.weight for load in found
    )
