"""Kill, pause and resume an agent: ask first, then show who has acknowledged."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.http import Http404, HttpResponse
from django.shortcuts import redirect

from controlplane.dashboard.formats import amount, span
from controlplane.dashboard.web import PageRequest, page, show, writing
from controlplane.identity.errors import IdentityError
from controlplane.identity.models import Agent
from enforcement.dashboard.agent_views import find_agent
from enforcement.dashboard.agents import place_of
from enforcement.dashboard.fleet import (
    book_label,
    link_counts,
    running_by_agent,
)
from enforcement.dashboard.forms import ResumeForm, StopForm
from enforcement.domain.orders import order_agent, order_session
from enforcement.errors import EnforcementError
from enforcement.models import Order, OrderAcknowledgement, Spool
from enforcement.queries import Exposure, exposures, running_sessions, waiting_for
from enforcement.rules.policy import OrderKind, ScopeKind

STEPS = {
    OrderKind.KILL: (
        "New calls of this agent are refused with 403 on every sidecar.",
        "Its running streams are ended: the caller gets a proper last event, the engine stops.",
        "What was used is settled, the rest of its holds goes back to its budgets.",
        "Its keys stay, so that you can resume it.",
    ),
    OrderKind.PAUSE: (
        "New calls of this agent are refused with 403 on every sidecar.",
        "Running streams are ended the same way as by a kill.",
        "Its keys and budgets stay as they are.",
    ),
    OrderKind.RESUME: (
        "New calls of this agent are let through again, within its budgets.",
        "Streams that were cut do not come back; the agent must ask again.",
    ),
}
SYMBOLS = {OrderKind.KILL: "octagon-x", OrderKind.PAUSE: "pause", OrderKind.RESUME: "play"}


@dataclass(frozen=True, kw_only=True)
class ReceiptRow:
    """A book that should acknowledge an order, and what it said."""

    spool: UUID
    name: str
    is_acknowledged: bool
    note: str = ""
    streams_cut: int = 0
    tokens_after: int = 0
    last_byte_ms: int | None = None
    after_ms: int | None = None

    @property
    def state(self) -> str:
        return "acknowledged" if self.is_acknowledged else "waiting"


@writing
def intervene(request: PageRequest, agent_id: UUID, kind: str) -> HttpResponse:
    agent = find_agent(request, agent_id)
    if kind not in STEPS:
        raise Http404
    order_kind = OrderKind(kind)
    kind_of_form = ResumeForm if order_kind is OrderKind.RESUME else StopForm
    posted = request.POST if request.method == "POST" else None
    form = kind_of_form(posted, initial={"session": request.GET.get("session", "")})
    if request.method == "POST" and form.is_valid():
        try:
            order = _send(request, agent, order_kind, form.cleaned_data)
        except (IdentityError, EnforcementError) as error:
            form.add_error(None, str(error))
        else:
            return redirect("enforcement:receipt", order.id)
    context = {"form": form, **_consequences(agent, order_kind, now=request.now)}
    status = 422 if form.is_bound else 200
    return show(request, "enforcement/intervene.html", context, status=status)


def _send(request: PageRequest, agent: Agent, kind: OrderKind, wish: dict[str, Any]) -> Order:
    wishes: dict[str, Any] = {
        "organization_id": request.organization.id,
        "agent_id": agent.id,
        "kind": kind,
        "reason": wish["reason"],
        "drain": wish.get("drain", False),
        "actor": request.actor,
        "now": request.now,
    }
    if wish["session"]:
        return order_session(session=wish["session"], **wishes)
    return order_agent(**wishes)


def _consequences(agent: Agent, kind: OrderKind, *, now: datetime) -> dict[str, Any]:
    """What the order will do, before anybody gives it."""
    links = link_counts(agent.organization, now=now)
    running = running_by_agent(running_sessions(agent.organization, now=now))
    return {
        "section": "agents",
        "agent": agent,
        "place": place_of(agent),
        "kind": kind.value,
        "verb": kind.value.capitalize(),
        "symbol": SYMBOLS[kind],
        "steps": STEPS[kind],
        "running_requests": running.get(agent.id, 0),
        "online": links.online,
        "unreachable": links.unreachable,
    }


@page
def receipt(request: PageRequest, order_id: UUID) -> HttpResponse:
    order = Order.objects.filter(organization=request.organization, id=order_id).first()
    if order is None:
        raise Http404
    agent = None
    if order.scope_kind in (ScopeKind.AGENT, ScopeKind.SESSION):
        agent = Agent.objects.filter(organization=request.organization, id=order.scope_id).first()
    receipts = receipts_of(order, now=request.now)
    context = {
        "section": "agents",
        "order": order,
        "agent": agent,
        "order_words": _words(order, agent),
        "receipts": receipts,
        "summary": summary_of(receipts),
    }
    return show(request, "enforcement/receipt.html", context, fragment="enforcement/_receipt.html")


def _words(order: Order, agent: Agent | None) -> str:
    verb = OrderKind(order.kind).value.capitalize()
    whom = agent.name if agent else order.scope_kind
    session = f", session {order.scope_session}" if order.scope_session else ""
    return f"{verb} {whom}{session}" + (", letting calls end" if order.drain else "")


def receipts_of(order: Order, *, now: datetime) -> list[ReceiptRow]:
    """Books that acknowledged, and those that live and have not. Three queries."""
    acknowledged = order.acknowledgements.select_related("spool__sidecar").order_by("at")
    rows = [_acknowledged(row, order) for row in acknowledged]
    waiting = list(waiting_for(order))
    out = exposures([spool.id for spool in waiting])
    return rows + [_waiting(spool, out.get(spool.id, []), now=now) for spool in waiting]


def _acknowledged(row: OrderAcknowledgement, order: Order) -> ReceiptRow:
    return ReceiptRow(
        spool=row.spool_id,
        name=book_label(row.spool),
        is_acknowledged=True,
        streams_cut=row.streams_cut,
        tokens_after=row.tokens_after,
        last_byte_ms=row.last_byte_ms if row.streams_cut else None,
        after_ms=max(0, int((row.at - order.created_at).total_seconds() * 1000)),
    )


def _waiting(spool: Spool, out: list[Exposure], *, now: datetime) -> ReceiptRow:
    """A book that is cut off stops by itself when its policy lease runs out (L12)."""
    note = "its policy lease has run out: it lets nothing through"
    if spool.policy_valid_until > now:
        blind = span(spool.policy_valid_until - now)
        held = ", ".join(amount(row.leased, row.unit) for row in out if row.leased)
        note = f"can let calls through for {blind}"
        note += f", within {held} that it has leased" if held else ", but has nothing leased"
    return ReceiptRow(spool=spool.id, name=book_label(spool), is_acknowledged=False, note=note)


def summary_of(receipts: list[ReceiptRow]) -> dict[str, Any]:
    answered = [row for row in receipts if row.is_acknowledged]
    bytes_ms = [row.last_byte_ms for row in answered if row.last_byte_ms is not None]
    after_ms = [row.after_ms for row in answered if row.after_ms is not None]
    return {
        "expected": len(receipts),
        "acknowledged": len(answered),
        "is_complete": bool(receipts) and len(answered) == len(receipts),
        "streams_cut": sum(row.streams_cut for row in answered),
        "tokens_after": sum(row.tokens_after for row in answered),
        "last_byte_ms": max(bytes_ms, default=None),
        "slowest_ms": max(after_ms, default=None),
    }
