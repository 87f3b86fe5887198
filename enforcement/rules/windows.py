"""Budget windows: half-open `[start, end)` instants in UTC, computed from a time zone.

1. `lifetime` is one window that starts at the epoch and never ends; `until` ends at an instant,
   and nothing follows it.
2. A calendar window is cut at local midnights (hours and minutes: at UTC instants, which agree
   with local ones in every zone whose offset is a whole number of them; others are cut in UTC).
3. A local midnight that does not exist (DST) is the first instant after the gap; one that
   exists twice is the earlier. So a day may have 23 or 25 hours, but windows always abut.
4. A fiscal quarter or year begins on `anchor_day` of `anchor_month`, and of every third month.
5. A rolling window has no edges: its balance is one for ever, its sub-buckets are in `rolling`.
"""

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from enforcement.rules.policy import WindowSpec
from enforcement.rules.rolling import shape_problem

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_ANCHOR_DAY = 28
_MONTHS = {"month": 1, "quarter": 3, "year": 12}

Window = tuple[datetime, datetime | None]


class WindowError(ValueError):
    """A window specification that means nothing. `field` names the part that is wrong."""

    def __init__(self, message: str, field: str = "window_kind") -> None:
        super().__init__(message)
        self.field = field


def check_spec(spec: WindowSpec) -> None:
    """Raise WindowError, in words, unless `spec` can be computed."""
    if spec.kind != "calendar" and spec.period is not None:
        raise WindowError(f"a {spec.kind} window has no period", "period")
    if spec.kind == "until" and spec.ends_at_s is None:
        raise WindowError("a window until a date needs its end", "ends_at")
    if spec.kind == "rolling":
        problem = shape_problem(spec.length_s or 0, spec.parts)
        if problem:
            raise WindowError(problem[1], problem[0])
    if spec.kind == "calendar":
        _check_calendar(spec)


def _check_calendar(spec: WindowSpec) -> None:
    if spec.period is None:
        raise WindowError("a calendar window needs a period", "period")
    if not 1 <= spec.anchor_day <= MAX_ANCHOR_DAY:
        raise WindowError(
            f"anchor_day must be 1 to {MAX_ANCHOR_DAY}, not {spec.anchor_day}", "anchor_day"
        )
    if not 1 <= spec.anchor_month <= 12:
        raise WindowError(f"anchor_month must be 1 to 12, not {spec.anchor_month}", "anchor_month")
    _zone(spec.time_zone)


def has_ended(spec: WindowSpec, now: datetime) -> bool:
    """Whether nothing of `spec` is left at `now`: only a window until a date ends for good."""
    return spec.kind == "until" and now.timestamp() >= (spec.ends_at_s or 0)


def window_after(spec: WindowSpec, window: Window) -> Window | None:
    """The window that follows; None where none does."""
    if window[1] is None or spec.kind == "until":
        return None
    return window_at(spec, window[1])


def window_at(spec: WindowSpec, now: datetime) -> Window:
    """The window of `spec` that contains the aware instant `now`.

    One until a date is the same before and after its end: ask `has_ended`.

    Raises:
        WindowError: the specification cannot be computed.
    """
    check_spec(spec)
    if spec.kind in ("lifetime", "rolling"):
        return EPOCH, None
    if spec.kind == "until":
        return EPOCH, EPOCH + timedelta(seconds=spec.ends_at_s or 0)
    if spec.period in ("minute", "hour"):
        step = timedelta(minutes=1) if spec.period == "minute" else timedelta(hours=1)
        start = EPOCH + (now - EPOCH) // step * step
        return start, start + step
    zone = _zone(spec.time_zone)
    first = _first_day(spec, now.astimezone(zone).date())
    start = _midnight(first, zone)
    if start > now:  # a gap pushed this midnight behind `now`: still the window before
        first = _first_day(spec, first - timedelta(days=1))
        start = _midnight(first, zone)
    return start, _midnight(_next_first_day(spec, first), zone)


def _first_day(spec: WindowSpec, day: date) -> date:
    if spec.period == "day":
        return day
    if spec.period == "week":
        return day - timedelta(days=day.weekday())
    months = day.year * 12 + day.month - 1 - (day.day < spec.anchor_day)
    step = _MONTHS[spec.period or "month"]
    shift = (spec.anchor_month - 1) % step
    return _day_of_month((months - shift) // step * step + shift, spec.anchor_day)


def _next_first_day(spec: WindowSpec, first: date) -> date:
    if spec.period in ("day", "week"):
        return first + timedelta(days=1 if spec.period == "day" else 7)
    months = first.year * 12 + first.month - 1 + _MONTHS[spec.period or "month"]
    return _day_of_month(months, first.day)


def _day_of_month(months: int, day: int) -> date:
    """A day of the month that is so many months after January of year 0."""
    return date(months // 12, months % 12 + 1, day)


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """The first instant of a local day, in UTC."""
    instant = datetime.combine(day, time.min, zone).astimezone(UTC)
    if instant.astimezone(zone).date() < day:  # inside a gap: the day begins where the gap ends
        before = datetime.combine(day, time.min, zone).replace(fold=0).utcoffset()
        after = datetime.combine(day, time(12), zone).utcoffset()
        instant += abs((after or timedelta()) - (before or timedelta()))
    return instant


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise WindowError(f"unknown time zone: {name!r}", "time_zone") from error
