"""Agents: their creation, their place, their limits and their state."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from controlplane.audit.domain import Actor, record
from controlplane.identity.domain.organizations import (
    check_known,
    check_place,
    checked_name,
    find,
    save_new,
)
from controlplane.identity.domain.policy import bump_policy
from controlplane.identity.enums import State
from controlplane.identity.errors import (
    AgentRetiredError,
    IdentityValidationError,
    InvalidStateChangeError,
    ReasonRequiredError,
)
from controlplane.identity.models import Agent, AgentKey, Membership, Project, Team
from enforcement.rules.policy import OrderKind

TRANSITIONS: Mapping[tuple[State, OrderKind], State] = {
    (State.ACTIVE, OrderKind.THROTTLE): State.THROTTLED,
    (State.ACTIVE, OrderKind.PAUSE): State.PAUSED,
    (State.ACTIVE, OrderKind.KILL): State.KILLED,
    (State.THROTTLED, OrderKind.RESUME): State.ACTIVE,
    (State.THROTTLED, OrderKind.PAUSE): State.PAUSED,
    (State.THROTTLED, OrderKind.KILL): State.KILLED,
    (State.PAUSED, OrderKind.RESUME): State.ACTIVE,
    (State.PAUSED, OrderKind.KILL): State.KILLED,
    (State.KILLED, OrderKind.RESUME): State.ACTIVE,
    (State.KILLED, OrderKind.KILL): State.KILLED,  # again, for a stream that is still seen
}
PLACES = {"team_id", "project_id", "owner_id"}
RATES = {"requests_per_minute", "tokens_per_minute"}
MAX_RATE = 2_147_483_647
LIMITS = {  # least and most of each; all but the priority may be none
    **dict.fromkeys(RATES, (1, MAX_RATE)),
    "priority": (0, 9),
    "hand_back_tokens": (1, 1_000_000),
}
CHANGEABLE = {"name"} | PLACES | set(LIMITS)


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
    priority: int = 0,
    hand_back_tokens: int | None = None,
) -> Agent:
    """Raises SlugTakenError, IdentityValidationError."""
    agent = Agent(
        organization_id=organization_id,
        slug=slug,
        name=checked_name(name),
        team_id=team_id,
        project_id=project_id,
        owner_id=owner_id,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        priority=priority,
        hand_back_tokens=hand_back_tokens,
        state_changed_at=now,
        created_at=now,
    )
    _settle_places(agent)
    _check_limits(agent)
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
    """Change name, place, owner or rates.

    Raises NotFoundInOrganizationError, AgentRetiredError, IdentityValidationError.
    """
    agent = _living(organization_id, agent_id)
    check_known(changes, CHANGEABLE)
    before = describe(agent)
    for name, value in changes.items():
        setattr(agent, name, checked_name(value) if name == "name" else value)
    if "project_id" in changes and "team_id" not in changes:
        agent.team_id = None  # the new project brings its own
    _settle_places(agent)
    _check_limits(agent)
    agent.save(update_fields=sorted(CHANGEABLE))
    after = describe(agent)
    changed = [name for name in after if after[name] != before[name]]
    if changed:
        _record(
            agent,
            "agent.change",
            actor,
            now,
            before={name: before[name] for name in changed},
            after={name: after[name] for name in changed},
        )
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
    drain: bool = False,
) -> Agent:
    """Kill, pause, throttle or resume an agent. With `drain` what runs may end within its hold.

    Raises:
        NotFoundInOrganizationError: the organization has no such agent.
        AgentRetiredError: the agent was retired.
        InvalidStateChangeError: the table has no such transition.
        ReasonRequiredError: the reason is empty.
    """
    if not reason.strip():
        raise ReasonRequiredError(f"say why: a reason is needed to {order.value} an agent")
    agent = _living(organization_id, agent_id)
    state = TRANSITIONS.get((State(agent.state), order))
    if state is None:
        raise InvalidStateChangeError(
            f"an agent that is {agent.state} cannot be given the order to {order.value}"
        )
    agent.state_drains = drain
    _move(agent, state, f"agent.{order.value}", reason=reason, actor=actor, now=now)
    bump_policy(organization_id)
    return agent


@transaction.atomic
def retire_agent(
    *, organization_id: UUID, agent_id: UUID, reason: str, actor: Actor, now: datetime
) -> Agent:
    """End an agent for ever: its keys are revoked, its streams are cut, its slug stays taken.

    Raises NotFoundInOrganizationError, AgentRetiredError.
    """
    agent = _living(organization_id, agent_id)
    agent.retired_at, agent.state_drains = now, False
    agent.save(update_fields=["retired_at"])
    AgentKey.objects.filter(agent=agent, revoked_at__isnull=True).update(revoked_at=now)
    _move(agent, State.KILLED, "agent.retire", reason=reason, actor=actor, now=now)
    bump_policy(organization_id)
    return agent


def refuse_retired(agent: Agent) -> None:
    """Raises AgentRetiredError."""
    if agent.retired_at is not None:
        raise AgentRetiredError(f"agent {agent.slug} was retired")


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
        "priority": agent.priority,
        "hand_back_tokens": agent.hand_back_tokens,
    }


def _living(organization_id: UUID, agent_id: UUID) -> Agent:
    agent = find(Agent, organization_id=organization_id, object_id=agent_id, lock=True)
    refuse_retired(agent)
    return agent


def _move(
    agent: Agent, state: State, action: str, *, reason: str, actor: Actor, now: datetime
) -> None:
    before = {"state": agent.state, "state_reason": agent.state_reason}
    agent.state, agent.state_reason, agent.state_changed_at = state, reason[:500], now
    agent.save(update_fields=["state", "state_reason", "state_changed_at", "state_drains"])
    after = {"state": agent.state, "state_reason": agent.state_reason}
    if agent.state_drains:
        after["drains"] = "yes"
    _record(agent, action, actor, now, reason=reason, before=before, after=after)


def _settle_places(agent: Agent) -> None:
    """Team, project and owner belong to the organization; an agent is in its project's team."""
    organization_id = agent.organization_id
    if agent.project_id is not None:
        project = check_place(
            Project, organization_id=organization_id, object_id=agent.project_id, field="project"
        )
        agent.team_id = agent.team_id or project.team_id
        if agent.team_id != project.team_id and project.team_id is not None:
            raise IdentityValidationError("team", "the project belongs to another team")
    if agent.team_id is not None:
        check_place(Team, organization_id=organization_id, object_id=agent.team_id, field="team")
    if agent.owner_id is not None:
        members = Membership.objects.filter(
            organization_id=organization_id, person_id=agent.owner_id
        )
        if not members.exists():
            raise IdentityValidationError("owner", f"no member {agent.owner_id}")


def _check_limits(agent: Agent) -> None:
    for name, (least, most) in sorted(LIMITS.items()):
        limit = getattr(agent, name)
        if limit is None and name == "priority":
            raise IdentityValidationError(name, f"between {least} and {most}")
        if limit is not None and not least <= limit <= most:
            raise IdentityValidationError(name, f"between {least} and {most}, or none")


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
        object_id=agent.pk,
        reason=reason,
        before=before,
        after=after,
        now=now,
    )
