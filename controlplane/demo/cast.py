"""The five agents of the demo: their budgets, their rates, and what must become of them.

Plain data, shared by the process that makes them (with Django) and the one that plays them.
"""

from typing import NamedTuple

from controlplane.demo.model import MODEL

UNPRICED_MODEL = "gemma-3-270m-preview"
NANOS_PER_CENT = 10_000_000
# Our own price of the model: dollars per million tokens, high enough to be seen in a short demo.
INPUT_NANOS_PER_MTOK = 1_000_000_000
OUTPUT_NANOS_PER_MTOK = 10_000_000_000


class Role(NamedTuple):
    """One agent of the cast."""

    slug: str
    name: str
    model: str
    cap_nanos: int
    hold_mode: str = "strict"
    requests_per_minute: int | None = None


STEADY = Role("steady", "Steady", MODEL, 5 * NANOS_PER_CENT)
CHATTY = Role("chatty", "Chatty", MODEL, 5 * NANOS_PER_CENT, requests_per_minute=2)
# Two whole answers of 160 tokens, and a rest that pays for less than a third one.
RUNAWAY = Role("runaway", "Runaway (strict cap)", MODEL, 4 * NANOS_PER_CENT // 10)
METERED = Role("metered", "Runaway (metered cap)", MODEL, NANOS_PER_CENT // 2, "metered")
UNPRICED = Role("unpriced", "Unpriced model", UNPRICED_MODEL, NANOS_PER_CENT)
CAST = (STEADY, CHATTY, RUNAWAY, METERED, UNPRICED)
