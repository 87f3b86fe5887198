"""When a threshold of a budget fires, and when it may fire again.

A threshold is a share of the limit, of what is used or of what will be used when the window ends.
It fires once for each balance, so a new window starts anew. It is armed again when the balance is
below it and, for a forecast, the limit was raised: a forecast that swings must not fire twice.

Its actions are taken in order. Some are done once (notify, approval, kill); the others are
measures, which hold on that balance until the threshold is armed again, its window ends, or a
person lifts them.
"""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct, field

MAX_PERCENT = 1_000
MAX_THRESHOLDS = 20
MAX_RATE = 1_000_000
MAX_MODEL_CHARS = 200
LEAST_SEEN = 20  # a forecast takes at least this part of the window (1/20) for seen


class Basis(StrEnum):
    """What is compared with the limit."""

    ACTUAL = "actual"
    FORECAST = "forecast"


class ActionKind(StrEnum):
    NOTIFY = "notify"
    THROTTLE = "throttle"  # to so many requests a minute, of each book
    REROUTE = "reroute"  # to another model
    APPROVAL = "approval"  # ask people for more
    PAUSE = "pause"  # new calls are refused until people decide (403)
    REFUSE = "refuse"  # new calls are refused (402)
    CUT = "cut"  # running ones end too
    KILL = "kill"  # the agents whose budget it is


MEASURES = frozenset(
    {
        ActionKind.THROTTLE,
        ActionKind.REROUTE,
        ActionKind.PAUSE,
        ActionKind.REFUSE,
        ActionKind.CUT,
    }
)


class Action(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """`amount` is what an approval asks for, in the budget's unit; 0 leaves that to people."""

    kind: ActionKind
    requests_per_minute: int = 0
    model: str = ""
    amount: int = 0


class Threshold(Struct, frozen=True, forbid_unknown_fields=True):
    percent: int
    basis: Basis = Basis.ACTUAL
    actions: list[Action] = field(default_factory=list)

    @property
    def place(self) -> tuple[str, int]:
        return self.basis.value, self.percent


class ThresholdError(ValueError):
    """Thresholds that cannot be meant, in words."""


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


# ---------------------------------------------------------------------------- as people write them


_LINE = re.compile(r"(?P<percent>\d{1,4})\s*%?\s*(?P<basis>forecast)?\s*:\s*(?P<actions>.+)")
_RATE = re.compile(r"(\d{1,7})\s*/\s*min(ute)?")


def read_thresholds(data: Any) -> list[Threshold]:
    """Thresholds from plain data, checked and in order.

    Raises:
        ThresholdError: they cannot be meant.
    """
    try:
        found = msgspec.convert(data, list[Threshold])
    except msgspec.ValidationError as error:
        raise ThresholdError(str(error)) from error
    check_thresholds(found)
    return sorted(found, key=lambda threshold: (threshold.percent, threshold.basis))


def parse_lines(text: str) -> list[dict[str, Any]]:
    """Plain data of thresholds, a line for each: `90% forecast: notify, throttle 10/min`.

    Raises:
        ThresholdError: a line cannot be read.
    """
    found = []
    for line in filter(None, (line.strip() for line in text.splitlines())):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ThresholdError(f"{line!r}: write a line like `80%: notify, throttle 10/min`")
        actions = [_parse_action(words.strip()) for words in match["actions"].split(",")]
        basis = Basis.FORECAST if match["basis"] else Basis.ACTUAL
        found.append({"percent": int(match["percent"]), "basis": basis.value, "actions": actions})
    return found


def line_of(threshold: Threshold) -> str:
    """A threshold as `parse_lines` reads it."""
    forecast_word = " forecast" if threshold.basis is Basis.FORECAST else ""
    return f"{threshold.percent}%{forecast_word}: {', '.join(map(_words, threshold.actions))}"


def _parse_action(words: str) -> dict[str, Any]:
    name, _, rest = words.partition(" ")
    rest = rest.strip()
    if name == ActionKind.THROTTLE:
        rate = _RATE.fullmatch(rest)
        if rate is None:
            raise ThresholdError(f"{words!r}: say how much, like `throttle 10/min`")
        return {"kind": name, "requests_per_minute": int(rate[1])}
    if name == ActionKind.REROUTE:
        return {"kind": name, "model": rest}
    if rest or name not in set(ActionKind):
        known = ", ".join(ActionKind)
        raise ThresholdError(f"no action {words!r}: {known}")
    return {"kind": name}


def _words(action: Action) -> str:
    if action.kind is ActionKind.THROTTLE:
        return f"throttle {action.requests_per_minute}/min"
    return f"reroute {action.model}" if action.kind is ActionKind.REROUTE else action.kind.value


def check_thresholds(thresholds: Sequence[Threshold]) -> None:
    """Raise ThresholdError, in words, unless all of them can be meant."""
    if len(thresholds) > MAX_THRESHOLDS:
        raise ThresholdError(f"a budget has at most {MAX_THRESHOLDS} thresholds")
    if len({threshold.place for threshold in thresholds}) != len(thresholds):
        raise ThresholdError("two thresholds stand at the same place; give one both actions")
    for threshold in thresholds:
        where = f"{threshold.percent} %"
        if not 1 <= threshold.percent <= MAX_PERCENT:
            raise ThresholdError(f"a threshold is at 1 to {MAX_PERCENT} %, not {where}")
        kinds = [action.kind for action in threshold.actions]
        if not kinds or len(set(kinds)) != len(kinds):
            raise ThresholdError(f"{where}: give every threshold actions, each once")
        for action in threshold.actions:
            _check_action(action, where)


def _check_action(action: Action, where: str) -> None:
    throttles, reroutes = action.kind is ActionKind.THROTTLE, action.kind is ActionKind.REROUTE
    if throttles and not 1 <= action.requests_per_minute <= MAX_RATE:
        raise ThresholdError(f"{where}: throttle to 1 to {MAX_RATE} requests a minute")
    named = 0 < len(action.model) <= MAX_MODEL_CHARS and action.model.isprintable()
    if reroutes and not named:
        raise ThresholdError(f"{where}: reroute needs a model")
    stray = (action.requests_per_minute and not throttles) or (action.model and not reroutes)
    if stray or action.amount < 0 or (action.amount and action.kind is not ActionKind.APPROVAL):
        raise ThresholdError(f"{where}: {action.kind} takes no such value")
