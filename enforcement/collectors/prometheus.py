"""The text format of metrics, as far as counters and gauges need it.

One scrape of vLLM is 60 KB of histograms. So lines are sorted out by name before anything else is
looked at, and only what an allow-list names is parsed. A value stays the text that the engine
wrote until someone asks for it: engines that print six digits are found out that way.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

MOST_LINES = 200_000
LARGEST_TOTAL = 2**62
MOST_NOTES = 3

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(,|\})')
_ESCAPE = re.compile(r"\\(.)")
_UNESCAPED = {"n": "\n"}


class PageError(ValueError):
    """Not a page of metrics."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line: a name without `_total` and with `:` after the engine, its labels, its value."""

    name: str
    labels: Mapping[str, str]
    text: str

    @property
    def value(self) -> Decimal:
        """Raises PageError: not a finite number."""
        try:
            number = Decimal(self.text)
        except InvalidOperation:
            raise PageError(self.told) from None
        if not number.is_finite():
            raise PageError(self.told)
        return number

    @property
    def is_finite(self) -> bool:
        try:
            return self.value.is_finite()
        except PageError:
            return False

    @property
    def is_count(self) -> bool:
        return self.is_finite and 0 <= self.value <= LARGEST_TOTAL

    @property
    def told(self) -> str:
        """What it says, for people."""
        return f"{self.name} is {self.text[:40]!r}"


@dataclass(frozen=True, slots=True)
class Page:
    """The kept series of a page, the first words of every name on it, and what came with it."""

    series: Mapping[str, tuple[Series, ...]]
    prefixes: frozenset[str]
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """What `optional` leaves out of this page, in words."""
        bad = (s for found in self.series.values() for s in found if not s.is_count)
        return tuple(dict.fromkeys(f"{series.told}: left out" for series in bad))[:MOST_NOTES]

    def has(self, name: str) -> bool:
        return name in self.series

    def total(self, name: str) -> int | None:
        """The sum over all labels of a counter; None when the page has none of this name.

        Raises PageError: a value is no count.
        """
        if name not in self.series:
            return None
        return sum(_count(series) for series in self.series[name])

    def optional(self, name: str) -> int | None:
        """The same sum over what counts something; None when nothing of this name does."""
        good = [int(series.value) for series in self.series.get(name, ()) if series.is_count]
        return sum(good) if good else None

    def first(self, name: str) -> Series | None:
        return self.series[name][0] if name in self.series else None

    def resolution(self, *names: str) -> int:
        """The coarsest step in which the values of these names were printed."""
        found = (series for name in names for series in self.series.get(name, ()))
        return max((_step(series.value) for series in found if series.is_count), default=1)


def parse_page(
    text: str, *, names: Collection[str], headers: Mapping[str, str] | None = None
) -> Page:
    """Keep the series whose normalised names are asked for. Names of headers are in lower case.

    A page that spells one counter in two ways tells it once.

    Raises PageError: not metrics, too long, or a kept line is broken.
    """
    if text.lstrip()[:1] in ("<", "{", "["):
        raise PageError("answered a document, not metrics")
    if not text.endswith("\n"):
        raise PageError("the page is cut short")  # its last number may be, too
    kept: dict[str, dict[frozenset[tuple[str, str]], Series]] = {}
    prefixes: set[str] = set()
    for line in _lines(text):
        match = _NAME.match(line)
        if match is None:
            raise PageError(f"not metrics: {line[:40]!r}")
        name = normalised(match.group())
        prefixes.add(name.partition(":")[0] if ":" in name else "")
        if name in names:
            series = _series(name, line[match.end() :])
            known = kept.setdefault(name, {}).setdefault(frozenset(series.labels.items()), series)
            if known.text != series.text:
                raise PageError(f"{name} stands twice")
    return Page(
        {name: tuple(found.values()) for name, found in kept.items()},
        frozenset(prefixes),
        headers or {},
    )


def normalised(name: str) -> str:
    """`vllm_generation_tokens_total` and `vllm:generation_tokens` are one name."""
    name = name.removesuffix("_total")
    for engine in ("vllm", "llamacpp", "sglang"):
        if name.startswith(f"{engine}_"):
            return f"{engine}:{name[len(engine) + 1 :]}"
    return name


def _lines(text: str) -> Iterator[str]:
    for number, line in enumerate(text.split("\n")):  # others may stand inside a label
        if number > MOST_LINES:
            raise PageError(f"more than {MOST_LINES} lines")
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            yield stripped


def _series(name: str, rest: str) -> Series:
    """What follows a name: labels, a value, and perhaps a time that nobody needs."""
    labels: dict[str, str] = {}
    if rest.startswith("{"):
        rest = _labels(rest[1:], labels, name)
    words = rest.split()
    if not 1 <= len(words) <= 2:
        raise PageError(f"{name} has no value")
    return Series(name, labels, words[0])


def _labels(rest: str, labels: dict[str, str], name: str) -> str:
    if rest.lstrip().startswith("}"):
        return rest.lstrip()[1:]
    while True:
        match = _LABEL.match(rest)
        if match is None:
            raise PageError(f"{name} has broken labels")
        labels[match[1]] = _ESCAPE.sub(lambda m: _UNESCAPED.get(m[1], m[1]), match[2])
        rest = rest[match.end() :]
        if match[3] == "}":
            return rest
        if rest.lstrip().startswith("}"):  # a comma after the last label is allowed
            return rest.lstrip()[1:]


def _count(series: Series) -> int:
    if not series.is_count:
        raise PageError(series.told)
    return int(series.value)


def _step(value: Decimal) -> int:
    """`1.23457e+06` stands for a million and something: its step is 10."""
    exponent = value.as_tuple().exponent
    return 10**exponent if isinstance(exponent, int) and 0 < exponent < 20 else 1
