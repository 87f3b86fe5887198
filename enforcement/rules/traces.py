"""Recorded calls from CSV text, and proposed budgets from plain data.

A column is known by any of its names, whatever their case; the first row is the heading. Times
without an offset are UTC; fractions of a second beyond microseconds are cut.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct, field

from enforcement.rules.backtest import BacktestError, Call
from enforcement.rules.matching import FILTERABLE, TAG
from enforcement.rules.money import MAX_NANOS, TokenUsage, parse_usd
from enforcement.rules.policy import (
    BudgetPolicy,
    Mode,
    Per,
    PricePolicy,
    Rates,
    ScopeKind,
    Unit,
    WindowSpec,
)
from enforcement.rules.rolling import usual_parts
from enforcement.rules.windows import WindowError, check_spec

ORGANIZATION = "organization"
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "at": ("at", "timestamp", "started_at", "time"),
    "agent": ("agent",),
    "team": ("team",),
    "project": ("project",),
    "session": ("session",),
    "model": ("model",),
    "provider": ("provider",),
    "input": ("input_tokens", "contexttokens", "prompt_tokens"),
    "output": ("output_tokens", "generatedtokens", "completion_tokens"),
    "cached": ("cached_input_tokens",),
    "cache_write": ("cache_write_tokens",),
    "reasoning": ("reasoning_tokens",),
    "charge": ("charge_usd",),
    "user": ("user",),
    "node": ("node",),
    "skill": ("skill",),
    "tags": ("tags",),
    "gpu_ms": ("gpu_ms",),
    "tool_calls": ("tool_calls",),
}
_PLAIN_WINDOWS = ("lifetime", "until", "rolling")
REQUIRED = ("at", "input", "output")


class ProposedBudget(Struct, forbid_unknown_fields=True):
    """A budget as people write it. `scope` is `organization`, or `team:`, `project:`, `agent:`."""

    name: str
    unit: Unit
    limit: str | int
    scope: str = ORGANIZATION
    mode: Mode = Mode.HARD
    per: str = Per.NONE.value
    filters: dict[str, list[str]] = field(default_factory=dict)
    window: str = "lifetime"
    time_zone: str = "UTC"
    anchor_day: int = 1
    anchor_month: int = 1
    ends_at: datetime | None = None
    rolling_s: int | None = None
    rolling_parts: int = 0
    max_values: int = 10_000


class ProposedPrice(Struct, forbid_unknown_fields=True):
    """Dollars per million tokens, and per request, as decimal text."""

    model: str
    input: str = "0"
    output: str = "0"
    cached_input: str | None = None
    cache_write: str | None = None
    request: str = "0"
    provider: str = ""
    match: str = "exact"


class Proposal(Struct, forbid_unknown_fields=True):
    budgets: list[ProposedBudget]
    prices: list[ProposedPrice] = field(default_factory=list)


def read_proposal(data: Any) -> tuple[list[BudgetPolicy], list[PricePolicy]]:
    """Budgets and prices of a proposal that was read from JSON or YAML.

    Raises:
        BacktestError: something in it cannot be meant; the sentence names the place.
    """
    try:
        proposal = msgspec.convert(data, Proposal)
    except msgspec.ValidationError as error:
        raise BacktestError(f"budgets file: {error}") from error
    if not proposal.budgets:
        raise BacktestError("budgets file: it proposes no budget")
    names = [budget.name for budget in proposal.budgets]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BacktestError(f"budgets file: two budgets are named {twice[0]!r}")
    return (
        [_budget(budget) for budget in proposal.budgets],
        [_price(price) for price in proposal.prices],
    )


def _budget(given: ProposedBudget) -> BudgetPolicy:
    where = f"budget {given.name!r}"
    kind, _, scope_id = given.scope.partition(":")
    kinds = {str(known) for known in ScopeKind if known is not ScopeKind.SESSION}
    if kind not in kinds or bool(scope_id) == (kind == ScopeKind.ORGANIZATION):
        raise BacktestError(
            f"{where}: scope is organization, or team:, project: or agent: and a name,"
            f" not {given.scope!r}"
        )
    if given.max_values < 1:
        raise BacktestError(f"{where}: max_values must be at least 1")
    if given.unit is Unit.CONCURRENCY:
        raise BacktestError(f"{where}: how many calls ran at once is not replayed")
    if given.per not in set(Per) and not given.per.startswith(TAG):
        raise BacktestError(f"{where}: per: {given.per!r} is nothing to split by")
    unknown = sorted(n for n in given.filters if n not in FILTERABLE and not n.startswith(TAG))
    if unknown:
        raise BacktestError(f"{where}: filters: no fact {unknown[0]!r}")
    kind_of_window = given.window if given.window in _PLAIN_WINDOWS else "calendar"
    spec = {
        "kind": kind_of_window,
        "period": given.window if kind_of_window == "calendar" else None,
        "time_zone": given.time_zone,
        "anchor_day": given.anchor_day,
        "anchor_month": given.anchor_month,
        "ends_at_s": int(given.ends_at.timestamp()) if given.ends_at else None,
        "length_s": given.rolling_s,
        "parts": given.rolling_parts or usual_parts(given.rolling_s or 0),
    }
    try:
        window = msgspec.convert(spec, WindowSpec)
        check_spec(window)
    except (msgspec.ValidationError, WindowError) as error:
        raise BacktestError(f"{where}: window: {error}") from error
    return BudgetPolicy(
        id=given.name,
        name=given.name,
        scope_kind=ScopeKind(kind),
        scope_id=scope_id,
        unit=given.unit,
        limit=_limit(given, where),
        mode=given.mode,
        per=given.per,
        filters=given.filters,
        window=window,
        max_values=given.max_values,
    )


def _limit(given: ProposedBudget, where: str) -> int:
    try:
        limit = parse_usd(str(given.limit)) if given.unit is Unit.USD else int(given.limit)
    except ValueError as error:
        raise BacktestError(f"{where}: limit: {error}") from error
    if not 0 < limit <= MAX_NANOS:
        raise BacktestError(f"{where}: limit must be above zero and fit 64 bits")
    return limit


def _price(given: ProposedPrice) -> PricePolicy:
    where = f"price of {given.model!r}"
    try:
        rates = Rates(
            input=parse_usd(given.input),
            cached_input=parse_usd(given.cached_input or given.input),
            cache_write=parse_usd(given.cache_write or given.input),
            output=parse_usd(given.output),
            request=parse_usd(given.request),
        )
        fields = {"id": given.model, "model": given.model, "rates": rates, "match": given.match}
        price = msgspec.convert(fields | {"provider": given.provider}, PricePolicy)
    except (ValueError, msgspec.ValidationError) as error:
        raise BacktestError(f"{where}: {error}") from error
    if any(rate is not None and rate < 0 for rate in msgspec.structs.astuple(rates)):
        raise BacktestError(f"{where}: a rate is below zero")
    return price


def read_calls(
    lines: Iterable[str], *, agent: str = "agent", model: str = "model"
) -> Iterator[Call]:
    """Calls of a CSV, in its order. `agent` and `model` stand in where the CSV has none.

    Raises:
        BacktestError: a column is missing or a cell unreadable; the sentence names the line.
    """
    rows = csv.reader(lines)
    heading = next(rows, [])
    places = _places(heading)
    for row in rows:
        if not row:
            continue
        try:
            yield _call(row, places, agent, model)
        except (ValueError, IndexError) as error:
            raise BacktestError(f"line {rows.line_num}: {error}") from error


def _places(heading: list[str]) -> dict[str, int]:
    given = [name.strip().lower().removeprefix("\ufeff") for name in heading]
    places: dict[str, int] = {}
    for column, names in COLUMNS.items():
        found = [given.index(name) for name in names if name in given]
        if found:
            places[column] = found[0]
        elif column in REQUIRED:
            raise BacktestError(f"line 1: no column {' or '.join(names)}")
    return places


def _call(row: list[str], places: Mapping[str, int], agent: str, model: str) -> Call:
    def text(column: str) -> str:
        return row[places[column]] if column in places else ""

    def number(column: str) -> int:
        given = int(text(column) or 0)
        if not 0 <= given <= MAX_NANOS:
            raise ValueError(f"{column}: {given} is not a number of tokens")
        return given

    usage = TokenUsage(
        number("input"),
        number("cached"),
        number("cache_write"),
        number("output"),
        number("reasoning"),
    )
    if usage.cached_input_tokens + usage.cache_write_tokens > usage.input_tokens:
        raise ValueError("more cached tokens than input tokens")
    charge = parse_usd(text("charge")) if text("charge") else None
    if charge is not None and charge < 0:
        raise ValueError("charge_usd: below zero")
    return Call(
        at=_instant(text("at")),
        agent=text("agent") or agent,
        usage=usage,
        team=text("team") or None,
        project=text("project") or None,
        session=text("session"),
        model=text("model") or model,
        provider=text("provider"),
        charge=charge,
        user=text("user"),
        node=text("node"),
        skill=text("skill"),
        tags=_tags(text("tags")),
        gpu_ms=number("gpu_ms"),
        tool_calls=number("tool_calls"),
    )


def _tags(text: str) -> dict[str, str]:
    """`a=1;b=2`."""
    tags = {}
    for item in filter(None, text.split(";")):
        name, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"tags: {item!r} is not NAME=VALUE")
        tags[name.strip()] = value.strip()
    return tags


def _instant(text: str) -> datetime:
    at = datetime.fromisoformat(text.strip())
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
