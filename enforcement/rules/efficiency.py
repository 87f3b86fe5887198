"""What a serving node's cost buys, and who it was spent for. Pure, in whole numbers.

Each hour of a node costs what it costs, whether it works or waits. The time in which it waited is
idle; the time in which it was not read is unread; what it cost while it worked is divided by the
weight of the tokens that were made for each. Each division is by largest remainder, so the lines
of a node add up to its cost exactly (Hamilton's method).
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeVar

from enforcement.rules.money import NANOS_PER_USD

Key = TypeVar("Key", bound=Hashable)
HOUR_MS = 3_600_000
MILLION = 1_000_000


class Use(NamedTuple):
    """Tokens of somebody; cached ones are part of the prompt's."""

    prompt: int = 0
    cached: int = 0
    generation: int = 0

    def plus(self, other: "Use") -> "Use":
        return Use(*(a + b for a, b in zip(self, other, strict=True)))


class Weights(NamedTuple):
    """What tokens of a kind cost an engine, beside each other.

    A start, not a measurement: a generated token takes a pass of its own, a prompt is read in a few
    of them, and a cached one is only looked up.
    """

    prompt: int = 10
    cached: int = 1
    generation: int = 40


class Line(StrEnum):
    """Whom a part of a node's cost is for."""

    AGENT = "agent"
    IDLE = "idle"
    UNMETERED = "unmetered"  # made for nobody that a sidecar knows
    UNREAD = "unread"  # nobody knows whether it worked


class Payer(NamedTuple):
    """One line of a chargeback; agent and model are told of agents only."""

    line: Line
    agent: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class NodeHour:
    """One hour of a node: what it cost, how long it worked and waited, and what was made.

    `used` is what sidecars metered, by agent and model. What is neither busy nor idle was not read.
    """

    cost_nanos: int
    busy_ms: int
    idle_ms: int
    length_ms: int
    produced: Use
    used: Mapping[tuple[str, str], Use]


def divide(total: int, weights: Mapping[Key, int]) -> dict[Key, int]:
    """Parts of a whole by weight that add up to it: each is cut, and the rest goes by one to the
    largest remainders, among equal ones to the first.

    Raises ValueError: a negative number, or something to divide among nobody.
    """
    whole = sum(weights.values())
    if total < 0 or any(weight < 0 for weight in weights.values()):
        raise ValueError("nothing negative can be divided")
    if whole == 0:
        if total:
            raise ValueError("there is nobody to divide among")
        return dict.fromkeys(weights, 0)
    parts = {key: total * weight // whole for key, weight in weights.items()}
    rest = total - sum(parts.values())
    by_remainder = sorted(weights, key=lambda key: total * weights[key] % whole, reverse=True)
    for key in by_remainder[:rest]:
        parts[key] += 1
    return parts


def weight_of(use: Use, weights: Weights) -> int:
    """What this use weighs; never less than nothing."""
    uncached = max(0, use.prompt - use.cached)
    return (
        uncached * weights.prompt
        + max(0, use.cached) * weights.cached
        + max(0, use.generation) * weights.generation
    )


def charge(hour: NodeHour, weights: Weights) -> dict[Payer, int]:
    """Who the hour's cost was for; the parts add up to it."""
    times = {
        Line.AGENT: hour.busy_ms,
        Line.IDLE: hour.idle_ms,
        Line.UNREAD: max(0, hour.length_ms - hour.busy_ms - hour.idle_ms),
    }
    by_time = divide(hour.cost_nanos, times) if any(times.values()) else {}
    parts = {
        Payer(line): nanos for line, nanos in by_time.items() if nanos and line is not Line.AGENT
    }
    busy = by_time.get(Line.AGENT, 0)
    if busy:
        parts |= {
            payer: nanos for payer, nanos in divide(busy, _payers(hour, weights)).items() if nanos
        }
    return parts


def _payers(hour: NodeHour, weights: Weights) -> dict[Payer, int]:
    """The weight of each agent's use, and of what was made beyond it. An hour that worked for
    nothing that anybody counted (a call that spans it) is nobody's.
    """
    payers = {
        Payer(Line.AGENT, agent, model): weight_of(use, weights)
        for (agent, model), use in hour.used.items()
    }
    beyond = weight_of(hour.produced, weights) - sum(payers.values())
    payers[Payer(Line.UNMETERED)] = max(0, beyond)
    if not any(payers.values()):
        payers[Payer(Line.UNMETERED)] = 1
    return payers


def total(parts: Iterable[Mapping[Key, int]]) -> dict[Key, int]:
    """Sums by key."""
    found: dict[Key, int] = {}
    for part in parts:
        for key, amount in part.items():
            found[key] = found.get(key, 0) + amount
    return found


# ------------------------------------------------------------------------------- ratios


def tokens_per_usd(tokens: int, cost_nanos: int) -> int | None:
    """Whole tokens for a dollar; None where it cost nothing."""
    return tokens * NANOS_PER_USD // cost_nanos if cost_nanos > 0 else None


def nanos_per_million(cost_nanos: int, tokens: int) -> int | None:
    """What a million tokens cost, rounded up; None without tokens, or where no cost is known."""
    return -(-cost_nanos * MILLION // tokens) if min(tokens, cost_nanos) > 0 else None


def millijoules_per_token(millijoules: int | None, tokens: int) -> int | None:
    """Rounded down; None where either is not known."""
    return millijoules // tokens if millijoules is not None and tokens > 0 else None


def permille(part: int, whole: int) -> int | None:
    """Thousandths, cut; None of nothing."""
    return part * 1_000 // whole if whole > 0 else None
