"""The page of efficiency: what serving nodes cost, what they made of it, and for whom."""

from datetime import datetime, timedelta

from django.http import HttpResponse

from controlplane.dashboard.web import PageRequest, csv_file, page, show
from enforcement.domain.efficiency import NodeEfficiency, efficiency

DAYS = {"1": "the last 24 hours", "7": "the last 7 days", "30": "the last 30 days"}
CHARGES_SHOWN = 50


@page
def listing(request: PageRequest) -> HttpResponse:
    since, days = _since(request)
    nodes = _nodes(request, since)
    cost = sum(node.cost_nanos for node in nodes)
    idle = sum(node.idle_nanos for node in nodes)
    charges = [(node, one) for node in nodes for one in node.charges]
    context = {
        "section": "efficiency",
        "nodes": nodes,
        "charges": charges[:CHARGES_SHOWN],
        "charge_count": len(charges),
        "days": days,
        "choices": DAYS.items(),
        "window": DAYS[days],
        "cost_nanos": cost,
        "idle_nanos": idle,
        "tokens": sum(node.tokens for node in nodes),
        "joules": sum(node.energy_millijoules or 0 for node in nodes) // 1_000,
    }
    return show(request, "enforcement/efficiency.html", context)


@page
def export(request: PageRequest) -> HttpResponse:
    """Who the cost was for, line by line."""
    since, _ = _since(request)
    rows = [
        (node.node, one.line, one.agent, one.model, one.cost_nanos, one.tokens)
        for node in _nodes(request, since)
        for one in node.charges
    ]
    return csv_file("chargeback", ("node", "line", "agent", "model", "nanos", "tokens"), rows)


def _since(request: PageRequest) -> tuple[datetime, str]:
    asked = request.GET.get("days", "")
    days = asked if asked in DAYS else "1"
    return request.now - timedelta(days=int(days)), days


def _nodes(request: PageRequest, since: datetime) -> list[NodeEfficiency]:
    return efficiency(
        organization_id=request.organization.id, since=since, until=request.now, now=request.now
    )
