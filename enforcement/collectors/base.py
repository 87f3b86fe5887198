"""What every collector gives: one reading of an engine's own counters."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol

from enforcement.collectors.prometheus import Page
from enforcement.rules.readings import Outcome

LARGEST = 2**62


class CollectorError(Exception):
    """A node did not tell its counters. The text is short, for people, and shown with the node."""

    def __init__(self, text: str, why: Outcome = Outcome.UNREADABLE) -> None:
        super().__init__(text)
        self.why = why


@dataclass(frozen=True)
class Device:
    """An accelerator at one moment; None is what it did not tell. The energy is a total."""

    device: str
    model: str = ""
    busy_permille: int | None = None
    power_milliwatts: int | None = None
    energy_millijoules: int | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Reading:
    """Totals since the engine's start, aborted requests included.

    `prompt_tokens` is the whole prompt, cached tokens too, as in a usage event; engines differ in
    this. `life` names the life of the process, in whatever words the engine has for it, and
    `started_at` is when it began, in seconds since 1970; either may be unknown. `resolution` is the
    step in which the engine prints its totals: more than 1 where it rounds them. `cached_tokens` is
    None where the engine counts them but told no number this time; `notes` says what was left out.
    """

    prompt_tokens: int
    cached_tokens: int | None
    generation_tokens: int
    requests_running: int = 0
    requests_waiting: int = 0
    life: str = ""
    started_at: Decimal | None = None
    resolution: int = 1
    extra: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()


class Source(Protocol):
    """How one engine is read: a module each, registered in `enforcement.collectors.registry`."""

    @property
    def engine(self) -> str:
        """Its name, as sidecars spell it."""

    @property
    def metrics_path(self) -> str:
        """Where its counters or its state are, unless a node says otherwise."""

    @property
    def version_path(self) -> str:
        """Where it tells its version; empty: nowhere."""

    def version(self, body: bytes) -> str:
        """The version in what `version_path` answered; empty when it is not there."""


class Collector(Source, Protocol):
    """Of an engine that has a page of metrics."""

    @property
    def names(self) -> frozenset[str]:
        """The metrics that are kept of a page, normalised; all others are skipped unread."""

    def recognises(self, page: Page) -> bool:
        """Whether this page is of this engine."""

    def read(self, page: Page) -> Reading:
        """Raises CollectorError: a total is missing."""


class StateCollector(Source, Protocol):
    """Of an engine without counters, which tells its state as a JSON object: that it is alive, and
    what it keeps loaded. What it makes is in its answers alone.
    """

    def recognises(self, state: Mapping[str, Any], headers: Mapping[str, str]) -> bool:
        """Whether this is what this engine says of itself."""

    def read(self, state: Mapping[str, Any]) -> Reading:
        """The state. All totals are 0."""


def tokens_of(page: Page, whose: str, prompt: str, produced: str) -> tuple[int, int]:
    """The two totals that no reading can be without.

    Raises CollectorError: one is missing; a version that renamed it is found by its absence.
    """
    totals = [(name, page.total(name)) for name in (prompt, produced)]
    missing = [name for name, total in totals if total is None]
    if missing:
        raise CollectorError(f"{whose} page has no token counters: no {', no '.join(missing)}")
    (_, first), (_, second) = totals
    return first or 0, second or 0


def cached_of(page: Page, name: str, prompt_tokens: int) -> int | None:
    """Cached tokens, at most the prompt's; 0 where the engine has no such counter."""
    cached = page.optional(name)
    if cached is None:
        return None if page.has(name) else 0
    return min(prompt_tokens, cached)


def extras(page: Page, words: Mapping[str, str]) -> dict[str, int]:
    """Further counters by our words for them, as far as the page tells them."""
    found = {word: page.optional(name) for name, word in words.items()}
    return {word: total for word, total in found.items() if total is not None}


def stages(page: Page, prefill: str, decode: str) -> dict[str, int]:
    """Time that requests spent in their prompts and in their answers, in milliseconds, summed over
    requests: of several at once it is longer than the time that passed.
    """
    found = {}
    for word, name in (("prefill_ms", prefill), ("decode_ms", decode)):
        good = [one.value for one in page.series.get(name, ()) if one.is_finite and one.value >= 0]
        if good:
            found[word] = min(LARGEST, int(sum(good) * 1_000))
    return found


def life_of(page: Page, name: str) -> tuple[str, Decimal | None]:
    """The process's start as it is printed and in seconds; empty and None where it is not told."""
    series = page.first(name)
    if series is None or not series.is_finite:
        return "", None
    return series.text, series.value


def text_at(body: bytes, name: str) -> str:
    """A text of a JSON object; empty where there is none, or no object."""
    try:
        said = json.loads(body).get(name, "")
    except (ValueError, AttributeError):
        return ""
    return said if isinstance(said, str) else ""
