"""Agents: their creation, their limits and their state."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from controlplane.audit.domain import Actor, record
from controlplane.identity.domain.organizations import find, save_new
from controlplane.identity.domain.policy import bump_policy
from controlplane.identity.enums import State
from controlplane.identity.errors import InvalidStateChangeError, ReasonRequiredError
from controlplane.identity.models import Agent, Membership, Project, Team
from controlplane.identity.errors import NotFoundInOrganizationError
from enforcement.rules.wire import OrderKind

TRANSITIONS: dict[tuple[State, OrderKind], State] = {
    (State.ACTIVE, OrderKind.THROTTLE): State.THROTTLED,
    (State.ACTIVE, OrderKind.PAUSE): State.PAUSED,
    (State.ACTIVE, OrderKind.KILL): State.KILLED,
    (State.THROTTLED, OrderKind.RESUME): State.ACTIVE,
    (State.THROTTLED, OrderKind.PAUSE): State.PAUSED,
    (State.THROTTLED, OrderKind.KILL): State.KILLED,
    (State.PAUSED, OrderKind.RESUME): State.ACTIVE,
    (State.PAUSED, OrderKind.KILL): State.KILLED,
    (State.KILLED, OrderKind.RESUME): State.ACTIVE,
    (State.KILLED, OrderKind.KILL): State.KILLED,
}
CHANGEABLE = frozenset(
    {"name", "team_id", "project_id", "owner_id", "requests_per_minute", "tokens_per_minute"}
)


@transaction.atomic
def create_agent(
    *,
    organization_id: UUID,
    slug: str,
    name: str,
    actor: Actor,
    now: datetime,
    team_id: UUID | None = None,
    project_id: UUID | None = None,
    owner_id: UUID | None = None,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
) -> Agent:
    """Raises SlugTakenError, NotFoundInOrganizationError."""
    agent = Agent(
        organization_id=organization_id,
        slug=slug,
        name=name,
        team_id=team_id,
        project_id=project_id,
        owner_id=owner_id,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        state_changed_at=now,
        created_at=now,
    )
    _check_places(agent)
    save_new(agent, slug)
    _record(agent, "agent.create", actor, now, after=describe(agent))
    bump_policy(organization_id)
    return agent


@transaction.atomic
def change_agent(
    *,
    organization_id: UUID,
    agent_id: UUID,
    changes: Mapping[str, Any],
    actor: Actor,
    now: datetime,
) -> Agent:
    """Change name, place, owner or rates. Raises NotFoundInOrganizationError."""
    agent = find(Agent, organization_id=organization_id, object_id=agent_id)
    unknown = set(changes) - CHANGEABLE
    if unknown:
        raise ValueError(f"not changeable: {', '.join(sorted(unknown))}")
    before = describe(agent)
    for name, value in changes.items():
        setattr(agent, name, value)
    _check_places(agent)
    agent.save(update_fields=list(changes))
    _record(agent, "agent.change", actor, now, before=before, after=describe(agent))
    bump_policy(organization_id)
    return agent


@transaction.atomic
def set_agent_state(
    *,
    organization_id: UUID,
    agent_id: UUID,
    order: OrderKind,
    reason: str,
    actor: Actor,
    now: datetime,
) -> Agent:
    """Kill, pause, throttle or resume an agent.

    Raises:
        NotFoundInOrganizationError: the organization has no such agent.
        InvalidStateChangeError: the table has no such transition.
        ReasonRequiredError: the reason is empty.
    """
    if not reason.strip():
        raise ReasonRequiredError(f"say why: a reason is needed to {order.value} an agent")
    find(Agent, organization_id=organization_id, object_id=agent_id)
    agent = Agent.objects.select_for_update().get(pk=agent_id)
    state = TRANSITIONS.get((State(agent.state), order))
    if state is None:
        raise InvalidStateChangeError(f"an agent that is {agent.state} cannot {order.value}")
    before = {"state": agent.state, "state_reason": agent.state_reason}
    agent.state, agent.state_reason, agent.state_changed_at = state, reason, now
    agent.save(update_fields=["state", "state_reason", "state_changed_at"])
    after = {"state": agent.state, "state_reason": reason}
    _record(agent, f"agent.{order.value}", actor, now, reason=reason, before=before, after=after)
    bump_policy(organization_id)
    return agent


def describe(agent: Agent) -> dict[str, Any]:
    """What the audit trail keeps of an agent."""
    return {
        "slug": agent.slug,
        "name": agent.name,
        "team": str(agent.team_id or ""),
        "project": str(agent.project_id or ""),
        "owner": str(agent.owner_id or ""),
        "requests_per_minute": agent.requests_per_minute,
        "tokens_per_minute": agent.tokens_per_minute,
    }


def _check_places(agent: Agent) -> None:
    """Team, project and owner must belong to the same organization."""
    organization_id = agent.organization_id
    if agent.team_id is not None:
        find(Team, organization_id=organization_id, object_id=agent.team_id)
    if agent.project_id is not None:
        find(Project, organization_id=organization_id, object_id=agent.project_id)
    if agent.owner_id is not None:
        members = Membership.objects.filter(
            organization_id=organization_id, person_id=agent.owner_id
        )
        if not members.exists():
            raise NotFoundInOrganizationError(f"no member {agent.owner_id}")


def _record(
    agent: Agent,
    action: str,
    actor: Actor,
    now: datetime,
    *,
    reason: str = "",
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> None:
    record(
        organization_id=agent.organization_id,
        actor=actor,
        action=action,
        object_kind="agent",
        object_id=str(agent.pk),
        reason=reason,
        before=before,
        after=after,
        now=now,
    )
