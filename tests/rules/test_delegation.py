"""Parts of a session's balance: nothing is in two places, and nothing is lost."""

from hypothesis import given
from hypothesis import strategies as st

from enforcement.rules.delegation import Delegation, DelegationState, bring_home, end, give
from enforcement.rules.ledger import Balance, TransferKind


def pair(limit: int = 1_000, amount: int = 400) -> tuple[Delegation, Balance, Balance]:
    parent = Balance("p", "run", "s", 0, limit, limit)
    assert give(parent, amount) is not None
    return Delegation("p", "c", amount), parent, Balance("c", "run", "s/1", 0, amount, amount)


def test_only_what_is_free_is_given() -> None:
    _, parent, _ = pair()
    assert (parent.given, parent.free) == (400, 600)
    for amount in (601, 0, -1):
        assert give(parent, amount) is None
    parent.closed = True
    assert give(parent, 1) is None
    assert parent.given == 400


def test_what_is_out_comes_home_when_it_is_home() -> None:
    part, parent, child = pair()
    child.held = 150
    assert bring_home(part, parent, child) == []  # it has not ended
    end(part, child)
    assert [(t.kind, t.amount) for t in bring_home(part, parent, child)] == [
        (TransferKind.COME_HOME, 250)
    ]
    assert (part.state, parent.given, child.limit, child.closed) == ("closing", 150, 150, True)
    child.held, child.spent = 0, 90
    assert [(t.kind, t.amount) for t in bring_home(part, parent, child)] == [
        (TransferKind.COME_HOME, 60),
        (TransferKind.CHILD_SPENT, 90),
    ]
    assert (part.state, parent.spent, parent.given, parent.free) == ("closed", 90, 0, 910)
    assert bring_home(part, parent, child) == []


def test_an_overrun_of_the_child_is_its_parents_too() -> None:
    part, parent, child = pair()
    child.spent, child.overrun = 380, 50
    end(part, child)
    bring_home(part, parent, child)
    assert (parent.spent + parent.overrun, part.home) == (430, 0)


@given(
    st.integers(1, 1_000),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=5),
)
def test_every_step_keeps_the_sum(amount: int, steps: list[tuple[int, int]]) -> None:
    part, parent, child = pair(amount=amount)
    for wanted, used in steps:
        lease = min(wanted, max(0, child.free))
        child.held += lease
        if lease > 200:
            end(part, child)
        bring_home(part, parent, child)
        child.held -= lease
        child.spent += min(used, lease)
        assert parent.committed <= parent.cap
        assert part.amount == part.home + max(part.spent, child.limit)
    end(part, child)
    bring_home(part, parent, child)
    assert part.state is DelegationState.CLOSED
    assert (parent.spent, parent.given) == (child.spent, 0)
