"""Who lies below which scope: existence of a budget's scope, and what covers it."""

from typing import NamedTuple
from uuid import UUID

from budgets.errors import ScopeNotFoundError
from budgets.models import Budget
from controlplane.identity.models import Agent, Project, Team
from enforcement.rules.matching import is_client_named
from enforcement.rules.policy import Mode, ScopeKind


class Scope(NamedTuple):
    kind: ScopeKind
    id: UUID


def team_of(agent: Agent) -> UUID | None:
    """The team that an agent's use counts for: its own, else its project's."""
    if agent.team_id is None and agent.project is not None:
        return agent.project.team_id
    return agent.team_id


def scopes_above(*, organization_id: UUID, kind: ScopeKind, scope_id: UUID) -> set[Scope]:
    """The scope itself and all above it.

    Raises:
        ScopeNotFoundError: it is not in the organization, so a budget on it would match nothing.
    """
    above = _above(organization_id, kind, scope_id)
    if above is None:
        raise ScopeNotFoundError(kind.value, scope_id)
    return {Scope(kind, scope_id), Scope(ScopeKind.ORGANIZATION, organization_id), *above}


def _above(organization_id: UUID, kind: ScopeKind, scope_id: UUID) -> list[Scope] | None:
    """Project and team above a scope; None when the organization has no such scope."""
    team: UUID | None = None
    project: UUID | None = None
    if kind in (ScopeKind.AGENT, ScopeKind.SESSION):
        agents = Agent.objects.select_related("project")
        agent = agents.filter(organization_id=organization_id, id=scope_id).first()
        if agent is None:
            return None
        team, project = team_of(agent), agent.project_id
    elif kind is ScopeKind.PROJECT:
        row = Project.objects.filter(organization_id=organization_id, id=scope_id).first()
        if row is None:
            return None
        team = row.team_id
    elif kind is ScopeKind.TEAM:
        if not Team.objects.filter(organization_id=organization_id, id=scope_id).exists():
            return None
    elif scope_id != organization_id:
        return None
    agent_id = scope_id if kind is ScopeKind.SESSION else None
    found = ((ScopeKind.AGENT, agent_id), (ScopeKind.PROJECT, project), (ScopeKind.TEAM, team))
    return [Scope(level, place) for level, place in found if place is not None]


def bounds_callers(budget: Budget) -> bool:
    """Whether a budget limits how much callers get together, whatever names they give."""
    named = is_client_named(budget.per) or budget.scope_kind == ScopeKind.SESSION
    whole = not named and not budget.filters
    return whole and budget.mode == Mode.HARD and budget.archived_at is None


def is_covered(budget: Budget, *, by: list[Budget]) -> bool:
    """Whether another budget bounds all values of this one together (L15)."""
    above = scopes_above(
        organization_id=budget.organization_id,
        kind=ScopeKind(budget.scope_kind),
        scope_id=budget.scope_id,
    )
    return any(
        bounds_callers(other)
        and other.id != budget.id
        and Scope(ScopeKind(other.scope_kind), other.scope_id) in above
        for other in by
    )
