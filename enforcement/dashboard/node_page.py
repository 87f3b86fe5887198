"""The page of one serving node: what it is, what it costs, in and out of service."""

from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from controlplane.dashboard.history import history_of
from controlplane.dashboard.web import PageRequest, page, show, writing
from controlplane.identity.domain import find
from enforcement.dashboard.forms import NodeCostForm
from enforcement.domain.causes import has_counters
from enforcement.domain.nodecosts import as_rule, record_cost
from enforcement.domain.nodes import health_of, set_node_state
from enforcement.enums import NodeState
from enforcement.errors import NodeCostError, NodeStateError
from enforcement.models import NodeCost, NodeSample, ServingNode
from enforcement.rules.nodecost import cost_at, in_force

COSTS_SHOWN = 20
DEVICES_SHOWN = 16
WORDS = {
    "drain": (NodeState.DRAINING, "gets no new calls; what runs on it goes on."),
    "activate": (NodeState.ACTIVE, "is in service."),
    "remove": (NodeState.GONE, "is removed. Its history stays."),
}


@page
def detail(request: PageRequest, node_id: UUID) -> HttpResponse:
    node = _find(request, node_id)
    rows = list(node.costs.order_by("-valid_from", "-pk"))
    costs = [as_rule(row) for row in rows]
    cost, held = cost_at(costs, request.now), {one.order for one in in_force(costs)}
    context = {
        "section": "nodes",
        "node": node,
        "state": health_of(node, now=request.now),
        "labels": sorted(node.labels.items()),
        "sample": NodeSample.objects.filter(node=node).order_by("-at").first(),
        "has_counters": has_counters(node),
        "devices": _devices(node),
        "cost": cost,
        "costs": [(row, row.pk in held) for row in rows[:COSTS_SHOWN]],
        "history": history_of(
            organization_id=request.organization.id, object_kind="node", object_id=node.pk
        ),
    }
    return show(request, "enforcement/node.html", context)


@writing
def cost(request: PageRequest, node_id: UUID) -> HttpResponse:
    """Record what its hours cost."""
    node = _find(request, node_id)
    form = NodeCostForm(request.POST if request.method == "POST" else None, initial=_usual(node))
    if request.method == "POST" and form.is_valid():
        try:
            record_cost(
                organization_id=request.organization.id,
                node_id=node.pk,
                actor=request.actor,
                now=request.now,
                **form.wishes(),
            )
        except NodeCostError as error:
            form.add_error(None, f"{error}.")
        else:
            messages.success(request, f"The cost of {node.name} is recorded.")
            return redirect("enforcement:node", node.pk)
    context = {"section": "nodes", "node": node, "form": form}
    status = 422 if form.is_bound else 200
    return show(request, "enforcement/node_cost.html", context, status=status)


@require_POST
@writing
def state(request: PageRequest, node_id: UUID, verb: str) -> HttpResponse:
    """Drain, activate, remove."""
    if verb not in WORDS:
        raise Http404(verb)
    wanted, words = WORDS[verb]
    try:
        node = set_node_state(
            organization_id=request.organization.id,
            node_id=node_id,
            state=wanted,
            reason="",
            actor=request.actor,
            now=request.now,
        )
    except NodeStateError as error:
        messages.error(request, f"Nothing was changed: {error}.")
    else:
        messages.success(request, f"{node.name} {words}")
    return redirect("enforcement:node", node_id)


def _find(request: PageRequest, node_id: UUID) -> ServingNode:
    return find(ServingNode, organization_id=request.organization.id, object_id=node_id)


def _devices(node: ServingNode) -> list[dict[str, object]]:
    """The devices of its last reading."""
    last = node.device_samples.order_by("-at").first()
    if last is None:
        return []
    rows = node.device_samples.filter(at=last.at).order_by("device")[:DEVICES_SHOWN]
    return [
        {
            "name": row.device,
            "model": row.model,
            "busy": None if row.busy_permille is None else f"{row.busy_permille // 10} %",
            "power": None if row.power_milliwatts is None else f"{row.power_milliwatts // 1000} W",
        }
        for row in rows
    ]


def _usual(node: ServingNode) -> dict[str, object]:
    """What stands there changes seldom: the form begins with what was said last."""
    last = NodeCost.objects.filter(node=node).order_by("-valid_from", "-pk").first()
    if last is None:
        return {}
    return {
        "accelerator": last.accelerator,
        "accelerator_count": last.accelerator_count or None,
        "watts": last.watts,
    }
