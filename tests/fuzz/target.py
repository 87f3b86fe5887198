"""What is fuzzed: seeds, words, and a check that fails when a promise is broken."""

import random
from collections.abc import Callable
from typing import NamedTuple


class BrokenError(AssertionError):
    """A promise that does not hold for an input."""


class Target(NamedTuple):
    """`check` says in a word what became of an input, for the tally."""

    name: str
    promise: str
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]
    check: Callable[[bytes, random.Random], str]


def require(holds: bool, broken: str) -> None:
    if not holds:
        raise BrokenError(broken)
