"""The organization, its teams and projects, and who the caller is."""

from typing import Any

import pytest

from controlplane.audit.models import AuditEntry
from controlplane.identity.models import Organization, Project, Team
from tests.controlplane.world import UNKNOWN, Api, World


def test_everybody_reads_their_own_organization(world: World, stranger: World) -> None:
    for role in ("owner", "admin", "viewer"):
        assert world.clients[role].call("GET", "organization").json()["slug"] == "acme"
        assert stranger.clients[role].call("GET", "organization").json()["slug"] == "stranger"


def test_an_admin_renames_it(world: World, admin: Api) -> None:
    body = {"name": "Acme Ltd", "time_zone": "Europe/Berlin"}
    answer = admin.call("PATCH", "organization", body)
    assert (answer.status_code, answer.json()["time_zone"]) == (200, "Europe/Berlin")
    entry = AuditEntry.objects.get(action="organization.change")
    assert entry.before == {"name": "Acme", "time_zone": "UTC"}
    assert entry.after == body


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"time_zone": "../../etc/passwd"}, "time_zone"),
        ({"slug": "other"}, "slug"),
        ({"policy_revision": 1}, "policy_revision"),
        ({"requires_skill_cards": True}, "requires_skill_cards"),
    ],
)
def test_bad_changes_are_refused_by_name(
    world: World, admin: Api, body: dict[str, Any], field: str
) -> None:
    answer = admin.call("PATCH", "organization", body)
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])


def test_a_viewer_changes_nothing(world: World, viewer: Api) -> None:
    team, project = world.team(), world.project()
    for method, path in (
        ("PATCH", "organization"),
        ("POST", "teams"),
        ("PATCH", f"teams/{team.pk}"),
        ("POST", "projects"),
        ("PATCH", f"projects/{project.pk}"),
    ):
        assert viewer.call(method, path, {"name": "X", "slug": "x"}).status_code == 403
    assert Organization.objects.get().name == "Acme"
    assert (Team.objects.get().name, Project.objects.get().name) == ("Research", "Papers")


def test_teams_and_projects_are_made_and_renamed(world: World, admin: Api) -> None:
    team = admin.call("POST", "teams", {"slug": "research", "name": "Research"}).json()
    body = {"slug": "papers", "name": "Papers", "team": team["id"]}
    project = admin.call("POST", "projects", body).json()
    assert project["team"] == team["id"]
    renamed = admin.call("PATCH", f"projects/{project['id']}", {"name": "Reports"}).json()
    assert renamed == project | {"name": "Reports"}
    entry = AuditEntry.objects.get(action="project.change")
    assert (entry.before, entry.after) == ({"name": "Papers"}, {"name": "Reports"})


def test_a_slug_is_unique_in_one_organization_only(world: World, stranger: World) -> None:
    body = {"slug": "research", "name": "Research"}
    assert world.clients["owner"].call("POST", "teams", body).status_code == 201
    again = world.clients["owner"].call("POST", "teams", body)
    assert again.json()["errors"] == {"slug": ["the slug 'research' is taken"]}
    assert stranger.clients["owner"].call("POST", "teams", body).status_code == 201


def test_foreign_teams_and_projects_are_as_unknown_as_none(world: World, foreigner: Api) -> None:
    for kind, row in (("teams", world.team()), ("projects", world.project())):
        for method in ("GET", "PATCH"):
            foreign = foreigner.call(method, f"{kind}/{row.pk}", {"name": "Mine"})
            unknown = foreigner.call(method, f"{kind}/{UNKNOWN}", {"name": "Mine"})
            assert foreign.status_code == unknown.status_code == 404
            assert foreign.content.replace(str(row.pk).encode(), b"") == unknown.content.replace(
                str(UNKNOWN).encode(), b""
            )
        assert foreigner.call("GET", kind).json()["results"] == []


def test_a_project_in_a_foreign_team_is_refused_like_in_an_unknown_one(
    world: World, stranger: World
) -> None:
    answers = [
        world.clients["owner"].call(
            "POST", "projects", {"slug": "x", "name": "X", "team": str(team_id)}
        )
        for team_id in (stranger.team().pk, UNKNOWN)
    ]
    assert [(a.status_code, list(a.json()["errors"])) for a in answers] == [(400, ["team"])] * 2


@pytest.mark.parametrize("kind", ["teams", "projects"])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_list_costs_the_same_whatever_its_length(
    world: World, owner: Api, kind: str, rows: int, django_assert_num_queries: Any
) -> None:
    for number in range(rows):
        world.project(f"p{number}", team_id=world.team(f"t{number}").pk)
    owner.call("GET", "me")
    with django_assert_num_queries(3):  # token, membership, page
        answer = owner.call("GET", kind)
    assert len(answer.json()["results"]) == rows


def test_the_caller_learns_who_it_is(world: World) -> None:
    answer = world.clients["viewer"].call("GET", "me").json()
    assert answer["organization"]["slug"] == "acme"
    assert answer["person"] == str(world.people["viewer"].pk)
    assert (answer["actor_kind"], answer["actor_label"]) == ("token", "viewer")
    assert answer["scopes"] == ["read"]


def test_the_session_chooses_among_a_persons_organizations(world: World, stranger: World) -> None:
    person = world.people["viewer"]
    world_2 = stranger
    world_2.clients["owner"].call("POST", "people", {"email": person.email, "role": "admin"})
    session = Api()
    session.force_login(person)
    assert session.call("GET", "organization").json()["slug"] == "acme"
    store = session.session
    store["organization"] = str(stranger.id)
    store.save()
    assert session.call("GET", "organization").json()["slug"] == "stranger"
    store["organization"] = str(UNKNOWN)
    store.save()
    assert session.call("GET", "organization").json()["slug"] == "acme"
