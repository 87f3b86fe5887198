"""Whether two counts of an hour's tokens agree: one of sidecars, one of the engine.

An hour that the engine was not read through is unknown, never drift: what is missing of a count
says nothing about the other. A call is metered in the hour in which it began, while the engine
counts as it produces, so what is missing in one hour and too much in the next is no drift either.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

HOUR = timedelta(hours=1)


class Verdict(StrEnum):
    """What became of an hour."""

    AGREES = "agrees"
    SHIFTED = "shifted"  # agrees when it is summed with the hour before or after it
    DRIFTS = "drifts"
    UNKNOWN = "unknown"
    ALONE = "alone"  # only metered: nobody else counts it


class CauseKind(StrEnum):
    """Why two counts differ, or cannot be compared."""

    PAST_SIDECARS = "past_sidecars"  # traffic around us
    SETTLING = "settling"  # calls that run, or ended a moment ago
    UNSENT = "unsent"  # a sidecar's spool has not arrived
    RESTARTED = "restarted"  # the counters began anew
    NOT_SCRAPED = "not_scraped"  # a gap between readings
    INCOMPLETE = "incomplete"  # one of the last two, within a longer time
    PRESUMED = "presumed"  # calls without an exact usage are charged their bound
    ROUNDING = "rounding"
    SAME_NAME = "same_name"  # two nodes report as one
    NO_COUNTERS = "no_counters"
    NOT_READ = "not_read"  # before the first reading
    UNREADABLE = "unreadable"
    STALE = "stale"  # after the last reading
    OPEN = "open"  # the hour is not over
    NO_NODE = "no_node"  # nobody entered a node of this name
    SEVERAL_MODELS = "several_models"  # the engine counts them together
    BILL_OPEN = "bill_open"  # read before the provider had finished it
    NOT_BILLED = "not_billed"  # more was metered than billed
    PRICE_MISSING = "price_missing"
    PRICE_DIFFERS = "price_differs"
    OTHER_CHARGES = "other_charges"  # for something that is no call of a model


class Cause(NamedTuple):
    """Why, for programs and in a sentence."""

    kind: CauseKind
    text: str


@dataclass(frozen=True, slots=True)
class HourCount:
    """Both counts of one hour, in tokens. `is_known`: the engine was read through all of it."""

    hour: datetime
    metered_prompt_tokens: int
    metered_generation_tokens: int
    produced_prompt_tokens: int
    produced_generation_tokens: int
    is_known: bool

    @property
    def drift_tokens(self) -> tuple[int, int]:
        """Produced less metered, of prompts and of answers; positive: past the sidecars."""
        return (
            self.produced_prompt_tokens - self.metered_prompt_tokens,
            self.produced_generation_tokens - self.metered_generation_tokens,
        )


@dataclass(frozen=True, slots=True)
class Threshold:
    """Drift is more than `floor_tokens` and more than `per_mille` of the larger count."""

    per_mille: int = 5
    floor_tokens: int = 50

    def __post_init__(self) -> None:
        """Raises ValueError: negative, or more than the whole."""
        if not (0 <= self.per_mille <= 1000 and self.floor_tokens >= 0):
            raise ValueError("per_mille is 0 to 1000, floor_tokens not negative")


def judge(hours: Sequence[HourCount], threshold: Threshold) -> list[Verdict]:
    """A verdict for each hour of one node; the hours rise, and may have holes."""
    found = [_alone(hour, threshold) for hour in hours]
    for index in range(len(hours) - 1):
        earlier, later = hours[index], hours[index + 1]
        pair = slice(index, index + 2)
        both_drift = found[pair] == [Verdict.DRIFTS, Verdict.DRIFTS]
        if (
            both_drift
            and later.hour - earlier.hour == HOUR
            and _is_small([earlier, later], threshold)
        ):
            found[pair] = [Verdict.SHIFTED, Verdict.SHIFTED]
    return found


def _alone(hour: HourCount, threshold: Threshold) -> Verdict:
    if not hour.is_known:
        return Verdict.UNKNOWN
    return Verdict.AGREES if _is_small([hour], threshold) else Verdict.DRIFTS


def _is_small(hours: Sequence[HourCount], threshold: Threshold) -> bool:
    metered = (
        sum(hour.metered_prompt_tokens for hour in hours),
        sum(hour.metered_generation_tokens for hour in hours),
    )
    produced = (
        sum(hour.produced_prompt_tokens for hour in hours),
        sum(hour.produced_generation_tokens for hour in hours),
    )
    return all(
        abs(made - told)
        <= max(threshold.floor_tokens, max(made, told) * threshold.per_mille // 1000)
        for told, made in zip(metered, produced, strict=True)
    )
