"""Lines of a bill, whoever wrote them, and the checked values that they are made of. Pure."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, InvalidOperation
from typing import Any, NamedTuple

from enforcement.errors import BillError
from enforcement.rules.money import MAX_NANOS, NANOS_PER_USD
from enforcement.rules.windows import EPOCH

HOUR = timedelta(hours=1)
LONGEST = timedelta(days=366)
MOST_TOKENS = 10**15  # of one line
_LATEST_S = 253_402_300_799  # year 9999
_EXACT = Context(prec=60)


class Period(NamedTuple):
    """Whole hours of UTC that a line is about."""

    starts_at: datetime
    ends_at: datetime


class Line(NamedTuple):
    """Tokens (a line of usage) or money (of cost) of one model in a time.

    `prompt_tokens` is the total, cached ones included. `item` tells lines of one model apart.
    """

    provider: str
    period: Period
    model: str
    item: str = ""
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    generation_tokens: int | None = None
    calls: int | None = None
    cost_nanos: int | None = None

    @property
    def kind(self) -> str:
        return "usage" if self.cost_nanos is None else "cost"

    @property
    def key(self) -> tuple[str, Period, str, str, str]:
        return (self.provider, self.period, self.kind, self.model, self.item)


def summed(lines: Iterable[Line]) -> list[Line]:
    """One line for each key: a bill that is grouped finer (by project, key, tier) says several."""
    found: dict[tuple[object, ...], Line] = {}
    for line in lines:
        before = found.get(line.key)
        found[line.key] = line if before is None else _plus(before, line)
    return list(found.values())


def _plus(one: Line, other: Line) -> Line:
    return one._replace(
        prompt_tokens=_sum(one.prompt_tokens, other.prompt_tokens),
        cached_tokens=_sum(one.cached_tokens, other.cached_tokens),
        generation_tokens=_sum(one.generation_tokens, other.generation_tokens),
        calls=_sum(one.calls, other.calls),
        cost_nanos=_sum(one.cost_nanos, other.cost_nanos),
    )


def _sum(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else one + other


# ------------------------------------------------------------------------------- checked values


def tokens(row: Mapping[str, Any], *names: str) -> int:
    """The sum of these counts; what is not there, or null, counts nothing.

    Raises BillError: a count that is no whole number, negative, or beyond belief.
    """
    return sum(_count(name, row.get(name)) for name in names)


def _count(name: str, value: object) -> int:
    if value is None or value == "":
        return 0
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_TOKENS:
        raise BillError(f"{name} is no count of tokens: {str(value)[:40]!r}")
    return value


def nanos(name: str, value: object, *, per_usd: int = 1) -> int:
    """Nano-dollars of a decimal in dollars, or in parts of which `per_usd` make one, rounded half
    to even: bills have more digits than that. Credits are negative.

    Raises BillError: no plain number, or beyond belief.
    """
    try:
        amount = Decimal(str(value)) if isinstance(value, (str, int, Decimal)) else None
    except InvalidOperation:
        amount = None
    if amount is None or not amount.is_finite() or abs(amount.adjusted()) > 30:
        raise BillError(f"{name} is no amount: {str(value)[:40]!r}")
    exact = _EXACT.divide(_EXACT.multiply(amount, NANOS_PER_USD), per_usd)
    whole = int(exact.to_integral_value(context=_EXACT))
    if abs(whole) > MAX_NANOS:
        raise BillError(f"{name} is out of range: {str(value)[:40]!r}")
    return whole


def in_usd(currency: object) -> None:
    """Raises BillError: another currency. Budgets are in dollars; rates change daily."""
    if str(currency).lower() != "usd":
        raise BillError(f"only bills in USD can be read, not in {str(currency)[:10]!r}")


def text(value: object) -> str:
    """At most what a column holds; null is empty.

    Raises BillError: a null character, or half of one: JSON can say it, no database keeps it.
    """
    said = "" if value is None else str(value)[:200]
    if "\0" in said or (not said.isascii() and any("\ud800" <= char <= "\udfff" for char in said)):
        raise BillError(f"no text that can be kept: {said[:40]!r}")
    return said


def period(starts_at: object, ends_at: object) -> Period:
    """Raises BillError: not whole hours, empty, or longer than a year."""
    start, end = _instant(starts_at), _instant(ends_at)
    if any((at - EPOCH) % HOUR for at in (start, end)):
        raise BillError(f"a time of {start} to {end}: bills by the hour or longer can be compared")
    if not start < end <= start + LONGEST:
        raise BillError(f"a time of {start} to {end} makes no sense")
    return Period(start, end)


def _instant(value: object) -> datetime:
    """Unix seconds, or ISO 8601; a date alone is its midnight in UTC."""
    try:
        if isinstance(value, str) and not value.isdigit():
            at = datetime.fromisoformat(value)
            return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        seconds = int(value) if isinstance(value, (int, str)) else -1
    except (ValueError, OverflowError):
        seconds = -1
    if not 0 <= seconds <= _LATEST_S:
        raise BillError(f"no instant: {str(value)[:40]!r}")
    return EPOCH + timedelta(seconds=seconds)
