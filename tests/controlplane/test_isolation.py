"""An organization learns nothing of another: foreign ids are answered like ids that never were.

Generated from the schema: every address with an id in its path, every filter by an id.
"""

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml

from controlplane.audit.models import AuditEntry
from controlplane.identity.models import ApiToken
from tests.controlplane.world import UNKNOWN, Api, World

SCHEMA = yaml.safe_load((Path(__file__).parents[2] / "docs" / "openapi.yaml").read_text())
FILTERS = [
    (path, parameter["name"])
    for path, operations in SCHEMA["paths"].items()
    for parameter in operations.get("get", {}).get("parameters", [])
    if parameter["in"] == "query" and parameter["schema"].get("format") == "uuid"
]
DETAILS = [
    (path, method)
    for path, operations in SCHEMA["paths"].items()
    for method in operations
    if "{" in path
]


def answer(client: Api, method: str, path: str, object_id: UUID) -> tuple[int, bytes]:
    """Status and body, without the id that was asked for and without times."""
    response = client.call(method, path.removeprefix("/api/v1/"), {} if method != "GET" else None)
    body = response.content.replace(str(object_id).encode(), b"ID")
    return response.status_code, body


@pytest.fixture
def foreign_ids(stranger: World) -> list[UUID]:
    """Of everything that another organization has."""
    team = stranger.team()
    project = stranger.project(team_id=team.pk)
    agent = stranger.agent(project_id=project.pk)
    token = ApiToken.objects.filter(organization=stranger.organization).first()
    assert token is not None
    people = [person.pk for person in stranger.people.values()]
    made = [UUID(made_by(stranger, path, body)) for path, body in MADE.items()]
    own = [team.pk, project.pk, agent.pk, stranger.key(agent).pk, token.pk, stranger.id]
    return own + people + made


MADE: dict[str, dict[str, Any]] = {
    "budgets": {
        "name": "All",
        "scope_kind": "organization",
        "scope_id": "",
        "unit": "usd",
        "limit": "1.00",
    },
    "sidecars": {"name": "edge"},
    "price-versions": {"model": "m", "input_per_mtok": "1", "output_per_mtok": "1"},
}


def made_by(world: World, path: str, body: dict[str, Any]) -> str:
    if "scope_id" in body:
        body = body | {"scope_id": str(world.id)}
    response = world.clients["owner"].call("POST", path, body)
    assert response.status_code == 201, response.content
    content: dict[str, Any] = response.json()
    return str(content.get("id") or content["sidecar"]["id"])


@pytest.mark.parametrize(("path", "name"), FILTERS)
def test_a_filter_by_a_foreign_id_finds_what_an_unknown_one_finds(
    world: World, foreign_ids: list[UUID], path: str, name: str
) -> None:
    owner = world.clients["owner"]
    if path == "/api/v1/usage/summary":
        path += "?since=2026-05-01T00:00:00Z&until=2026-05-02T00:00:00Z&"
    else:
        path += "?"
    unknown = answer(owner, "GET", f"{path}{name}={UNKNOWN}", UNKNOWN)
    for object_id in foreign_ids:
        assert answer(owner, "GET", f"{path}{name}={object_id}", object_id) == unknown


@pytest.mark.parametrize(("path", "method"), DETAILS)
def test_a_foreign_object_is_as_unknown_as_none(
    world: World, foreign_ids: list[UUID], path: str, method: str
) -> None:
    owner, entries = world.clients["owner"], AuditEntry.objects.count()
    name = path.partition("{")[2].partition("}")[0]

    def ask(object_id: Any) -> tuple[int, bytes]:
        return answer(owner, method.upper(), path.replace(f"{{{name}}}", str(object_id)), object_id)

    if path.startswith("/api/v1/audit-entries"):
        foreign = AuditEntry.objects.exclude(organization_id=world.id).latest("id").pk
        assert ask(foreign)[0] == 404
        return
    unknown = ask(UNKNOWN)
    assert unknown[0] in (400, 404)
    assert [ask(object_id) for object_id in foreign_ids] == [unknown] * len(foreign_ids)
    assert AuditEntry.objects.count() == entries


def test_the_schema_has_such_addresses() -> None:
    assert len(FILTERS) >= 20
    assert len(DETAILS) >= 40
