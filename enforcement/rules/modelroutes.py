"""Names that callers ask for and several models answer to: local first, cheapest, small or large.

A route is a list of targets, each a model on all or some nodes. Which may take a call follows
from the call alone (its size, its lane); which of those does, from the order that they are written
in or from what the call would cost there. Nodes that fail, or are full while another is not, are
the business of whoever asks.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum

from msgspec import Struct

BYTES_PER_TOKEN = 4  # of usual text: a guess, by which nothing is charged


class Choose(StrEnum):
    ORDER = "order"  # the first that can: local first, edge or cloud
    CHEAPEST = "cheapest"


class Lane(StrEnum):
    INTERACTIVE = "interactive"
    BATCH = "batch"  # may wait: served when nobody else wants to be


class Target(Struct, frozen=True):
    """A model on some nodes (none named: all), for prompts up to a size, in one lane or both."""

    model: str
    upstreams: tuple[str, ...] = ()
    up_to_prompt_tokens: int | None = None
    lane: Lane | None = None


class ModelRoute(Struct, frozen=True):
    """What happens to calls that ask for `model`."""

    model: str
    targets: tuple[Target, ...]
    choose: Choose = Choose.ORDER


def prompt_guess(encoded_bytes: int) -> int:
    """Tokens of a request of so many bytes, roughly."""
    return -(-encoded_bytes // BYTES_PER_TOKEN)


def eligible(route: ModelRoute, *, prompt_tokens: int, lane: Lane) -> list[Target]:
    """The targets that a call may go to, in the order that they are written in.

    A lane that has targets of its own keeps to them. A prompt that is larger than every target
    takes goes to those that take the most.
    """
    own = [target for target in route.targets if target.lane is lane]
    open_to = own or [target for target in route.targets if target.lane is None]
    fitting = [t for t in open_to if _takes(t, prompt_tokens)]
    if fitting or not open_to:
        return fitting
    most = max(target.up_to_prompt_tokens or 0 for target in open_to)
    return [target for target in open_to if target.up_to_prompt_tokens == most]


def cheapest_first(targets: Sequence[Target], cost: Callable[[Target], int | None]) -> list[Target]:
    """The targets by what a call costs there, in nano-dollars; unpriced ones last."""
    costs = [cost(target) for target in targets]
    order = sorted(range(len(targets)), key=lambda n: (costs[n] is None, costs[n] or 0, n))
    return [targets[n] for n in order]


def _takes(target: Target, prompt_tokens: int) -> bool:
    return target.up_to_prompt_tokens is None or prompt_tokens <= target.up_to_prompt_tokens
