"""The names of an organization's scopes, and how they lie above each other."""

from dataclasses import dataclass
from uuid import UUID

from controlplane.identity.models import Agent, Organization, Project, Team
from enforcement.rules.policy import ScopeKind
from enforcement.rules.splits import OTHER_VALUE

ICONS = {
    ScopeKind.ORGANIZATION: "building",
    ScopeKind.TEAM: "users",
    ScopeKind.PROJECT: "folder",
    ScopeKind.AGENT: "bot",
}


@dataclass(frozen=True)
class Place:
    """A scope with its name and the scope above it."""

    kind: ScopeKind
    id: UUID
    name: str
    parent: UUID | None

    @property
    def icon(self) -> str:
        return ICONS[self.kind]

    @property
    def label(self) -> str:
        return f"{self.kind.value.capitalize()} {self.name}"


class Places:
    """All scopes of an organization: three queries."""

    def __init__(self, organization: Organization) -> None:
        self.root = Place(ScopeKind.ORGANIZATION, organization.id, organization.name, None)
        self._places = {organization.id: self.root}
        for team in Team.objects.filter(organization=organization).order_by("name"):
            self._add(ScopeKind.TEAM, team.id, team.name, None)
        for project in Project.objects.filter(organization=organization).order_by("name"):
            self._add(ScopeKind.PROJECT, project.id, project.name, project.team_id)
        for agent in Agent.objects.filter(organization=organization).order_by("name"):
            self._add(ScopeKind.AGENT, agent.id, agent.name, agent.project_id or agent.team_id)

    def _add(self, kind: ScopeKind, place_id: UUID, name: str, parent: UUID | None) -> None:
        self._places[place_id] = Place(kind, place_id, name, parent or self.root.id)

    def get(self, place_id: UUID) -> Place:
        """The scope; one that is gone is told as such."""
        gone = Place(ScopeKind.AGENT, place_id, "(removed)", self.root.id)
        return self._places.get(place_id, gone)

    def of_kind(self, kind: ScopeKind) -> list[Place]:
        return [place for place in self._places.values() if place.kind is kind]

    def children(self, place_id: UUID) -> list[Place]:
        return [place for place in self._places.values() if place.parent == place_id]

    def path(self, place_id: UUID) -> list[Place]:
        """The scope and those above it, the organization last."""
        path, here = [], self._places.get(place_id)
        while here is not None:
            path.append(here)
            here = self._places.get(here.parent) if here.parent else None
        return path

    def path_label(self, place_id: UUID) -> str:
        """`Search › Crawler`, without the organization."""
        names = [place.name for place in reversed(self.path(place_id)[:-1])]
        return " › ".join(names) or self.root.name

    def value_label(self, per: str, value: str) -> str:
        """A split value as a person reads it: an agent's name, a session as it is."""
        if value == OTHER_VALUE:
            return "all others"
        if per not in ("agent", "team", "project") or not value:
            return value or "(none named)"
        try:
            return self.get(UUID(value)).name
        except ValueError:
            return value
