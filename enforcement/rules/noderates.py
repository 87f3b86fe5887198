"""What a token of a self-hosted model costs: what its nodes cost, divided by what they made. Pure.

1. An hour in which nothing was made costs as well: idle time is in the rates.
2. Fresh prompt tokens are the measure; an answer's token counts `answer_per_mille` thousandths of
   one, a prompt token out of the cache `cached_per_mille`. Engines tell no price of either: the
   weights are a choice, and stand in the evidence. Published prices ask three to five times as much
   for an answer's token as for a prompt's, and about a tenth for a cached one.
3. Rates are rounded up, so that what was made, at these rates, pays for the nodes in full.
"""

from dataclasses import dataclass

from enforcement.rules.money import MAX_NANOS, TOKENS_PER_RATE
from enforcement.rules.policy import Rates

PER_MILLE = 1_000
LEAST_TOKENS = 10_000  # of fewer nothing is concluded
MOST_PER_MILLE = 1_000_000


class NodeRateError(ValueError):
    """Nothing can be concluded from what was measured."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """How much dearer than a fresh prompt token others are, in thousandths of one."""

    answer_per_mille: int = 4_000
    cached_per_mille: int = 100


@dataclass(frozen=True, kw_only=True)
class Made:
    """Tokens that engines counted. `prompt_tokens` is the total: cached ones included."""

    prompt_tokens: int
    cached_tokens: int
    answer_tokens: int

    def __add__(self, other: "Made") -> "Made":
        return Made(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            answer_tokens=self.answer_tokens + other.answer_tokens,
        )


NOTHING = Made(prompt_tokens=0, cached_tokens=0, answer_tokens=0)


def rates_of_nodes(cost_nanos: int, made: Made, weights: Weights) -> Rates:
    """Rates at which `made` costs `cost_nanos`, or less than a nano-dollar for each kind more.

    Raises:
        NodeRateError: too few tokens, counts or weights that cannot be, or a rate beyond 63 bits.
    """
    _check(cost_nanos, made, weights)
    fresh = made.prompt_tokens - made.cached_tokens
    scaled = (
        fresh * PER_MILLE
        + made.cached_tokens * weights.cached_per_mille
        + made.answer_tokens * weights.answer_per_mille
    )
    if scaled == 0:
        raise NodeRateError("what was made has no weight")
    plain, cached, answer = (
        -(-cost_nanos * TOKENS_PER_RATE * weight // scaled)
        for weight in (PER_MILLE, weights.cached_per_mille, weights.answer_per_mille)
    )
    if max(plain, answer) > MAX_NANOS:
        raise NodeRateError("the rates are beyond anything that is a price")
    return Rates(input=plain, cached_input=cached, cache_write=plain, output=answer)


def _check(cost_nanos: int, made: Made, weights: Weights) -> None:
    if cost_nanos <= 0:
        raise NodeRateError("the nodes cost nothing, so a token has no price")
    if not 0 <= made.cached_tokens <= made.prompt_tokens or made.answer_tokens < 0:
        raise NodeRateError(f"token counts contradict each other: {made}")
    if made.prompt_tokens + made.answer_tokens < LEAST_TOKENS:
        raise NodeRateError(f"fewer than {LEAST_TOKENS} tokens were made: too few to divide by")
    if not 0 < weights.answer_per_mille <= MOST_PER_MILLE:
        raise NodeRateError("an answer's token weighs more than 0, up to 1,000 prompt tokens")
    if not 0 <= weights.cached_per_mille <= PER_MILLE:
        raise NodeRateError("a cached token weighs 0 to 1 prompt token")
