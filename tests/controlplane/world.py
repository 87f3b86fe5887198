"""Two organizations: Acme, where Olive owns, Ada administers and Vic looks on, and a stranger's."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.test import Client

from controlplane.audit.domain import Actor
from controlplane.identity import domain
from controlplane.identity.enums import Role, Scope, TokenKind
from controlplane.identity.models import Agent, AgentKey, Organization, Person, Project, Team

NOW = datetime(2026, 5, 13, 10, 30, tzinfo=UTC)
ACTOR = Actor.system("test")
UNKNOWN = UUID("01890000-0000-7000-8000-000000000000")
EVERY_SCOPE = list(Scope.values)


class Api(Client):
    """A client that speaks JSON and carries a bearer token, or nothing."""

    def __init__(self, token: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        super().__init__(headers=headers, raise_request_exception=False)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        return self.generic(
            method,
            f"/api/v1/{path}",
            b"" if body is None else _json(body),
            content_type="application/json",
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )


def _json(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


@dataclass
class World:
    """One organization with everything in it."""

    organization: Organization
    people: dict[str, Person] = field(default_factory=dict)
    clients: dict[str, Api] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> UUID:
        return self.organization.pk

    @property
    def who(self) -> dict[str, Any]:
        return {"organization_id": self.id, "actor": ACTOR, "now": NOW}

    def team(self, slug: str = "research") -> Team:
        return domain.create_team(slug=slug, name=slug.title(), **self.who)

    def project(self, slug: str = "papers", **more: Any) -> Project:
        return domain.create_project(slug=slug, name=slug.title(), **more, **self.who)

    def agent(self, slug: str = "reader", **more: Any) -> Agent:
        return domain.create_agent(slug=slug, name=slug.title(), **more, **self.who)

    def key(self, agent: Agent, name: str = "laptop") -> AgentKey:
        return domain.issue_agent_key(agent_id=agent.pk, name=name, **self.who).key


def make_world(slug: str = "acme") -> World:
    """The organization, one person of each role, and a token of each that may all they may."""
    organization = domain.create_organization(slug=slug, name=slug.title(), actor=ACTOR, now=NOW)
    world = World(organization)
    for role in (Role.OWNER, Role.ADMIN, Role.VIEWER):
        email = f"{role.value}@{slug}.example"
        person = domain.add_member(email=email, role=role, name=role.label, **world.who).person
        world.people[role.value] = person
        issued = domain.issue_api_token(
            name=role.value, scopes=EVERY_SCOPE, person_id=person.pk, **world.who
        )
        world.secrets[role.value] = issued.secret
        world.clients[role.value] = Api(issued.secret)
    sidecar = domain.issue_api_token(name="sidecar", kind=TokenKind.SIDECAR, **world.who)
    world.secrets["sidecar"] = sidecar.secret
    world.clients["sidecar"] = Api(sidecar.secret)
    world.clients["nobody"] = Api()
    return world
