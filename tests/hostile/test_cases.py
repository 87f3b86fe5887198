"""Every hostile case is refused, one by one, and nothing of it reaches the serving node."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator

import pytest
import uvloop

from tests.hostile.case import Case
from tests.hostile.cases import ALL, harmless
from tests.hostile.refusing import guarded, leak_of, problem_of, proper_call_is_served
from tests.sidecar.stack import Stack

Question = Callable[[Case, Stack], Coroutine[None, None, str]]
Ask = Callable[[Question, Case], str]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """One sidecar for all cases: what one of them breaks, the next ones find broken."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        serving = guarded(tmp_path_factory.mktemp("hostile"))
        world = runner.run(serving.__aenter__())
        yield lambda question, case: runner.run(question(case, world))
        assert runner.run(proper_call_is_served(world))
        runner.run(serving.__aexit__(None, None, None))


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_a_hostile_request_is_refused(ask: Ask, case: Case) -> None:
    assert ask(problem_of, case) == ""


@pytest.mark.parametrize("case", harmless.CASES, ids=lambda case: case.name)
def test_what_is_served_is_served_without_its_trick(ask: Ask, case: Case) -> None:
    assert ask(leak_of, case) == ""


def test_there_are_enough_cases_and_each_has_a_name_and_a_reason() -> None:
    assert len({case.name for case in ALL}) == len(ALL) >= 150
    assert len({case.raw for case in ALL}) == len(ALL)
    assert all(len(case.why) > 20 for case in ALL)
