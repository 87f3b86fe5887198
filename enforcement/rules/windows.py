"""Budget windows: half-open `[start, end)` instants in UTC, computed from a time zone.

1. `lifetime` is one window that starts at the epoch and never ends.
2. A calendar window is cut at local midnights (hours and minutes: at UTC instants, which agree
   with local ones in every zone whose offset is a whole number of them; others are cut in UTC).
3. A local midnight that does not exist (DST) is the first instant after the gap; one that
   exists twice is the earlier. So a day may have 23 or 25 hours, but windows always abut.
"""

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from enforcement.rules.policy import WindowSpec

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_ANCHOR_DAY = 28

Window = tuple[datetime, datetime | None]


class WindowError(ValueError):
    """A window specification that means nothing: unknown zone, period or anchor."""


def check_spec(spec: WindowSpec) -> None:
    """Raise WindowError, in words, unless `spec` can be computed."""
    if spec.kind == "lifetime":
        if spec.period is not None:
            raise WindowError("a lifetime window has no period")
        return
    if spec.period is None:
        raise WindowError("a calendar window needs a period")
    if not 1 <= spec.anchor_day <= MAX_ANCHOR_DAY:
        raise WindowError(f"anchor_day must be 1 to {MAX_ANCHOR_DAY}, not {spec.anchor_day}")
    _zone(spec.time_zone)


def window_at(spec: WindowSpec, now: datetime) -> Window:
    """The window of `spec` that contains the aware instant `now`.

    Raises:
        WindowError: the specification cannot be computed.
    """
    check_spec(spec)
    if spec.kind == "lifetime":
        return EPOCH, None
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
    if day.day < spec.anchor_day:
        day = day.replace(day=1) - timedelta(days=1)
    month = day.month
    if spec.period == "quarter":
        month = (month - 1) // 3 * 3 + 1
    if spec.period == "year":
        month = 1
    return day.replace(month=month, day=spec.anchor_day)


def _next_first_day(spec: WindowSpec, first: date) -> date:
    if spec.period in ("day", "week"):
        return first + timedelta(days=1 if spec.period == "day" else 7)
    months = (
        first.year * 12 + first.month - 1 + {"month": 1, "quarter": 3}.get(spec.period or "", 12)
    )
    return date(months // 12, months % 12 + 1, first.day)


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
        raise WindowError(f"unknown time zone: {name!r}") from error
