"""Everything that the page of one agent shows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import Q, Sum

from budgets import queries
from budgets.dashboard.exposures import Exposure, exposures_for_agent, nearest_cap
from budgets.dashboard.places import Places
from budgets.domain.scopes import scopes_above
from budgets.models import Budget, Refusal
from budgets.queries import Spend
from controlplane.dashboard.history import history_of
from controlplane.identity.models import Agent, AgentKey
from enforcement.dashboard.agents import place_of, state_of
from enforcement.dashboard.calls import recent_calls
from enforcement.models import Order
from enforcement.queries import running_sessions
from enforcement.rules.policy import Mode, ScopeKind
from skills.models import SkillGrant
from skills.queries import Judge


class AgentDay(NamedTuple):
    """Use since midnight."""

    spend: Spend
    refused: int

    @property
    def cut(self) -> int:
        return self.spend.cut_calls

    @property
    def stopped(self) -> int:
        return self.spend.cut_calls + self.refused

    @property
    def charge_nanos(self) -> int:
        return self.spend.charge_nanos

    @property
    def calls(self) -> int:
        return self.spend.calls

    @property
    def tokens(self) -> int:
        return self.spend.tokens


class ModelRow(NamedTuple):
    model: str
    provider: str
    calls: int
    charge_nanos: int


class CardRow(NamedTuple):
    card_id: UUID
    name: str
    state: str
    note: str


@dataclass(frozen=True)
class KeyRow:
    id: UUID
    name: str
    prefix: str
    state: str
    expires_at: datetime | None
    last_used_at: datetime | None


def agent_context(agent: Agent, *, now: datetime) -> dict[str, Any]:
    budgets = agent_budgets(agent, now=now)
    running = running_sessions(agent.organization, now=now)
    sessions = [session for session in running if session.agent == str(agent.id)]
    models = _models_today(agent, now=now)
    return {
        "agent": agent,
        "state": state_of(agent),
        "place": place_of(agent),
        "today": _today(agent, now=now),
        "budgets": budgets,
        "nearest": nearest_cap(budgets),
        "sessions": sessions,
        "running_requests": sum(session.running for session in sessions),
        "models": models,
        "example_model": models[0].model if models else "your-model",
        "calls": recent_calls(agent),
        "keys": _keys(agent, now=now),
        "cards": _cards(agent, now=now),
        "card_required": agent.organization.requires_skill_cards,
        "last_order": last_order(agent),
        "history": history_of(
            organization_id=agent.organization_id, object_kind="agent", object_id=agent.id
        ),
    }


def agent_budgets(agent: Agent, *, now: datetime) -> list[Exposure]:
    """Every budget that a call of this agent is charged to, hard ones first."""
    scopes = scopes_above(
        organization_id=agent.organization_id, kind=ScopeKind.AGENT, scope_id=agent.id
    )
    matching = Q()
    for scope in scopes:
        matching |= Q(scope_kind=scope.kind, scope_id=scope.id)
    matching |= Q(scope_kind=ScopeKind.SESSION, scope_id=agent.id)
    budgets = list(
        Budget.objects.filter(matching, organization=agent.organization, archived_at=None)
        .select_related("organization")
        .order_by("name")
    )
    budgets.sort(key=lambda budget: budget.mode != Mode.HARD)
    return _noted(exposures_for_agent(budgets, agent_id=agent.id, now=now), agent)


def _noted(exposures: Sequence[Exposure], agent: Agent) -> list[Exposure]:
    """Each with whose budget it is."""
    places = Places(agent.organization)
    return [replace(row, note=_whose(row.budget, places)) for row in exposures]


def _whose(budget: Budget, places: Places) -> str:
    place = places.get(budget.scope_id)
    label = "Organization" if place == places.root else place.label
    return f"{label}, each {budget.per}" if budget.per else label


def last_order(agent: Agent) -> Order | None:
    orders = Order.objects.filter(
        organization_id=agent.organization_id, scope_kind="agent", scope_id=agent.id
    )
    return orders.order_by("-cursor").first()


def _today(agent: Agent, *, now: datetime) -> AgentDay:
    since = queries.day_start(agent.organization, now=now)
    spend = queries.spend_total(
        organization_id=agent.organization_id, since=since, until=now, agent_id=agent.id
    )
    refusals = Refusal.objects.filter(
        organization_id=agent.organization_id, agent_id=agent.id, at__gte=since
    )
    return AgentDay(spend, int(refusals.aggregate(n=Sum("count"))["n"] or 0))


def _models_today(agent: Agent, *, now: datetime) -> list[ModelRow]:
    rows = queries.spend_by(
        organization_id=agent.organization_id,
        since=queries.day_start(agent.organization, now=now),
        until=now,
        by=("model", "provider"),
        agent_id=agent.id,
    )
    return [ModelRow(r.key[0] or "", r.key[1] or "", r.calls, r.charge_nanos) for r in rows]


def _keys(agent: Agent, *, now: datetime) -> list[KeyRow]:
    """Live keys first, newest first."""
    rows = [_key_row(key, now=now) for key in agent.keys.order_by("-created_at", "-id")]
    return sorted(rows, key=lambda row: row.state != "live")


def _key_row(key: AgentKey, *, now: datetime) -> KeyRow:
    expired = key.expires_at is not None and key.expires_at <= now
    state = "revoked" if key.revoked_at else "expired" if expired else "live"
    return KeyRow(key.id, key.name, key.prefix, state, key.expires_at, key.last_used_at)


def _cards(agent: Agent, *, now: datetime) -> list[CardRow]:
    grants = list(
        SkillGrant.objects.filter(agent=agent, revoked_at=None)
        .select_related("card__skill")
        .order_by("card__name")
    )
    if not grants:
        return []
    judge = Judge(agent.organization_id, now=now)
    return [
        CardRow(
            card_id=grant.card_id,
            name=f"{grant.card.name} revision {grant.card.card_rev}",
            state=judge.verdict(grant.card).code,
            note="all its tools" if grant.tools is None else ", ".join(grant.tools) or "no tools",
        )
        for grant in grants
    ]
