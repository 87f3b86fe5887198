"""Pages that keep a provider's bill: its file, or lines that somebody types from an invoice."""

from collections.abc import Sequence
from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect

from controlplane.dashboard.localforms import InstantField, LocalForm
from controlplane.dashboard.uploads import SmallFile
from controlplane.dashboard.web import PageRequest, show, writing
from enforcement.api.reconciliation import MOST_CHARS
from enforcement.domain.bills.lines import Line, summed
from enforcement.domain.bills.reading import own_lines, read_bill
from enforcement.domain.bills.storing import Kept, keep_bill
from enforcement.errors import BillError

LINES = 6
MOST_LINES = 100
BY_HAND = "entered by hand"
NAME_CHARS = 64


class BillFileForm(forms.Form):
    """A bill as its provider wrote it."""

    file = SmallFile(
        label="The bill",
        help_text="What the usage or cost API of OpenAI or Anthropic answers, a table that their"
        " console exports, or a CSV of your own.",
        most_bytes=MOST_CHARS,
        larger="Import it in parts, or by the command.",
        accept=".csv,.json,text/csv,application/json",
    )
    provider = forms.CharField(
        max_length=NAME_CHARS, required=False, help_text="As calls name it, if not the bill's."
    )
    account = forms.CharField(
        max_length=NAME_CHARS, required=False, help_text="Whose bill, where there are several."
    )
    layout = (("file", ""), ("provider", "field-half"), ("account", "field-half"))

    @property
    def rows(self) -> list[tuple[forms.BoundField, str]]:
        return [(self[name], css) for name, css in self.layout]


class BillForm(LocalForm):
    """What all lines that are typed in have in common."""

    provider = forms.CharField(max_length=NAME_CHARS, help_text="As calls name it.")
    account = forms.CharField(
        max_length=NAME_CHARS, required=False, help_text="Where there are several."
    )
    starts_at = InstantField(label="From", help_text="UTC, a whole hour.")
    ends_at = InstantField(label="Until", help_text="UTC; the first hour that is not meant.")
    layout = (
        ("provider", "field-half"),
        ("account", "field-half"),
        ("starts_at", "field-half"),
        ("ends_at", "field-half"),
    )


class LineForm(forms.Form):
    """One line. Its numbers stay text: the reader of bills checks them."""

    model = forms.CharField(max_length=200, required=False)
    item = forms.CharField(max_length=200, required=False)
    prompt_tokens = forms.CharField(label="Prompt tokens", max_length=20, required=False)
    cached_tokens = forms.CharField(label="Of them cached", max_length=20, required=False)
    generation_tokens = forms.CharField(label="Generated", max_length=20, required=False)
    calls = forms.CharField(max_length=20, required=False)
    cost_usd = forms.CharField(label="Dollars", max_length=40, required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        number = str(self.prefix).rpartition("-")[2]
        line = f"line {int(number) + 1}" if number.isdigit() else "another line"
        for name, field in self.fields.items():
            label = field.label or name.capitalize()
            size = "14" if name in ("model", "item") else "7"
            field.widget.attrs = {"class": "input", "aria-label": f"{label}, {line}", "size": size}


LineForms = forms.formset_factory(LineForm, extra=LINES, max_num=MOST_LINES, validate_max=True)


@writing
def import_file(request: PageRequest) -> HttpResponse:
    posted = request.method == "POST"
    form = BillFileForm(request.POST if posted else None, request.FILES if posted else None)
    if form.is_valid():
        given = form.cleaned_data
        try:
            lines = read_bill(given["file"].content, provider=given["provider"])
            _told(request, _kept(request, lines, given["account"], given["file"].name))
            return redirect("enforcement:reconciliation")
        except BillError as error:
            form.add_error("file", f"{error}.")
    status = 422 if form.errors else 200
    context = {"section": "reconciliation", "form": form}
    return show(request, "enforcement/bill_file.html", context, status=status)


@writing
def enter(request: PageRequest) -> HttpResponse:
    posted = request.POST if request.method == "POST" else None
    form = BillForm(posted, zone=ZoneInfo("UTC"))
    rows = LineForms(posted, prefix="line")
    if posted is not None and form.is_valid() and rows.is_valid():
        try:
            lines = _typed(form.cleaned_data, [row.cleaned_data for row in rows])
            _told(request, _kept(request, lines, form.cleaned_data["account"], BY_HAND))
            return redirect("enforcement:reconciliation")
        except BillError as error:
            form.add_error(None, f"{error}.")
    status = 422 if form.is_bound else 200
    context = {"section": "reconciliation", "form": form, "rows": rows}
    return show(request, "enforcement/bill_lines.html", context, status=status)


def _typed(common: dict[str, Any], rows: Sequence[dict[str, str]]) -> list[Line]:
    """Lines as a CSV of our own would have them; empty rows say nothing."""
    times = {name: common[name].astimezone(UTC).isoformat() for name in ("starts_at", "ends_at")}
    found: list[Line] = []
    for number, row in enumerate(rows, start=1):
        if any(row.values()):
            try:
                found += own_lines({**row, **times}, common["provider"])
            except BillError as error:
                raise BillError(f"Line {number}: {error}") from error
    return summed(found)


def _kept(request: PageRequest, lines: list[Line], account: str, source: str) -> Kept:
    return keep_bill(
        organization_id=request.organization.id,
        lines=lines,
        account=account,
        source=source,
        actor=request.actor,
        now=request.now,
    )


def _told(request: PageRequest, kept: Kept) -> None:
    words = f"{kept.new} lines are new, {kept.changed} say something else than before"
    gone = f", {kept.gone} are gone" if kept.gone else ""
    messages.success(request, f"{words}{gone}, {kept.same} are the same. They are compared below.")
