"""Pages that plan a change of a limit, and cancel one."""

from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django import forms
from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from budgets.dashboard.forms import parse_amount
from budgets.domain.changes import cancel_change, plan_change
from budgets.enums import ChangeKind
from budgets.errors import BudgetValidationError, ChangeClosedError, ChangeNotFoundError
from budgets.models import Budget
from controlplane.dashboard.localforms import InstantField, LocalForm
from controlplane.dashboard.web import PageRequest, show, writing

KINDS = [
    (ChangeKind.INCREASE.value, "More for a while: the limit is higher until it ends"),
    (ChangeKind.LIMIT.value, "Another limit: from then on, without an end"),
]


class ChangeForm(LocalForm):
    """A change to plan, with instants in the organization's time zone."""

    kind = forms.ChoiceField(
        label="What changes", choices=KINDS, widget=forms.RadioSelect, initial=KINDS[0][0]
    )
    amount = forms.CharField(help_text="How much more, or the new limit.")
    starts_at = InstantField(label="From", required=False, help_text="Empty: from now on.")
    ends_at = InstantField(label="Until", required=False, help_text="Of an increase.")
    reason = forms.CharField(max_length=500, help_text="Kept in the audit trail with your name.")
    layout = (
        ("kind", ""),
        ("amount", "field-third"),
        ("starts_at", "field-third"),
        ("ends_at", "field-third"),
        ("reason", ""),
    )

    def __init__(self, *args: Any, unit: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unit = unit

    def clean_amount(self) -> int:
        try:
            return parse_amount(self.cleaned_data["amount"], self._unit)
        except ValueError as error:
            raise forms.ValidationError(str(error)) from error


@writing
def plan(request: PageRequest, budget_id: UUID) -> HttpResponse:
    budget = Budget.objects.filter(
        organization=request.organization, id=budget_id, archived_at=None
    ).first()
    if budget is None:
        raise Http404
    zone = ZoneInfo(request.organization.time_zone)
    posted = request.POST if request.method == "POST" else None
    form = ChangeForm(posted, unit=budget.unit, zone=zone)
    if form.is_valid():
        values = form.cleaned_data
        try:
            plan_change(
                organization_id=request.organization.id,
                budget_id=budget.id,
                kind=ChangeKind(values["kind"]),
                amount=values["amount"],
                starts_at=values["starts_at"],
                ends_at=values["ends_at"],
                actor=request.actor,
                reason=values["reason"],
                now=request.now,
            )
        except BudgetValidationError as error:
            form.refuse(error.field, error.message)
        else:
            messages.success(request, "Planned. Sidecars learn of it when it begins.")
            return redirect("enforcement:budget", budget.id)
    context = {"section": "budgets", "budget": budget, "form": form, "zone": zone.key}
    status = 422 if form.is_bound else 200
    return show(request, "budgets/change.html", context, status=status)


@require_POST
@writing
def cancel(request: PageRequest, budget_id: UUID, change_id: UUID) -> HttpResponse:
    try:
        cancel_change(
            organization_id=request.organization.id,
            change_id=change_id,
            actor=request.actor,
            now=request.now,
        )
    except ChangeNotFoundError as error:
        raise Http404 from error
    except ChangeClosedError as error:
        messages.warning(request, f"{str(error).capitalize()} already.")
    else:
        messages.success(request, "Cancelled.")
    return redirect("enforcement:budget", budget_id)
