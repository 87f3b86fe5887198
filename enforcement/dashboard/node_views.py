"""Pages of serving nodes and sidecars."""

from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from controlplane.dashboard.web import PageRequest, csv_file, page, show, writing
from enforcement.dashboard.fleet import sidecar_rows
from enforcement.dashboard.forms import SidecarForm
from enforcement.dashboard.nodes import node_rows
from enforcement.domain.enrolment import enrol_sidecar, revoke_sidecar
from enforcement.errors import SidecarNameTakenError


@page
def node_list(request: PageRequest) -> HttpResponse:
    sidecars = sidecar_rows(request.organization, now=request.now)
    context = {
        "section": "nodes",
        "nodes": node_rows(request.organization, now=request.now),
        "sidecars": sidecars,
        "online": sum(row.link == "online" for row in sidecars),
    }
    return show(request, "enforcement/nodes.html", context, fragment="enforcement/_nodes.html")


@page
def export(request: PageRequest) -> HttpResponse:
    head = (
        "node", "engine", "version", "state", "models", "produced today", "metered today",
        "unattributed today", "likely cause", "last read",
    )  # fmt: skip
    rows = [
        (
            row.name, row.engine, row.engine_version, row.state, " ".join(row.models),
            row.produced, row.metered, row.unattributed, row.cause,
            row.last_scraped_at.isoformat() if row.last_scraped_at else "",
        )
        for row in node_rows(request.organization, now=request.now)
    ]  # fmt: skip
    return csv_file("nodes", head, rows)


@require_POST
@writing
def revoke(request: PageRequest, sidecar_id: UUID) -> HttpResponse:
    """Take a sidecar's token away; what it has leased is accounted for as usual."""
    sidecar = revoke_sidecar(
        organization_id=request.organization.id,
        sidecar_id=sidecar_id,
        actor=request.actor,
        now=request.now,
    )
    messages.success(request, f"{sidecar.name} can neither lease nor report any more.")
    return redirect("enforcement:nodes")


@writing
def enrol(request: PageRequest) -> HttpResponse:
    """The token is in the answer to the form itself: it is nowhere else, and never again."""
    form = SidecarForm(request.POST if request.method == "POST" else None)
    context = {"section": "nodes", "form": form, "control_url": settings.PUBLIC_URL}
    if request.method == "POST" and form.is_valid():
        try:
            enrolled = enrol_sidecar(
                organization_id=request.organization.id,
                name=form.cleaned_data["name"],
                actor=request.actor,
                now=request.now,
            )
        except SidecarNameTakenError:
            form.add_error("name", "Another sidecar has this name.")
        else:
            context |= {"token": enrolled.secret, "name": enrolled.sidecar.name}
            return show(request, "enforcement/sidecar_enrol.html", context)
    status = 422 if form.is_bound else 200
    return show(request, "enforcement/sidecar_enrol.html", context, status=status)
