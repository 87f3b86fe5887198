"""What a budget can mean: its scope, filters, split and unit. Refused in words, with the field."""

import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from uuid import UUID

from django.db.models import Q, QuerySet

from budgets.enums import PriceMatch, Rollover, WindowKind
from budgets.errors import BudgetValidationError, UnknownFactError
from budgets.models import Budget, PriceVersion, UsageRollup
from budgets.models.budget import TAG_PATTERN
from enforcement.rules.matching import FILTERABLE, TAG, fits
from enforcement.rules.money import usd_text
from enforcement.rules.policy import HoldMode, Mode, Overflow, Per, ScopeKind, Unit
from enforcement.rules.windows import WindowError, check_spec

MAX_AMOUNT = 2**63 - 1
MAX_PERMITS = 1_000_000
MAX_FILTERS = 8
MAX_PATTERNS = 100
MAX_PATTERN_CHARS = 200
MAX_SESSION_CHARS = 128
_METERABLE = (Unit.USD, Unit.TOKENS, Unit.OUTPUT_TOKENS, Unit.REASONING_TOKENS, Unit.REQUESTS)

_ANCHORED = ("month", "quarter", "year")
_A = {
    WindowKind.LIFETIME: "a lifetime",
    WindowKind.CALENDAR: "a calendar",
    WindowKind.UNTIL: "an until-date",
    WindowKind.ROLLING: "a rolling",
}

Known = Callable[[UUID], Iterable[str]]
_known: dict[str, list[Known]] = {}


def know(fact: str, values: Known) -> None:
    """Say where the known values of a fact are; other apps add what they keep.

    Only facts whose values do not come from callers: a user may be named before the first call.
    """
    _known.setdefault(fact, []).append(values)


def amount_text(amount: int, unit: str) -> str:
    """As people write it: decimal dollars, or a whole number of anything else."""
    return usd_text(amount) if unit == Unit.USD else str(amount)


def check_amount(field: str, amount: int, *, most: int, unit: str) -> None:
    """Refuse what is not from 1 to `most`; both are of `unit`, nano-dollars of usd."""
    name, found = field.removesuffix("_amount"), amount_text(amount, unit)
    if amount <= 0:
        raise BudgetValidationError(field, f"{name} must be above zero, not {found}")
    if amount > most:
        text = f"{name} is at most {amount_text(most, unit)}, not {found}"
        raise BudgetValidationError(field, text)


def check_shape(budget: Budget) -> None:
    """Refuse a scope, filter, split or unit that cannot be meant.

    Raises:
        BudgetValidationError: `field` tells which.
        UnknownFactError: a filter that nothing in the organization can fit.
    """
    _check_session(budget)
    _check_split(budget)
    _check_unit(budget)
    _check_filters(budget)


def _check_session(budget: Budget) -> None:
    name = budget.scope_session
    if budget.scope_kind == ScopeKind.SESSION:
        if not name:
            raise BudgetValidationError(
                "scope_session", "name the session; scope_id is the id of its agent"
            )
        if len(name) > MAX_SESSION_CHARS or not name.isprintable():
            raise BudgetValidationError(
                "scope_session", f"a session has at most {MAX_SESSION_CHARS} printable characters"
            )
    elif name:
        raise BudgetValidationError("scope_session", "only a scope of kind session names one")


def _check_split(budget: Budget) -> None:
    if budget.per not in set(Per) and not re.match(TAG_PATTERN, budget.per):
        names = ", ".join(per.value for per in Per if per)
        raise BudgetValidationError("per", f"split by one of {names}, or tag:NAME")
    if budget.overflow == Overflow.SHARE and not budget.per:
        raise BudgetValidationError("overflow", "only a split can overflow")


def _check_unit(budget: Budget) -> None:
    unit = Unit(budget.unit)
    if budget.hold_mode == HoldMode.METERED and unit not in _METERABLE:
        raise BudgetValidationError("hold_mode", f"{unit.value} cannot be held slice by slice")
    if unit is not Unit.CONCURRENCY:
        return
    if budget.mode != Mode.HARD:
        raise BudgetValidationError("mode", "concurrency is held, never counted: make it hard")
    if budget.window_kind != WindowKind.LIFETIME:
        raise BudgetValidationError("window_kind", "permits come back: use a lifetime window")
    check_amount("limit_amount", budget.limit_amount, most=MAX_PERMITS, unit=unit)


def check_window(budget: Budget) -> None:
    """Refuse a window, or what shall become of its rest, that cannot be meant.

    Raises:
        BudgetValidationError: `field` tells which part.
    """
    kind = WindowKind(budget.window_kind)
    anchored = budget.anchor_day != 1 or budget.anchor_month != 1
    if kind is not WindowKind.CALENDAR:
        if budget.time_zone != "UTC" or anchored:
            raise BudgetValidationError(
                "time_zone", f"{_A[kind]} window has no time zone or anchor"
            )
    elif budget.anchor_day != 1 and budget.period not in _ANCHORED:
        raise BudgetValidationError("anchor_day", f"a {budget.period} has no anchor day")
    elif budget.anchor_month != 1 and budget.period not in ("quarter", "year"):
        raise BudgetValidationError("anchor_month", f"a {budget.period} has no anchor month")
    for field, owner in (("ends_at", WindowKind.UNTIL), ("rolling_s", WindowKind.ROLLING)):
        if getattr(budget, field) is not None and kind is not owner:
            raise BudgetValidationError(field, f"only {_A[owner]} window has it")
    if budget.rolling_parts and kind is not WindowKind.ROLLING:
        raise BudgetValidationError("rolling_parts", "only a rolling window has parts")
    try:
        check_spec(budget.window)
    except WindowError as error:
        raise BudgetValidationError(error.field, str(error)) from error
    _check_rollover(budget, kind)


def _check_rollover(budget: Budget, kind: WindowKind) -> None:
    amount = budget.rollover_amount
    if budget.rollover != Rollover.NONE and kind is not WindowKind.CALENDAR:
        raise BudgetValidationError(
            "rollover", "only what a calendar window leaves can go to the next one"
        )
    if budget.rollover == Rollover.CAPPED:
        if amount is None:
            raise BudgetValidationError("rollover_amount", "say how much is carried at most")
        most = MAX_AMOUNT - budget.effective_limit
        check_amount("rollover_amount", amount, most=most, unit=budget.unit)
    elif amount is not None:
        raise BudgetValidationError("rollover_amount", "only a capped rollover has an amount")


def _check_filters(budget: Budget) -> None:
    given = budget.filters
    if not isinstance(given, dict) or len(given) > MAX_FILTERS:
        raise BudgetValidationError("filters", f"at most {MAX_FILTERS} facts, each with a list")
    for fact, patterns in given.items():
        if fact not in FILTERABLE and not re.match(TAG_PATTERN, fact):
            _refuse_fact(fact)
        if not isinstance(patterns, list) or not 1 <= len(patterns) <= MAX_PATTERNS:
            raise BudgetValidationError(
                "filters", f"{fact}: a list of 1 to {MAX_PATTERNS} patterns is needed"
            )
        for pattern in patterns:
            _check_pattern(fact, pattern)
    for fact, patterns in given.items():
        check_known(budget.organization_id, fact, patterns)


def _refuse_fact(fact: str) -> None:
    nearest = get_close_matches(fact, FILTERABLE, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    names = ", ".join(FILTERABLE)
    raise BudgetValidationError("filters", f"no fact {fact!r}: {names} or {TAG}NAME{hint}")


def _check_pattern(fact: str, pattern: object) -> None:
    if not isinstance(pattern, str) or not 1 <= len(pattern) <= MAX_PATTERN_CHARS:
        raise BudgetValidationError(
            "filters", f"{fact}: a pattern is a text of 1 to {MAX_PATTERN_CHARS} characters"
        )
    if "*" in pattern[:-1] or not pattern.isprintable():
        raise BudgetValidationError(
            "filters", f"{fact}: {pattern!r}: a * may stand at the end only"
        )


def check_known(organization_id: UUID, fact: str, patterns: list[str]) -> None:
    """Raises UnknownFactError unless every pattern fits something that the organization has."""
    if fact not in _known:
        return
    values = {value for known in _known[fact] for value in known(organization_id) if value}
    for pattern in patterns if values else ():
        if not any(_is_known(pattern, value) for value in values):
            near = get_close_matches(pattern.rstrip("*"), sorted(values), n=1, cutoff=0.4)
            raise UnknownFactError(fact, pattern, nearest=near[0] if near else None)


def _is_known(pattern: str, value: str) -> bool:
    """Whether a pattern fits a known value, or is covered by one that ends with `*`."""
    return fits(pattern, value) or (value.endswith("*") and fits(value, pattern.rstrip("*")))


def _priced_models(organization_id: UUID) -> Iterable[str]:
    rows = _prices(organization_id).values_list("model", "match").distinct()
    return (f"{model}*" if match == PriceMatch.PREFIX else model for model, match in rows)


def _priced_providers(organization_id: UUID) -> Iterable[str]:
    return _prices(organization_id).values_list("provider", flat=True).distinct()


def _prices(organization_id: UUID) -> QuerySet[PriceVersion]:
    own = Q(organization_id=organization_id)
    return PriceVersion.objects.filter(own | Q(organization_id__isnull=True))


def _used_models(organization_id: UUID) -> Iterable[str]:
    rows = UsageRollup.objects.filter(organization_id=organization_id)
    return rows.values_list("model", flat=True).distinct()


know("model", _priced_models)
know("model", _used_models)
know("provider", _priced_providers)
