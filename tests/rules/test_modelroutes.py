"""Which targets of a route may take a call, and in which order."""

from hypothesis import given
from hypothesis import strategies as st

from enforcement.rules.modelroutes import (
    Lane,
    ModelRoute,
    Target,
    cheapest_first,
    eligible,
    prompt_guess,
)

SMALL = Target("small", up_to_prompt_tokens=1_000)
LARGE = Target("large")
NIGHT = Target("large", ("spot",), lane=Lane.BATCH)
DAY = Target("large", ("gpu",), lane=Lane.INTERACTIVE)


def names(route: ModelRoute, prompt_tokens: int = 1, lane: Lane = Lane.INTERACTIVE) -> list[str]:
    return [target.model for target in eligible(route, prompt_tokens=prompt_tokens, lane=lane)]


def test_small_prompts_go_to_the_small_model_first() -> None:
    route = ModelRoute("assistant", (SMALL, LARGE))
    assert names(route, 1_000) == ["small", "large"]
    assert names(route, 1_001) == ["large"]


def test_what_is_too_large_for_all_goes_where_the_most_fits() -> None:
    route = ModelRoute("assistant", (SMALL, Target("middle", up_to_prompt_tokens=5_000)))
    assert names(route, 9_000) == ["middle"]


def test_a_lane_keeps_to_its_own_targets() -> None:
    route = ModelRoute("assistant", (DAY, NIGHT))
    batch = eligible(route, prompt_tokens=1, lane=Lane.BATCH)
    assert batch == [NIGHT]
    assert eligible(route, prompt_tokens=1, lane=Lane.INTERACTIVE) == [DAY]


def test_a_lane_without_targets_takes_the_common_ones() -> None:
    route = ModelRoute("assistant", (LARGE, NIGHT))
    assert eligible(route, prompt_tokens=1, lane=Lane.INTERACTIVE) == [LARGE]
    assert eligible(ModelRoute("a", (NIGHT,)), prompt_tokens=1, lane=Lane.INTERACTIVE) == []


def test_the_cheapest_comes_first_and_the_unpriced_last() -> None:
    costs = {"a": 5, "b": None, "c": 3, "d": 5}
    targets = [Target(name) for name in costs]
    ordered = cheapest_first(targets, lambda target: costs[target.model])
    assert [target.model for target in ordered] == ["c", "a", "d", "b"]


def test_a_guess_at_the_prompt() -> None:
    assert [prompt_guess(n) for n in (0, 1, 4, 5)] == [0, 1, 1, 2]


targets = st.lists(
    st.builds(
        Target,
        st.sampled_from("abc"),
        st.just(()),
        st.none() | st.integers(1, 100),
        st.none() | st.sampled_from(Lane),
    ),
    max_size=6,
)


@given(targets, st.integers(0, 200), st.sampled_from(Lane))
def test_only_targets_of_the_route_in_its_order(
    found: list[Target], prompt_tokens: int, lane: Lane
) -> None:
    chosen = eligible(ModelRoute("r", tuple(found)), prompt_tokens=prompt_tokens, lane=lane)
    rest = iter(found)
    assert all(target in rest for target in chosen)
    assert all(target.lane in (None, lane) for target in chosen)
    if any(target.lane in (None, lane) for target in found):
        assert chosen
