"""Pages of agents: list, create, edit, one agent, its keys."""

from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.db.models import Q
from django.http import Http404, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from controlplane.dashboard.formats import exact_usd
from controlplane.dashboard.paging import paginate
from controlplane.dashboard.web import PageRequest, csv_file, page, show, writing
from controlplane.identity.domain import (
    change_agent,
    create_agent,
    issue_agent_key,
    retire_agent,
    revoke_agent_key,
)
from controlplane.identity.enums import State
from controlplane.identity.errors import IdentityError, SlugTakenError
from controlplane.identity.models import Agent
from enforcement.dashboard.agent_page import agent_context
from enforcement.dashboard.agents import agent_rows, agents_of
from enforcement.dashboard.forms import AgentForm, KeyForm, ReasonForm

PAGE_SIZE = 50
KEY_IN_SESSION = "new_agent_key"


@page
def agent_list(request: PageRequest) -> HttpResponse:
    query, state = request.GET.get("q", "").strip(), request.GET.get("state", "")
    rows = agents_of(request.organization).filter(retired_at=None)
    if query:
        rows = rows.filter(Q(name__icontains=query) | Q(slug__icontains=query))
    if state in State.values:
        rows = rows.filter(state=state)
    found, pager = paginate(request, rows, size=PAGE_SIZE)
    context = {
        "section": "agents",
        "agents": agent_rows(request.organization, now=request.now, agents=found),
        "pager": pager,
        "query": query,
        "state": state,
        "states": State.values,
    }
    return show(request, "enforcement/agents.html", context, fragment="enforcement/_agents.html")


@page
def export(request: PageRequest) -> HttpResponse:
    head = (
        "agent", "slug", "place", "state", "owner", "calls today", "cut today", "refused today",
        "tokens today", "spent today", "last call",
    )  # fmt: skip
    rows = [
        (
            row.name, row.slug, row.place, row.state, row.owner, row.calls, row.cut, row.refused,
            row.tokens, exact_usd(row.charge_nanos).lstrip("$"),
            row.last_call_at.isoformat() if row.last_call_at else "",
        )
        for row in agent_rows(request.organization, now=request.now)
    ]  # fmt: skip
    return csv_file("agents", head, rows)


@page
def detail(request: PageRequest, agent_id: UUID) -> HttpResponse:
    agent = find_agent(request, agent_id)
    context = {
        "section": "agents",
        **agent_context(agent, now=request.now),
        "key_form": KeyForm(auto_id="key-%s"),
        "sidecar_url": settings.SIDECAR_URL,
        "new_key": None,
    }
    if request.headers.get("HX-Request") != "true":  # the live fragment has no room for a secret
        kept = request.session.get(KEY_IN_SESSION)
        if kept and kept["agent"] == str(agent.id):
            context["new_key"] = request.session.pop(KEY_IN_SESSION)
    return show(request, "enforcement/agent.html", context, fragment="enforcement/_agent_live.html")


@writing
def create(request: PageRequest) -> HttpResponse:
    posted = request.POST if request.method == "POST" else None
    form = AgentForm(posted, organization=request.organization)
    if posted is not None and form.is_valid():
        try:
            agent = create_agent(
                organization_id=request.organization.id,
                actor=request.actor,
                now=request.now,
                **form.wishes(),
            )
        except SlugTakenError as error:
            form.add_error("slug", str(error))
        except IdentityError as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, f"{agent.name} exists. Issue a key so that it can call.")
            return redirect("enforcement:agent", agent.id)
    context = {"title": "New agent", "submit": "Create agent", "form": form}
    return _form_page(request, {**context, "back_url": reverse("enforcement:agents")})


@writing
def edit(request: PageRequest, agent_id: UUID) -> HttpResponse:
    agent = find_agent(request, agent_id)
    posted = request.POST if request.method == "POST" else None
    form = AgentForm(posted, organization=request.organization, agent=agent)
    if posted is not None and form.is_valid():
        try:
            change_agent(
                organization_id=request.organization.id,
                agent_id=agent.id,
                changes=form.wishes(),
                actor=request.actor,
                now=request.now,
            )
        except IdentityError as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, "Saved. Sidecars learn of it within a second.")
            return redirect("enforcement:agent", agent.id)
    context = {"title": f"Edit {agent.name}", "submit": "Save", "form": form, "agent": agent}
    back_url = reverse("enforcement:agent", args=[agent.id])
    return _form_page(request, {**context, "back_url": back_url})


@writing
def retire(request: PageRequest, agent_id: UUID) -> HttpResponse:
    """End an agent for ever. The order cuts its streams; its keys and its slug are gone."""
    agent = find_agent(request, agent_id)
    form = ReasonForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            retire_agent(
                organization_id=request.organization.id,
                agent_id=agent.id,
                reason=form.cleaned_data["reason"],
                actor=request.actor,
                now=request.now,
            )
        except IdentityError as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, f"{agent.name} is retired. Its history stays.")
            return redirect("enforcement:agents")
    context = {"section": "agents", "agent": agent, "form": form}
    status = 422 if form.is_bound else 200
    return show(request, "enforcement/retire.html", context, status=status)


@require_POST
@writing
def key_issue(request: PageRequest, agent_id: UUID) -> HttpResponse:
    agent = find_agent(request, agent_id)
    form = KeyForm(request.POST)
    if not form.is_valid():
        messages.error(request, "Give the key a name, so that people know what uses it.")
        return redirect("enforcement:agent", agent.id)
    issued = issue_agent_key(
        organization_id=request.organization.id,
        agent_id=agent.id,
        name=form.cleaned_data["name"],
        actor=request.actor,
        now=request.now,
    )
    request.session[KEY_IN_SESSION] = {
        "agent": str(agent.id),
        "name": issued.key.name,
        "secret": issued.secret,
    }
    return redirect("enforcement:agent", agent.id)


@require_POST
@writing
def key_revoke(request: PageRequest, agent_id: UUID, key_id: UUID) -> HttpResponse:
    agent = find_agent(request, agent_id)
    if not agent.keys.filter(id=key_id).exists():
        raise Http404
    key = revoke_agent_key(
        organization_id=request.organization.id,
        key_id=key_id,
        actor=request.actor,
        now=request.now,
    )
    messages.success(request, f"{key.name} is revoked. Sidecars refuse it within a second.")
    return redirect("enforcement:agent", agent.id)


def find_agent(request: PageRequest, agent_id: UUID) -> Agent:
    """The agent, of this organization only."""
    agent = agents_of(request.organization).filter(id=agent_id).first()
    if agent is None:
        raise Http404
    return agent


def _form_page(request: PageRequest, context: dict[str, Any]) -> HttpResponse:
    status = 422 if context["form"].is_bound else 200
    context["section"] = "agents"
    return show(request, "enforcement/agent_form.html", context, status=status)
