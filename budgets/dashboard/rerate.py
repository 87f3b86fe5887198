"""The page that charges recorded calls again: a preview first, then the same form books it."""

from typing import Any
from zoneinfo import ZoneInfo

from django import forms
from django.contrib import messages
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import redirect

from budgets.api.rerate import MOST_CALLS, told
from budgets.domain.rerate import Wish, preview, rerate
from budgets.errors import RerateError
from controlplane.dashboard.formats import exact_usd
from controlplane.dashboard.localforms import InstantField, LocalForm
from controlplane.dashboard.web import PageRequest, show, writing

SHOWN = 50


class RerateForm(LocalForm):
    """Which calls, with instants in the organization's time zone."""

    model = forms.CharField(max_length=200, help_text="As calls name it; a * may end the name.")
    provider = forms.CharField(max_length=64, required=False, help_text="Empty: any provider.")
    since = InstantField(label="Begun from")
    until = InstantField(label="Until")
    reason = forms.CharField(
        max_length=300, required=False, help_text="Needed to book. Kept with every correction."
    )
    layout = (
        ("model", "field-half"),
        ("provider", "field-half"),
        ("since", "field-half"),
        ("until", "field-half"),
        ("reason", ""),
    )


@writing
def rerate_calls(request: PageRequest) -> HttpResponse:
    zone = ZoneInfo(request.organization.time_zone)
    posted = request.POST if request.method == "POST" else None
    form = RerateForm(posted, zone=zone, initial={"model": request.GET.get("model", "")})
    found, status = None, 422 if form.is_bound else 200
    if form.is_valid():
        try:
            if "book" in request.POST:
                _book(request, form.cleaned_data)
                return redirect("budgets:prices")
            found, status = _preview(request, form.cleaned_data), 200
        except RerateError as error:
            form.refuse(error.field, error.message)
    context = {"section": "prices", "form": form, "zone": zone.key, "found": found, "shown": SHOWN}
    return show(request, "budgets/rerate.html", context, status=status)


def _wish(request: PageRequest, values: dict[str, Any]) -> Wish:
    names = ("model", "provider", "since", "until")
    return Wish(organization_id=request.organization.id, **{name: values[name] for name in names})


def _preview(request: PageRequest, values: dict[str, Any]) -> dict[str, Any]:
    result = preview(_wish(request, values), now=request.now, most=MOST_CALLS)
    return told(result, applied=False)


@transaction.atomic
def _book(request: PageRequest, values: dict[str, Any]) -> None:
    result = rerate(
        _wish(request, values),
        actor=request.actor,
        reason=values["reason"],
        now=request.now,
        batch=MOST_CALLS,
        most=MOST_CALLS,
    )
    left = result.calls - result.unchanged - result.total.calls
    words = f"{result.total.calls} calls are charged again: {exact_usd(result.total.delta_nanos)}"
    messages.success(request, f"{words}; {left} are left as they were." if left else f"{words}.")
