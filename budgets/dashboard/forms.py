"""Forms of budgets and rates. They parse; what a budget may be is decided in `domain`."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import available_timezones

from django import forms
from django.forms import BoundField

from budgets.dashboard.places import Places
from budgets.domain.budgets import BudgetSpec
from budgets.domain.checks import amount_text
from budgets.domain.thresholds import thresholds_of
from budgets.enums import Period, PriceMatch, Rollover, WindowKind
from budgets.errors import BudgetValidationError
from budgets.models import Budget
from enforcement.rules.matching import TAG
from enforcement.rules.money import parse_usd
from enforcement.rules.policy import HoldMode, Mode, Overflow, Per, Rates, ScopeKind, Unit
from enforcement.rules.thresholds import ThresholdError, line_of, parse_lines

BY_TAG = "tag"
UNITS = [
    (Unit.USD.value, "US dollars"),
    (Unit.TOKENS.value, "Tokens, input and output"),
    (Unit.INPUT_TOKENS.value, "Input tokens, cached ones included"),
    (Unit.OUTPUT_TOKENS.value, "Output tokens"),
    (Unit.CACHED_TOKENS.value, "Cached input tokens"),
    (Unit.REASONING_TOKENS.value, "Reasoning tokens"),
    (Unit.REQUESTS.value, "Requests"),
    (Unit.GPU_MS.value, "GPU time, in milliseconds"),
    (Unit.TOOL_CALLS.value, "Tool calls"),
    (Unit.CONCURRENCY.value, "Calls at once"),
]
WINDOWS = [
    ("lifetime", "Lifetime: never starts again"),
    *((period.value, f"Each {period.label.lower()}") for period in Period),
    (WindowKind.ROLLING.value, "Rolling: the last hours or days, at any moment"),
    (WindowKind.UNTIL.value, "Until a date: then it ends"),
]
ROLLOVERS = [
    (Rollover.NONE.value, "Nothing: each window begins anew"),
    (Rollover.CAPPED.value, "What is left, up to an amount"),
    (Rollover.ALL.value, "All that is left"),
]
MODES = [
    (Mode.HARD.value, "Hard: hold before each call, refuse or cut at the limit"),
    (Mode.SOFT.value, "Soft: let calls pass, tell that the limit is crossed"),
    (Mode.OBSERVE.value, "Observe: only count"),
]
HOLD_MODES = [
    (HoldMode.STRICT.value, "Strict: hold the whole worst case. Overspend is zero"),
    (HoldMode.METERED.value, "Metered: hold slice by slice while it flows, cut mid-stream"),
]
SPLITS = [
    (Per.NONE.value, "One balance for all"),
    (Per.AGENT.value, "A balance for each agent"),
    (Per.SESSION.value, "A balance for each session"),
    *(
        (per.value, f"A balance for each {per.value}")
        for per in (Per.USER, Per.MODEL, Per.PROVIDER, Per.NODE, Per.SKILL, Per.PROJECT, Per.TEAM)
    ),
    (BY_TAG, "A balance for each value of a tag"),
]
OVERFLOWS = [
    (Overflow.REFUSE.value, "Refuse calls of further values"),
    (Overflow.SHARE.value, "Let further values share one balance"),
]
FORM_FIELDS = {
    "scope_session": "session",
    "limit_amount": "limit",
    "scope_id": "scope",
    "window_kind": "window",
    "period": "window",
    "rolling_s": "rolling_hours",
    "rolling_parts": "rolling_hours",
    "ends_at": "ends_on",
}


class FieldGroup(NamedTuple):
    title: str
    note: str
    fields: list[tuple[BoundField, str]]


class LimitForm(forms.Form):
    """What can change in a budget's life."""

    name = forms.CharField(max_length=200, help_text="As people will read it in refusals.")
    limit = forms.CharField(
        label="Limit", help_text="Dollars like 25 or 0.01; else a whole number."
    )
    mode = forms.ChoiceField(label="At the limit", choices=MODES, widget=forms.RadioSelect)
    hold_mode = forms.ChoiceField(
        label="How it holds", choices=HOLD_MODES, widget=forms.RadioSelect, required=False
    )
    max_values = forms.IntegerField(
        label="Most balances",
        min_value=1,
        required=False,
        initial=10_000,
        help_text="Of a split: one for each agent, session, user …",
    )
    thresholds = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 4, "spellcheck": "false"}),
        help_text="A line for each: 80%: notify — 90% forecast: notify, approval — "
        "95%: throttle 10/min, reroute small-model — 100%: pause. Also refuse, cut and kill.",
    )
    overflow = forms.ChoiceField(label="Beyond that", choices=OVERFLOWS, required=False)
    reason = forms.CharField(
        max_length=500, required=False, help_text="Kept in the audit trail with your name."
    )
    limit_fields: tuple[tuple[str, str], ...] = (("name", "field-half"), ("limit", "field-half"))

    def __init__(self, *args: Any, unit: str = Unit.USD.value, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unit = unit

    @property
    def groups(self) -> list[FieldGroup]:
        return [
            self._group("Limit", "what may be used", self.limit_fields),
            self._group(
                "Enforcement", "what happens at the limit", (("mode", ""), ("hold_mode", ""))
            ),
            self._group("On the way there", "and past it", (("thresholds", ""),)),
            self._group(
                "Record",
                "",
                (("max_values", "field-half"), ("overflow", "field-half"), ("reason", "")),
            ),
        ]

    def _group(self, title: str, note: str, names: Iterable[tuple[str, str]]) -> FieldGroup:
        return FieldGroup(title, note, [(self[name], css) for name, css in names])

    def unit(self) -> str:
        return self._unit

    def clean_hold_mode(self) -> str:
        return str(self.cleaned_data["hold_mode"] or HoldMode.STRICT.value)

    def clean_thresholds(self) -> list[dict[str, Any]]:
        try:
            return parse_lines(self.cleaned_data["thresholds"])
        except ThresholdError as error:
            raise forms.ValidationError(str(error)) from error

    def clean_overflow(self) -> str:
        return str(self.cleaned_data["overflow"] or Overflow.REFUSE.value)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if "limit" in cleaned:
            try:
                cleaned["limit"] = parse_amount(cleaned["limit"], self.unit())
            except ValueError as error:
                self.add_error("limit", str(error))
        if cleaned.get("mode") != Mode.HARD.value:
            cleaned["hold_mode"] = HoldMode.STRICT.value
        return cleaned

    def refuse(self, error: BudgetValidationError) -> None:
        """Show a refusal of the domain at its field."""
        name = FORM_FIELDS.get(error.field, error.field)
        message = error.message[:1].upper() + error.message[1:] + "."
        self.add_error(name if name in self.fields else None, message)

    def changes(self) -> dict[str, Any]:
        cleaned = self.cleaned_data
        return {
            "name": cleaned["name"],
            "limit_amount": cleaned["limit"],
            "mode": Mode(cleaned["mode"]),
            "hold_mode": HoldMode(cleaned["hold_mode"]),
            "overflow": Overflow(cleaned["overflow"]),
            "thresholds": cleaned["thresholds"],
            **({"max_values": cleaned["max_values"]} if cleaned["max_values"] else {}),
        }


class BudgetForm(LimitForm):
    """A new budget."""

    scope = forms.ChoiceField(label="Whose use", help_text="Everything below it counts too.")
    session = forms.CharField(
        label="Only its session", max_length=128, required=False, help_text="Of an agent, by name."
    )
    per = forms.ChoiceField(label="Split", choices=SPLITS, required=False)
    split_tag = forms.CharField(
        label="Tag", max_length=64, required=False, help_text="The tag whose values are told apart."
    )
    filters = forms.CharField(
        label="Only calls with",
        required=False,
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false"}),
        help_text="A line for each fact: model = gpt-4*, claude* or tag:env = prod. "
        "Also user, provider, node and skill. Empty: every call.",
    )
    unit_of_limit = forms.ChoiceField(label="Unit", choices=UNITS)
    window = forms.ChoiceField(choices=WINDOWS, initial="month")
    time_zone = forms.CharField(
        required=False, help_text="Where its days and months begin, like Europe/Berlin."
    )
    anchor_day = forms.IntegerField(
        label="Begins on day",
        min_value=1,
        max_value=28,
        required=False,
        initial=1,
        help_text="Of the month; for months, quarters and years.",
    )
    anchor_month = forms.IntegerField(
        label="Begins in month",
        min_value=1,
        max_value=12,
        required=False,
        initial=1,
        help_text="Of fiscal quarters and years.",
    )
    rolling_hours = forms.DecimalField(
        label="Hours that count",
        min_value=Decimal("0.01"),
        max_digits=7,
        decimal_places=2,
        required=False,
        initial=24,
        help_text="24 for the last day, 168 for the last week.",
    )
    ends_on = forms.DateTimeField(
        label="Ends",
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
        help_text="UTC. After it, a hard budget refuses.",
    )
    rollover = forms.ChoiceField(label="Carried on", choices=ROLLOVERS, required=False)
    rollover_amount = forms.CharField(label="At most", required=False)
    field_order = ["name", "scope", "per", "unit_of_limit", "limit", "window"]
    limit_fields = (
        ("limit", "field-third"),
        ("unit_of_limit", "field-third"),
        ("window", "field-third"),
        ("time_zone", "field-half"),
        ("anchor_day", "field-half"),
        ("anchor_month", "field-half"),
        ("rolling_hours", "field-half"),
        ("ends_on", "field-half"),
        ("rollover", "field-half"),
        ("rollover_amount", "field-half"),
    )

    def __init__(self, *args: Any, places: Places, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["scope"].choices = scope_choices(places)  # type: ignore[attr-defined]

    @property
    def groups(self) -> list[FieldGroup]:
        scope = (
            ("name", ""),
            ("scope", "field-half"),
            ("session", "field-half"),
            ("per", "field-half"),
            ("split_tag", "field-half"),
            ("filters", ""),
        )
        return [self._group("Whose use it counts", "fixed once it exists", scope), *super().groups]

    def unit(self) -> str:
        return str(self.cleaned_data.get("unit_of_limit", Unit.USD.value))

    def clean_time_zone(self) -> str:
        zone = str(self.cleaned_data["time_zone"] or "UTC")
        if zone not in available_timezones():
            raise forms.ValidationError(f"{zone} is no time zone; write one like Europe/Berlin.")
        return zone

    def clean_filters(self) -> dict[str, list[str]]:
        return parse_filters(self.cleaned_data["filters"])

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        if cleaned.get("per") == BY_TAG:
            cleaned["per"] = f"{TAG}{cleaned.get('split_tag', '').strip()}"
        if cleaned.get("session") and not cleaned.get("scope", "").startswith("agent:"):
            self.add_error("session", "Choose the agent of this session as scope.")
        try:
            most = cleaned.get("rollover_amount")
            cleaned["rollover_amount"] = parse_amount(most, self.unit()) if most else None
        except ValueError as error:
            self.add_error("rollover_amount", str(error))
        return cleaned

    def spec(self) -> BudgetSpec:
        cleaned = self.cleaned_data
        kind, _, scope_id = cleaned["scope"].partition(":")
        if cleaned["session"]:
            kind = ScopeKind.SESSION
        return BudgetSpec(
            name=cleaned["name"],
            scope_kind=ScopeKind(kind),
            scope_id=UUID(scope_id),
            scope_session=cleaned["session"],
            filters=cleaned["filters"],
            per=cleaned["per"],
            unit=Unit(cleaned["unit_of_limit"]),
            limit_amount=cleaned["limit"],
            mode=Mode(cleaned["mode"]),
            hold_mode=HoldMode(cleaned["hold_mode"]),
            **self._window(),
            max_values=cleaned["max_values"] or 10_000,
            overflow=Overflow(cleaned["overflow"]),
            thresholds=cleaned["thresholds"],
        )

    def _window(self) -> dict[str, Any]:
        """The fields of the window that was chosen; the others are not meant."""
        cleaned, window = self.cleaned_data, self.cleaned_data["window"]
        if window == WindowKind.ROLLING:
            hours = cleaned["rolling_hours"] or Decimal(24)
            return {"window_kind": WindowKind.ROLLING, "rolling_s": int(hours * 3600)}
        if window == WindowKind.UNTIL:
            return {"window_kind": WindowKind.UNTIL, "ends_at": cleaned["ends_on"]}
        if window == WindowKind.LIFETIME:
            return {"window_kind": WindowKind.LIFETIME}
        rollover = Rollover(cleaned["rollover"] or Rollover.NONE)
        dated = window in (Period.MONTH, Period.QUARTER, Period.YEAR)
        fiscal = window in (Period.QUARTER, Period.YEAR)
        return {
            "window_kind": WindowKind.CALENDAR,
            "period": window,
            "time_zone": cleaned["time_zone"],
            "anchor_day": (cleaned["anchor_day"] or 1) if dated else 1,
            "anchor_month": (cleaned["anchor_month"] or 1) if fiscal else 1,
            "rollover": rollover,
            "rollover_amount": cleaned["rollover_amount"] if rollover is Rollover.CAPPED else None,
        }


class ArchiveForm(forms.Form):
    reason = forms.CharField(max_length=500, help_text="Kept in the audit trail with your name.")


class RateForm(forms.Form):
    """An own rate, in dollars per million tokens."""

    model = forms.CharField(max_length=200, help_text="As calls name it.")
    match = forms.ChoiceField(
        choices=[
            (PriceMatch.EXACT.value, "Exactly this name"),
            (PriceMatch.PREFIX.value, "Every name that begins so"),
        ],
    )
    provider = forms.CharField(max_length=64, required=False, help_text="Empty: any provider.")
    input = forms.CharField(label="Input", initial="0")
    cached_input = forms.CharField(
        label="Cached input", required=False, help_text="Empty: as input."
    )
    cache_write = forms.CharField(label="Cache write", required=False, help_text="Empty: as input.")
    output = forms.CharField(label="Output", initial="0")
    request = forms.CharField(label="Each request", required=False, initial="0")
    reason = forms.CharField(max_length=500, required=False)
    layout = (
        ("model", "field-half"),
        ("match", "field-half"),
        ("provider", "field-half"),
        ("request", "field-half"),
        ("input", "field-half"),
        ("output", "field-half"),
        ("cached_input", "field-half"),
        ("cache_write", "field-half"),
        ("reason", ""),
    )

    @property
    def rows(self) -> list[tuple[BoundField, str]]:
        return [(self[name], css) for name, css in self.layout]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        for name in ("input", "output", "cached_input", "cache_write", "request"):
            if not cleaned.get(name):
                continue
            try:
                cleaned[name] = parse_amount(cleaned[name], Unit.USD.value, least=0)
            except ValueError as error:
                self.add_error(name, str(error))
        return cleaned

    def rates(self) -> Rates:
        cleaned = self.cleaned_data
        plain = cleaned["input"] or 0
        return Rates(
            input=plain,
            cached_input=plain if cleaned["cached_input"] == "" else cleaned["cached_input"],
            cache_write=plain if cleaned["cache_write"] == "" else cleaned["cache_write"],
            output=cleaned["output"] or 0,
            request=cleaned["request"] or 0,
        )


def scope_choices(places: Places) -> list[tuple[str, list[tuple[str, str]]]]:
    """Every scope, grouped by level, agents with where they belong."""
    groups = []
    for kind in ScopeKind:
        found = places.of_kind(kind)
        if found:
            options = [(f"{kind.value}:{place.id}", places.path_label(place.id)) for place in found]
            groups.append((kind.value.capitalize(), options))
    return groups


def parse_amount(text: str, unit: str, *, least: int = 1) -> int:
    """An amount as people write it: `$1,250.50`, `2 000 000`.

    Raises:
        ValueError: a sentence for the person who wrote it.
    """
    plain = str(text).strip().replace(",", "").replace(" ", "").removeprefix("$")
    try:
        amount = parse_usd(plain) if unit == Unit.USD else int(plain)
    except ValueError as error:
        wanted = "dollars, like 25 or 0.01" if unit == Unit.USD else "a whole number"
        raise ValueError(f"Write {wanted}.") from error
    if amount < least:
        raise ValueError("The limit must be above zero." if least else "Not below zero.")
    return amount


def parse_filters(text: str) -> dict[str, list[str]]:
    """Filters as people write them: `fact = pattern, pattern`, a line for each fact.

    Raises:
        forms.ValidationError: a line that is none.
    """
    filters: dict[str, list[str]] = {}
    for line in filter(None, (line.strip() for line in text.splitlines())):
        fact, equals, patterns = line.partition("=")
        found = [pattern.strip() for pattern in patterns.split(",") if pattern.strip()]
        if not equals or not fact.strip() or not found:
            raise forms.ValidationError(f"Write {line!r} as: model = gpt-4*, claude*")
        filters.setdefault(fact.strip(), []).extend(found)
    return filters


def limit_initial(budget: Budget) -> dict[str, Any]:
    """The form of an existing budget, filled in."""
    return {
        "name": budget.name,
        "limit": amount_text(budget.limit_amount, budget.unit),
        "mode": budget.mode,
        "hold_mode": budget.hold_mode,
        "max_values": budget.max_values,
        "overflow": budget.overflow,
        "thresholds": "\n".join(line_of(threshold) for threshold in thresholds_of(budget)),
    }
