"""The page of what needs people: approvals to decide, thresholds that hold, notifications."""

from uuid import UUID

from django.contrib import messages
from django.db.models import F
from django.http import Http404, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from budgets.dashboard.forms import parse_amount
from budgets.dashboard.places import Places
from budgets.domain.approvals import approve, deny_approval
from budgets.domain.notifications import mark_seen
from budgets.domain.thresholds import lift_firing
from budgets.errors import (
    ApprovalClosedError,
    ApprovalNotFoundError,
    BudgetValidationError,
    FiringNotFoundError,
)
from budgets.models import ApprovalRequest, Notification, RejectedEvent, ThresholdFiring
from controlplane.dashboard.web import PageRequest, page, show, writing
from enforcement.rules.thresholds import line_of, read_thresholds

SHOWN = 100
REJECTED_SHOWN = 10


@page
def alerts(request: PageRequest) -> HttpResponse:
    places = Places(request.organization)
    approvals = ApprovalRequest.objects.select_related("budget", "balance").filter(
        organization=request.organization
    )
    pending = approvals.filter(state="pending").order_by("-asked_at", "-id")[:SHOWN]
    firings = (
        ThresholdFiring.objects.select_related("budget", "balance")
        .filter(organization=request.organization, rearmed_at__isnull=True)
        .order_by("-fired_at", "-id")[:SHOWN]
    )
    told = Notification.objects.filter(organization=request.organization)
    aside = RejectedEvent.objects.filter(organization=request.organization)
    context = {
        "section": "alerts",
        "pending": [(row, _value(places, row)) for row in pending],
        "decided": approvals.exclude(state="pending").order_by(F("decided_at").desc())[:10],
        "firings": [(row, _value(places, row), words_of(row)) for row in firings],
        "notifications": told.order_by("-created_at", "-id")[:SHOWN],
        "rejected": aside.order_by("-received_at", "-id")[:REJECTED_SHOWN],
        "rejected_count": aside.count(),
        "unseen": told.filter(seen_at__isnull=True).count(),
    }
    return show(request, "budgets/alerts.html", context, fragment="budgets/_alerts.html")


def _value(places: Places, row: ApprovalRequest | ThresholdFiring) -> str:
    value = row.balance.value
    return places.value_label(row.budget.per, value) if value else ""


def words_of(firing: ThresholdFiring) -> str:
    """`90% forecast: notify, pause`."""
    data = {"percent": firing.percent, "basis": firing.basis, "actions": firing.actions}
    return line_of(read_thresholds([data])[0])


@require_POST
@writing
def decide(request: PageRequest, approval_id: UUID) -> HttpResponse:
    asked = (
        ApprovalRequest.objects.filter(organization=request.organization, id=approval_id)
        .select_related("budget")
        .first()
    )
    if asked is None:
        raise Http404
    reason, given = request.POST.get("reason", ""), request.POST.get("amount", "").strip()
    common = {"organization_id": request.organization.id, "approval_id": approval_id}
    try:
        if "deny" in request.POST:
            deny_approval(**common, actor=request.actor, reason=reason, now=request.now)
            messages.success(request, "Denied.")
        else:
            amount = parse_amount(given, asked.budget.unit) if given else None
            approve(**common, amount=amount, actor=request.actor, reason=reason, now=request.now)
            messages.success(request, "Approved. The balance has more from now on.")
    except ApprovalNotFoundError as error:
        raise Http404 from error
    except (ApprovalClosedError, BudgetValidationError, ValueError) as error:
        messages.warning(request, f"{str(error)[:1].upper()}{str(error)[1:]}.")
    return redirect("budgets:alerts")


@require_POST
@writing
def lift(request: PageRequest, firing_id: UUID) -> HttpResponse:
    try:
        lift_firing(
            organization_id=request.organization.id,
            firing_id=firing_id,
            actor=request.actor,
            reason=request.POST.get("reason", ""),
            now=request.now,
        )
    except FiringNotFoundError as error:
        raise Http404 from error
    except BudgetValidationError as error:
        messages.warning(request, f"{error.message[:1].upper()}{error.message[1:]}.")
    else:
        messages.success(request, "Lifted. Sidecars learn of it within a second.")
    return redirect("budgets:alerts")


@require_POST
@writing
def seen(request: PageRequest) -> HttpResponse:
    mark_seen(
        organization_id=request.organization.id,
        notification_id=None,
        actor=request.actor,
        now=request.now,
    )
    return redirect("budgets:alerts")
