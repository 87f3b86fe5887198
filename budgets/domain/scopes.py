"""Who lies below which scope: existence of a budget's scope, and what covers it."""

from typing import NamedTuple
from uuid import UUID

from budgets.errors import ScopeNotFoundError
from budgets.models import Budget
from controlplane.identity.models import Agent, Project, Team
from enforcement.rules.wire import Mode, Per, ScopeKind


class Scope(NamedTuple):
    kind: ScopeKind
    id: UUID


def scopes_above(*, organization_id: UUID, kind: ScopeKind, scope_id: UUID) -> set[Scope]:
    """The scope itself and all above it.

    Raises:
        ScopeNotFoundError: it is not in the organization, so a budget on it would match nothing.
    """
    if kind is ScopeKind.AGENT:
        agent = Agent.objects.filter(organization_id=organization_id, id=scope_id).first()
        teams, project = ({agent.team_id}, agent.project) if agent else (None, None)
    elif kind is ScopeKind.PROJECT:
        project = Project.objects.filter(organization_id=organization_id, id=scope_id).first()
        teams = set() if project else None
    elif kind is ScopeKind.TEAM:
        found = Team.objects.filter(organization_id=organization_id, id=scope_id).exists()
        teams, project = (set() if found else None), None
    else:
        teams, project = (set() if scope_id == organization_id else None), None
    if teams is None:
        raise ScopeNotFoundError(kind.value, scope_id)
    scopes = {Scope(kind, scope_id), Scope(ScopeKind.ORGANIZATION, organization_id)}
    if project is not None:
        scopes.add(Scope(ScopeKind.PROJECT, project.id))
        teams.add(project.team_id)
    return scopes | {Scope(ScopeKind.TEAM, team) for team in teams if team is not None}


def bounds_sessions(budget: Budget) -> bool:
    """Whether a budget, shared by all sessions below it, limits how much they get together."""
    return budget.mode == Mode.HARD and budget.per != Per.SESSION and budget.archived_at is None


def is_covered(budget: Budget, *, by: list[Budget]) -> bool:
    """Whether another budget bounds all sessions of this one together (L15)."""
    above = scopes_above(
        organization_id=budget.organization_id,
        kind=ScopeKind(budget.scope_kind),
        scope_id=budget.scope_id,
    )
    return any(
        bounds_sessions(other)
        and other.id != budget.id
        and Scope(ScopeKind(other.scope_kind), other.scope_id) in above
        for other in by
    )
