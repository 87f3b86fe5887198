"""Pages of budgets: the tree, create, edit, archive."""

from functools import partial
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.urls import reverse

from budgets import queries
from budgets.dashboard.exposures import exposure_of_row
from budgets.dashboard.forms import ArchiveForm, BudgetForm, LimitForm, limit_initial
from budgets.dashboard.places import Places
from budgets.dashboard.tree import tree_rows
from budgets.domain.budgets import archive_budget, change_budget, create_budget
from budgets.errors import BudgetValidationError
from budgets.models import Budget
from controlplane.dashboard.formats import exact_amount
from controlplane.dashboard.web import PageRequest, csv_file, page, show, writing


@page
def budget_list(request: PageRequest) -> HttpResponse:
    archived = request.GET.get("archived") == "1"
    nodes = queries.tree(request.organization, now=request.now, archived=archived)
    context = {
        "section": "budgets",
        "archived": archived,
        "tree": tree_rows(nodes, Places(request.organization), now=request.now),
        "budget_count": sum(len(node.budgets) for node in nodes if node.kind != "session"),
    }
    return show(request, "budgets/list.html", context, fragment="budgets/_tree.html")


@page
def export(request: PageRequest) -> HttpResponse:
    places = Places(request.organization)
    head = (
        "budget",
        "scope",
        "split",
        "mode",
        "unit",
        "window",
        "window starts",
        "window ends",
        "limit",
        "spent",
        "held",
        "suspense",
        "overrun",
        "free",
    )
    rows = []
    for row in queries.budget_rows(request.organization, now=request.now):
        shown, budget = exposure_of_row(row, now=request.now), row.budget
        amounts = (shown.limit, shown.spent, shown.held, shown.suspense, shown.overrun, shown.free)
        rows.append(
            (
                budget.name,
                places.get(budget.scope_id).label,
                budget.per or "none",
                budget.mode,
                budget.unit,
                shown.window_label,
                shown.window_start.isoformat(),
                shown.window_end.isoformat() if shown.window_end else "",
                *(exact_amount(value, budget.unit).lstrip("$") for value in amounts),
            )
        )
    return csv_file("budgets", head, rows)


@writing
def create(request: PageRequest) -> HttpResponse:
    make = partial(BudgetForm, places=Places(request.organization))
    form = make(request.POST) if request.method == "POST" else make(initial=_initial(request))
    if request.method == "POST" and form.is_valid():
        try:
            budget = create_budget(
                organization_id=request.organization.id,
                spec=form.spec(),
                actor=request.actor,
                now=request.now,
                reason=form.cleaned_data["reason"],
            )
        except BudgetValidationError as error:
            form.refuse(error)
        else:
            messages.success(request, f"{budget.name} counts from now on.")
            return redirect("enforcement:budget", budget.id)
    return _form_page(
        request, form, title="New budget", submit="Create budget", back_url=reverse("budgets:list")
    )


def _initial(request: PageRequest) -> dict[str, Any]:
    scope = request.GET.get("scope", f"organization:{request.organization.id}")
    return {
        "scope": scope,
        "time_zone": request.organization.time_zone,
        "mode": "hard",
        "hold_mode": "strict",
    }


@writing
def edit(request: PageRequest, budget_id: UUID) -> HttpResponse:
    budget = _find(request, budget_id)
    posted = request.POST if request.method == "POST" else None
    form = LimitForm(posted, unit=budget.unit, initial=limit_initial(budget))
    if posted is not None and form.is_valid():
        try:
            change_budget(
                organization_id=request.organization.id,
                budget_id=budget.id,
                changes=form.changes(),
                actor=request.actor,
                now=request.now,
                reason=form.cleaned_data["reason"],
            )
        except BudgetValidationError as error:
            form.refuse(error)
        else:
            messages.success(request, "Saved. Sidecars learn of it within a second.")
            return redirect("enforcement:budget", budget.id)
    return _form_page(
        request,
        form,
        title=f"Edit {budget.name}",
        submit="Save",
        budget=budget,
        back_url=reverse("enforcement:budget", args=[budget.id]),
    )


@writing
def archive(request: PageRequest, budget_id: UUID) -> HttpResponse:
    budget = _find(request, budget_id)
    form = ArchiveForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            archive_budget(
                organization_id=request.organization.id,
                budget_id=budget.id,
                actor=request.actor,
                now=request.now,
                reason=form.cleaned_data["reason"],
            )
        except BudgetValidationError as error:
            form.add_error(None, error.message)
        else:
            messages.success(request, f"{budget.name} is archived.")
            return HttpResponseRedirect(reverse("budgets:list"))
    context = {"section": "budgets", "budget": budget, "form": form}
    return show(request, "budgets/archive.html", context, status=_status(form))


def _find(request: PageRequest, budget_id: UUID) -> Budget:
    budget = Budget.objects.filter(
        organization=request.organization, id=budget_id, archived_at=None
    ).first()
    if budget is None:
        raise Http404
    return budget


def _form_page(request: PageRequest, form: LimitForm, **context: Any) -> HttpResponse:
    return show(
        request,
        "budgets/form.html",
        {"section": "budgets", "form": form, **context},
        status=_status(form),
    )


def _status(form: Any) -> int:
    return 422 if form.is_bound else 200
