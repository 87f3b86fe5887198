"""Left alone after failures in a row, then tried with one call."""

from enforcement.rules.breaker import Breaker

S = 1_000_000_000


def broken(now_ns: int = 0) -> Breaker:
    breaker = Breaker(failures=3, rest_ns=10 * S)
    for _ in range(3):
        breaker.fail(now_ns)
    return breaker


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    breaker = Breaker(failures=3, rest_ns=10 * S)
    breaker.fail(0)
    breaker.fail(0)
    breaker.succeed()
    breaker.fail(0)
    breaker.fail(0)
    assert not breaker.refuses(0)
    breaker.fail(0)
    assert breaker.refuses(0)
    assert breaker.rests_for_ns(4 * S) == 6 * S


def test_after_its_rest_one_call_is_let_through() -> None:
    breaker = broken()
    assert breaker.refuses(10 * S - 1)
    assert not breaker.refuses(10 * S)
    breaker.begin(10 * S)
    assert breaker.refuses(11 * S)
    breaker.succeed()
    assert not breaker.refuses(11 * S)


def test_a_probe_that_fails_begins_another_rest() -> None:
    breaker = broken()
    breaker.begin(10 * S)
    breaker.fail(12 * S)
    assert breaker.refuses(22 * S - 1)
    assert not breaker.refuses(22 * S)


def test_a_probe_that_never_ends_is_followed_by_another() -> None:
    breaker = broken()
    breaker.begin(10 * S)
    assert not breaker.refuses(20 * S)


def test_a_closed_one_forgets_beginnings() -> None:
    breaker = Breaker(failures=3, rest_ns=10 * S)
    breaker.begin(5 * S)
    assert not breaker.refuses(5 * S)


def test_a_node_may_ask_for_rest_itself() -> None:
    breaker = Breaker(failures=3, rest_ns=10 * S)
    breaker.rest(0, for_ns=2 * S)
    breaker.rest(0, for_ns=1 * S)
    assert breaker.rests_for_ns(0) == 2 * S
    assert not breaker.refuses(2 * S)
