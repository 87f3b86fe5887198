"""When a threshold of a budget fires, and when it may fire again.

A threshold is a share of the limit, of what is used or of what will be used when the window ends.
It fires once for each balance, so a new window starts anew. It is armed again when the balance is
below it and, for a forecast, the limit was raised: a forecast that swings must not fire twice.
"""

from enum import StrEnum

from msgspec import Struct

MAX_PERCENT = 1_000
LEAST_SEEN = 20  # a forecast takes at least this part of the window (1/20) for seen


class Basis(StrEnum):
    """What is compared with the limit."""

    ACTUAL = "actual"
    FORECAST = "forecast"


class Step(StrEnum):
    """What a comparison leads to."""

    NOTHING = "nothing"
    FIRE = "fire"
    REARM = "rearm"


class Reading(Struct, frozen=True):
    """A balance at one moment. `start_ms`: when its counting began; `end_ms` None: never ends."""

    used: int
    limit: int
    start_ms: int
    now_ms: int
    end_ms: int | None = None


def forecast(reading: Reading) -> int | None:
    """Use at the window's end at the pace so far, rounded up; None without an end."""
    if reading.end_ms is None or reading.end_ms <= reading.start_ms:
        return None
    window = reading.end_ms - reading.start_ms
    seen = min(max(reading.now_ms - reading.start_ms, -(-window // LEAST_SEEN)), window)
    rest = min(max(reading.end_ms - reading.now_ms, 0), window - seen)
    return reading.used + -(-reading.used * rest // seen)


def has_reached(amount: int, *, percent: int, limit: int) -> bool:
    """Whether an amount is at least so many percent of a limit, exactly."""
    return amount * 100 >= limit * percent


def judge(reading: Reading, *, basis: Basis, percent: int, fired_limit: int | None) -> Step:
    """What to do now. `fired_limit`: the limit when the threshold fired; None while it is armed."""
    amount = reading.used if basis is Basis.ACTUAL else forecast(reading)
    if amount is None:
        return Step.NOTHING
    reached = has_reached(amount, percent=percent, limit=reading.limit)
    if fired_limit is None:
        return Step.FIRE if reached else Step.NOTHING
    settled = basis is Basis.ACTUAL or reading.limit > fired_limit
    return Step.REARM if settled and not reached else Step.NOTHING
