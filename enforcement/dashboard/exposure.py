"""The page of one budget: its exposure now, and which sidecars hold its leases."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.http import Http404, HttpResponse
from django.urls import reverse

from budgets import queries
from budgets.dashboard.exposures import Exposure, balances_of, exposure_of_row, window_label
from budgets.dashboard.forms import HOLD_MODES, MODES, UNITS
from budgets.dashboard.places import Places
from budgets.domain.thresholds import thresholds_of
from budgets.enums import LIVE_LEASE_STATES, TERMINAL_LEASE_STATES
from budgets.models import Budget, Lease
from budgets.queries import BudgetRow
from controlplane.dashboard.formats import amount
from controlplane.dashboard.history import history_of
from controlplane.dashboard.web import PageRequest, page, show
from enforcement.dashboard.fleet import book_label
from enforcement.models import Spool
from enforcement.rules.policy import HoldMode, Mode, Per
from enforcement.rules.thresholds import line_of

CHANGES_SHOWN = 20
BALANCES_SHOWN = 20
LEASES_SHOWN = 25


@dataclass(frozen=True)
class LeaseRow:
    id: UUID
    holder: str
    state: str
    value_label: str
    amount: int
    used: int
    open: int
    returned: int
    expires_at: datetime
    closed_at: datetime | None

    @property
    def is_final(self) -> bool:
        return self.state in TERMINAL_LEASE_STATES


@dataclass(frozen=True)
class CoursePoint:
    """A corner of the burn-down: used up to this instant."""

    at: datetime
    used: int
    label: str

    @property
    def epoch(self) -> int:
        return int(self.at.timestamp())


@page
def budget(request: PageRequest, budget_id: UUID) -> HttpResponse:
    found = (
        Budget.objects.filter(organization=request.organization, id=budget_id)
        .select_related("organization")
        .first()
    )
    if found is None:
        raise Http404
    places = Places(request.organization)
    row = queries.budget_row(found, now=request.now)
    fullest = exposure_of_row(row, now=request.now) if row.balance else None
    balances, count = balances_of(found, now=request.now, most=BALANCES_SHOWN)
    context = {
        "section": "budgets",
        "budget": found,
        "state": "archived" if found.archived_at else found.state,
        "scope_label": places.get(found.scope_id).label,
        "window_label": window_label(found),
        "exposure": _labelled(fullest, places) if fullest else None,
        "balances": [_labelled(balance, places) for balance in balances] if found.per else [],
        "balance_count": count,
        "leases": _leases(found, places),
        "course": _course(row, now=request.now),
        "changes": found.changes.order_by("closed_at", "-starts_at")[:CHANGES_SHOWN],
        "thresholds": [line_of(threshold) for threshold in thresholds_of(found)],
        "history": history_of(
            organization_id=found.organization_id, object_kind="budget", object_id=found.id
        ),
        **_words(found),
    }
    return show(request, "enforcement/budget.html", context, fragment="enforcement/_exposure.html")


def _course(row: BudgetRow, *, now: datetime) -> list[CoursePoint]:
    """How the fullest balance was used up, for the chart."""
    if row.balance is None:
        return []
    zone, unit = ZoneInfo(row.budget.organization.time_zone), row.budget.unit
    return [
        CoursePoint(
            at=point.at,
            used=point.used,
            label=f"{point.at.astimezone(zone):%-d %b %H:%M} · {amount(point.used, unit)}",
        )
        for point in queries.burn_down(row.balance, now=now)
    ]


def _labelled(exposure: Exposure, places: Places) -> Exposure:
    label = places.value_label(exposure.budget.per, exposure.value)
    return replace(exposure, value_label=label)


def _leases(budget: Budget, places: Places) -> list[LeaseRow]:
    """Live leases, then the latest finished ones. Two queries."""
    rows = Lease.objects.filter(balance__budget=budget).select_related("balance")
    live = list(rows.filter(state__in=LIVE_LEASE_STATES).order_by("-granted_at")[:LEASES_SHOWN])
    if len(live) < LEASES_SHOWN:
        final = rows.filter(state__in=TERMINAL_LEASE_STATES).order_by("-granted_at")
        live += final[: min(5, LEASES_SHOWN - len(live))]
    spools = Spool.objects.filter(id__in={lease.spool for lease in live})
    holders = {spool.id: spool for spool in spools.select_related("sidecar")}
    return [_lease_row(lease, holders.get(lease.spool), budget, places) for lease in live]


def _lease_row(lease: Lease, spool: Spool | None, budget: Budget, places: Places) -> LeaseRow:
    return LeaseRow(
        id=lease.id,
        holder=book_label(spool) if spool else "a sidecar that is gone",
        state=lease.state,
        value_label=places.value_label(budget.per, lease.balance.value),
        amount=lease.amount,
        used=lease.used_amount + lease.overrun_amount,
        open=lease.open_amount,
        returned=lease.returned_amount,
        expires_at=lease.expires_at,
        closed_at=lease.closed_at,
    )


def _words(budget: Budget) -> dict[str, Any]:
    """The budget's choices, in the words of its form."""
    strict = budget.hold_mode == HoldMode.STRICT
    return {
        "unit_label": dict(UNITS)[budget.unit],
        "mode_label": dict(MODES)[budget.mode],
        "hold_label": dict(HOLD_MODES)[budget.hold_mode] if budget.mode == Mode.HARD else "",
        "bound_label": (
            "0 past the limit: each call holds its worst case first"
            if strict
            else "one margin for each running stream: rate × (metering + abort time)"
        ),
        "split_label": "" if budget.per == Per.NONE else f"each {budget.per}",
        "list_url": reverse("budgets:list"),
    }
