"""Which of the nodes of a model takes a call: the least loaded, or the one that knows its session.

A session's calls share their beginning, which an engine keeps in its KV cache: sent to the same
node again, it need not be read again. Rendezvous hashing (Thaler & Ravishankar, 1998; weighted:
-w / ln h) picks the same node for a session as long as it is there, and moves only the sessions of
a node that comes or goes. A node that has more than its share × 1.25 is passed over (Mirrokni,
Thorup & Zadimoghaddam, *Consistent Hashing with Bounded Loads*, 2018): affinity piles up no load.
"""

import math
from collections.abc import Sequence
from hashlib import blake2b

from msgspec import Struct

SLACK_NUMERATOR, SLACK_DENOMINATOR = 5, 4
_SPAN = 1 << 64


class Load(Struct, frozen=True):
    """A node, how many calls it has, and how many times the load of weight 1 it may have."""

    name: str
    running: int
    weight: int = 1


def least_loaded(loads: Sequence[Load]) -> int:
    """The position of the node with the least load for its weight; the first of equals."""
    best = 0
    for position, load in enumerate(loads):
        first = loads[best]
        if (load.running + 1) * first.weight < (first.running + 1) * load.weight:
            best = position
    return best


def for_session(session: str, loads: Sequence[Load]) -> int:
    """The position of the node that a session's call goes to."""
    calls = sum(load.running for load in loads) + 1
    weights = sum(load.weight for load in loads)
    order = sorted(range(len(loads)), key=lambda n: _score(session, loads[n]), reverse=True)
    for position in order:
        load = loads[position]
        share = -(-SLACK_NUMERATOR * calls * load.weight // (SLACK_DENOMINATOR * weights))
        if load.running < share:
            return position
    return least_loaded(loads)  # never: the shares add up to more than there are calls


def _score(session: str, load: Load) -> float:
    digest = blake2b(f"{session}\0{load.name}".encode(), digest_size=8).digest()
    drawn = (int.from_bytes(digest, "big") + 1) / (_SPAN + 1)  # in (0, 1)
    return -load.weight / math.log(drawn) if drawn < 1.0 else math.inf
