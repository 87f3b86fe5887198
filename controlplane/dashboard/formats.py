"""How amounts, counts and times read on every page: one formatter for each, so pages agree."""

from datetime import datetime, timedelta

from enforcement.rules.money import NANOS_PER_USD
from enforcement.rules.policy import Unit

CENT_NANOS = NANOS_PER_USD // 100
SMALL_DIGITS = 3  # significant digits of amounts below a cent
MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400


def exact_usd(nanos: int) -> str:
    """Dollars with every digit: `$0.000001234`. At least two decimals."""
    sign, nanos = ("−", -nanos) if nanos < 0 else ("", nanos)
    dollars, rest = divmod(nanos, NANOS_PER_USD)
    decimals = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}${dollars:,}.{decimals}"


def usd(nanos: int) -> str:
    """Dollars as a person reads them: cents, or four decimals below a dollar, or the first
    significant digits below a cent. Digits are cut, never rounded up: what is shown was spent.
    """
    sign, size = ("−", -nanos) if nanos < 0 else ("", nanos)
    if size == 0 or size >= NANOS_PER_USD:
        return f"{sign}${size // NANOS_PER_USD:,}.{size % NANOS_PER_USD // CENT_NANOS:02d}"
    digits = f"{size:09d}"
    leading = len(digits) - len(digits.lstrip("0"))
    shown = digits[: max(4, leading + SMALL_DIGITS)].rstrip("0").ljust(2, "0")
    return f"{sign}$0.{shown}"


UNIT_WORDS: dict[str, str] = {Unit.GPU_MS: "GPU ms", Unit.CONCURRENCY: "at once"}


def count(value: int) -> str:
    """A whole number with thousands separators."""
    return f"{value:,}".replace("-", "−")


def compact(value: int) -> str:
    """A whole number in at most four digits and a letter, cut: `12.3k`, `4.1M`."""
    for size, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if abs(value) >= size:
            whole, tenth = divmod(abs(value) * 10 // size, 10)
            sign = "−" if value < 0 else ""
            return f"{sign}{whole}{letter}" if whole >= 100 else f"{sign}{whole}.{tenth}{letter}"
    return str(value)


def amount(value: int, unit: str) -> str:
    """An amount in the unit of its budget, with the unit's word."""
    if unit == Unit.USD:
        return usd(value)
    if unit in UNIT_WORDS:
        return f"{count(value)} {UNIT_WORDS[unit]}"
    words = unit.replace("_", " ")
    return f"{count(value)} {words if value != 1 else words.removesuffix('s')}"


def exact_amount(value: int, unit: str) -> str:
    return exact_usd(value) if unit == Unit.USD else amount(value, unit)


def permille(part: int, whole: int) -> int:
    """How many thousandths of the whole a part is, cut to 0…1000. A whole of nothing is full."""
    if whole <= 0:
        return 1000 if part > 0 else 0
    return max(0, min(1000, part * 1000 // whole))


def percent(part: int, whole: int) -> str:
    """`38 %`; a part that is there never reads as 0 %, one that is not all never as 100 %."""
    if whole <= 0:
        return "—"
    if part <= 0:
        return "0 %"
    if part * 100 < whole:
        return "< 1 %"
    return f"{part * 100 // whole} %"


def span(length: timedelta) -> str:
    """A length of time in its largest unit: `12 s`, `5 min`, `3 h`, `4 d`."""
    seconds = max(0, int(length.total_seconds()))
    if seconds < MINUTE_S:
        return f"{seconds} s"
    if seconds < HOUR_S:
        return f"{seconds // MINUTE_S} min"
    if seconds < 2 * DAY_S:
        return f"{seconds // HOUR_S} h"
    return f"{seconds // DAY_S} d"


def since(then: datetime, *, now: datetime) -> str:
    """`just now`, `5 min ago`, `in 3 h`."""
    if then > now:
        return f"in {span(then - now)}"
    if now - then < timedelta(seconds=5):
        return "just now"
    return f"{span(now - then)} ago"


def milliseconds(value: int | None) -> str:
    """A duration of a call: `85 ms`, `2.4 s`, `3 min`."""
    if value is None:
        return "—"
    if value < 1000:
        return f"{value} ms"
    if value < MINUTE_S * 1000:
        return f"{value // 1000}.{value % 1000 // 100} s"
    return span(timedelta(milliseconds=value))
