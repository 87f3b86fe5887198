"""Every pair is summed from a cuboid that has both, and from the smallest of these."""

import pytest

from budgets.domain.cuboids import ALL, OF_DAYS, OF_HOURS, OF_TAGGED_DAYS, TAGGED, Cuboid, parents
from budgets.domain.dimensions import PAIRS, PLAIN, SINGLES, TAG_PAIRS, Dimension, Pair


@pytest.mark.parametrize("cuboids", [OF_DAYS, OF_HOURS, OF_TAGGED_DAYS])
def test_a_cuboid_is_summed_from_one_that_has_all_of_its_dimensions(
    cuboids: tuple[Cuboid, ...],
) -> None:
    known = {ALL: set(PLAIN), TAGGED: set(PLAIN)}
    for one in cuboids:
        assert set(one.dimensions) < known[one.of]
        known[one.name] = set(one.dimensions)


@pytest.mark.parametrize(
    ("pairs", "cuboids", "before"),
    [
        ((*SINGLES, *PAIRS), OF_DAYS, ALL),
        (SINGLES, OF_HOURS, ALL),
        (TAG_PAIRS, OF_TAGGED_DAYS, TAGGED),
    ],
)
def test_each_pair_is_summed_once(
    pairs: tuple[Pair, ...], cuboids: tuple[Cuboid, ...], before: str
) -> None:
    found = parents(pairs, cuboids, before)
    assert sorted(pair.code for some in found.values() for pair in some) == sorted(
        pair.code for pair in pairs
    )


def test_the_smallest_is_taken() -> None:
    places = Pair(Dimension.TEAM, Dimension.MODEL)
    users = Pair(Dimension.USER, Dimension.NODE)
    neither = Pair(Dimension.USER, Dimension.SKILL)
    assert parents([places, users, neither], OF_DAYS, ALL) == {
        "by_place": [places],
        "by_user": [users],
        ALL: [neither],
    }
