"""The short form of `./run fuzz`: a few thousand inputs from fixed seeds for every target."""

import random

import pytest

from tests.fuzz.run import fuzz
from tests.fuzz.target import BrokenError, Target
from tests.fuzz.targets import TARGETS

INPUTS = 3_000


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("seed", [1, 2])
def test_no_promise_is_broken(name: str, seed: int) -> None:
    report = fuzz(TARGETS[name], seed=seed, inputs=INPUTS)

    assert report.failure == "", report.failing
    assert report.inputs == INPUTS
    assert (
        len(report.tally) > 1
    )  # inputs of more than one kind: the damage is neither nil nor total


def test_a_broken_promise_is_found_and_shrunk() -> None:
    def check(data: bytes, dice: random.Random) -> str:
        if b"\x00" in data:
            raise BrokenError("NUL")
        return "fine"

    target = Target("planted", "", (b"hello world",), (b"x", b"y"), check)

    report = fuzz(target, seed=1, inputs=10_000)

    assert (report.failure, report.failing) == ("BrokenError: NUL", b"\x00")
