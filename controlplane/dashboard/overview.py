"""The first page: what is spent, held, stopped and at risk, and who is running."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.http import HttpResponse
from django.urls import reverse

from budgets import queries
from budgets.dashboard.exposures import exposure_of_row
from budgets.queries import Spend, Stop
from controlplane.dashboard.formats import usd
from controlplane.dashboard.statuses import OUTCOME
from controlplane.dashboard.web import PageRequest, page, show
from controlplane.identity.models import Agent
from enforcement.dashboard import agents, fleet

HOURS = timedelta(hours=23)  # and the running one
NEAREST, STOPS, AGENTS = 6, 8, 8


@dataclass(frozen=True)
class HourRow:
    """One bar of the chart and its row in the table beside it."""

    start: datetime
    label: str
    spend: Spend

    @property
    def epoch(self) -> int:
        return int(self.start.timestamp())


@dataclass(frozen=True)
class StopRow:
    id: UUID
    at: datetime
    agent_id: UUID | None
    agent: str
    word: str
    tone: str
    icon: str
    note: str


@page
def overview(request: PageRequest) -> HttpResponse:
    context = {"section": "overview", **_money(request), **_fleet(request)}
    return show(request, "dashboard/overview.html", context, fragment="dashboard/_overview.html")


def _money(request: PageRequest) -> dict[str, Any]:
    organization, now = request.organization, request.now
    rows = queries.budget_rows(organization, now=now)
    hours = queries.hourly(organization_id=organization.id, since=_first_hour(now), until=now)
    zone = ZoneInfo(organization.time_zone)
    return {
        "day_start": queries.day_start(organization, now=now),
        "today": queries.today(organization, now=now),
        "held": queries.held_now(organization),
        "risk": queries.risk(rows),
        "budget_url": reverse("budgets:create"),
        "nearest": [exposure_of_row(r, now=now) for r in queries.nearest(rows, count=NEAREST)],
        "hours": [_hour_row(spend, zone) for spend in hours],
        "hours_used": any(spend.calls for spend in hours),
        "stops": [_stop_row(stop) for stop in queries.stops(organization, count=STOPS)],
        "freshness": (freshness := queries.freshness(organization)),
        "start": freshness.last_event_at is None,
    }


def _fleet(request: PageRequest) -> dict[str, Any]:
    organization, now = request.organization, request.now
    activity = agents.Activity.of(organization, now=now)
    return {
        "agents": agents.busiest_rows(organization, activity, most=AGENTS),
        "agent_count": Agent.objects.filter(organization=organization, retired_at=None).count(),
        "agents_url": reverse("enforcement:agent-create"),
        "running": sum(activity.running.values()),
        "links": fleet.link_counts(organization, now=now),
    }


def _first_hour(now: datetime) -> datetime:
    return now.replace(minute=0, second=0, microsecond=0) - HOURS


def _hour_row(spend: Spend, zone: ZoneInfo) -> HourRow:
    assert spend.hour is not None  # noqa: S101 -- `hourly` names each hour
    local = spend.hour.astimezone(zone)
    words = f"{local:%-d %b %H:%M} · {usd(spend.charge_nanos)} · {spend.calls:,} calls"
    return HourRow(start=spend.hour, label=words, spend=spend)


def _stop_row(stop: Stop) -> StopRow:
    status = OUTCOME.get(stop.word, OUTCOME["refused"])
    times = f" {stop.count:,} times" if stop.count > 1 else ""
    note = stop.note or stop.code.replace("_", " ")
    return StopRow(
        id=stop.id,
        at=stop.at,
        agent_id=stop.agent_id,
        agent=stop.agent,
        word=f"{status.label.lower()}{times}",
        tone=status.tone,
        icon=status.icon,
        note=f"{stop.model}: {note}" if stop.model else note,
    )
