"""The dimensions of use, and the numbers by which rollups name them. Pure.

A cell counts use by none, one or two dimensions. Its `dimensions` is a code: a hundred times the
number of the first, plus the number of the second; the first has the smaller number. Values are
numbers of `UsageValue`, and two of our own: nothing was said, and too many were said.
"""

from collections.abc import Sequence
from enum import StrEnum
from itertools import combinations
from typing import NamedTuple


class Dimension(StrEnum):
    """By what use can be told apart. The order is that of their numbers, which never change."""

    TEAM = "team"
    PROJECT = "project"
    AGENT = "agent"
    USER = "user"
    MODEL = "model"
    PROVIDER = "provider"
    NODE = "node"
    SKILL = "skill"
    ENDPOINT = "endpoint"
    TIER = "tier"
    ENDING = "ending"
    TAG = "tag"


NUMBERS = {dimension: number for number, dimension in enumerate(Dimension, start=1)}
PLAIN = tuple(one for one in Dimension if one is not Dimension.TAG)  # one value for each call
OWNERS = (Dimension.TEAM, Dimension.PROJECT, Dimension.AGENT)  # their values are ids
# The column of usage events for each, but for tags.
COLUMNS = {
    Dimension.TEAM: "team_id",
    Dimension.PROJECT: "project_id",
    Dimension.AGENT: "agent_id",
    Dimension.USER: '"user"',
    Dimension.MODEL: "model",
    Dimension.PROVIDER: "provider",
    Dimension.NODE: "node",
    Dimension.SKILL: "skill",
    Dimension.ENDPOINT: "endpoint",
    Dimension.TIER: "service_tier",
    Dimension.ENDING: "outcome",
}
NOTHING_SAID = 0
TOO_MANY = -1
MOST_VALUES = 10_000  # of one dimension in one organization; further ones are one: TOO_MANY
MOST_TAG_VALUES = 1_000  # of one tag, likewise


class Pair(NamedTuple):
    """What a cell counts by; None: nothing more."""

    first: Dimension | None = None
    second: Dimension | None = None

    @property
    def code(self) -> int:
        return 100 * _number(self.first) + _number(self.second)


def _number(dimension: Dimension | None) -> int:
    return NUMBERS[dimension] if dimension else 0


def pair_of(dimensions: Sequence[Dimension]) -> Pair | None:
    """The pair in which these are counted together; None where no cell does so."""
    ordered = sorted(set(dimensions), key=NUMBERS.__getitem__)
    if len(ordered) > 2 or len(ordered) < len(dimensions):
        return None
    return Pair(*ordered)


SINGLES = (Pair(), *(Pair(one) for one in PLAIN))
PAIRS = tuple(Pair(first, second) for first, second in combinations(PLAIN, 2))
TAG_SINGLES = (Pair(Dimension.TAG),)
TAG_PAIRS = tuple(Pair(one, Dimension.TAG) for one in PLAIN)
EVERY_PAIR = (*SINGLES, *TAG_SINGLES, *PAIRS, *TAG_PAIRS)
