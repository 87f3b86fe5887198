"""The page that takes a price file as own rates: what it changes first, then the same file holds.

Between both the file stands in the page itself, as bytes: nothing is kept here, and what is taken
is what was shown. Prices that changed meanwhile are compared anew; a jump that was not confirmed
stops all of it then too.
"""

import base64
import binascii
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect

from budgets.api.priceimports import MOST_CHARS as MOST_BYTES
from budgets.domain.pricefiles import PriceFormat, format_of, read_prices
from budgets.domain.priceimport import MOST_OWN, ImportDiff, import_prices
from budgets.errors import PriceError
from budgets.queries.pricediff import counts, lines
from controlplane.dashboard.uploads import SmallFile
from controlplane.dashboard.web import PageRequest, show, writing

ROWS_SHOWN = 500
LEFT_OUT_SHOWN = 50


class PriceFileForm(forms.Form):
    """A price file, newly chosen (`file`), or the one that was shown (`content`, in base 64)."""

    file = SmallFile(
        label="Price file",
        required=False,
        help_text=f"CSV, LiteLLM's map, or the data.json of genai-prices. Up to {MOST_OWN:,} models"
        " and 2 MB.",
        most_bytes=MOST_BYTES,
        larger="Leave out the models that nobody here calls.",
        accept=".csv,.json,text/csv,application/json",
    )
    form = forms.ChoiceField(
        label="What it is",
        choices=[("", "By its content"), *((one.value, one.value) for one in PriceFormat)],
        required=False,
    )
    reason = forms.CharField(
        max_length=500, required=False, help_text="Kept in the audit trail with your name."
    )
    content = forms.CharField(required=False, widget=forms.HiddenInput)
    layout = (("file", ""), ("form", "field-half"), ("reason", "field-half"))

    @property
    def rows(self) -> list[tuple[forms.BoundField, str]]:
        return [(self[name], css) for name, css in self.layout]

    def clean_content(self) -> bytes | None:
        try:
            return base64.b64decode(self.cleaned_data["content"], validate=True) or None
        except binascii.Error:
            raise forms.ValidationError("Choose the file again.") from None

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not cleaned.get("file") and not cleaned.get("content") and not self.errors:
            self.add_error("file", "Choose a file.")
        return cleaned


@writing
def bring(request: PageRequest) -> HttpResponse:
    posted = request.method == "POST"
    form = PriceFileForm(request.POST if posted else None, request.FILES if posted else None)
    context: dict[str, Any] = {"section": "prices", "form": form}
    if form.is_valid():
        fresh, kept = form.cleaned_data["file"], form.cleaned_data["content"]
        is_wanted = "apply" in request.POST and fresh is None
        content = kept if fresh is None else fresh.content
        try:
            if is_wanted and _take(request, form.cleaned_data, content):
                return redirect("budgets:prices")
            context |= _told(_imported(request, form.cleaned_data, content, dry_run=True))
            context["content"] = base64.b64encode(content).decode()
            context["confirmed"] = request.POST.getlist("confirm")
        except PriceError as error:
            form.add_error("file", f"{error.message}.")
    status = 422 if form.errors else 200
    return show(request, "budgets/price_file.html", context, status=status)


def _take(request: PageRequest, values: dict[str, Any], content: bytes) -> bool:
    """Whether it holds now; if not, what must be confirmed is told and the page shows it again."""
    try:
        diff = _imported(request, values, content, dry_run=False)
    except PriceError as error:
        if error.field != "confirm":
            raise
        messages.error(request, "Nothing was changed: confirm each jump, or mend the file.")
        return False
    words = f"{len(diff.added)} models are new, {len(diff.changed)} changed; the rates hold"
    messages.success(request, f"{words} from now on, or from the dates in the file.")
    return True


def _imported(
    request: PageRequest, values: dict[str, Any], content: bytes, *, dry_run: bool
) -> ImportDiff:
    form = PriceFormat(values["form"]) if values["form"] else format_of("", content)
    return import_prices(
        read_prices(content, form),
        organization_id=request.organization.id,
        actor=request.actor,
        now=request.now,
        reason=values["reason"],
        confirmed=request.POST.getlist("confirm"),
        dry_run=dry_run,
    )


def _told(diff: ImportDiff) -> dict[str, Any]:
    """What the page shows of it."""
    rows = lines(diff)
    return {
        "found": counts(diff),
        "doubtful": [(one.key.name, one.jumps) for one in diff.doubtful],
        "changes": rows[:ROWS_SHOWN],
        "change_count": len(rows),
        "left_out": diff.left_out[:LEFT_OUT_SHOWN],
    }
