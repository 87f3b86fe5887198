"""Agents over the API."""

from typing import Any

import pytest

from controlplane.audit.models import AuditEntry
from controlplane.identity import domain
from controlplane.identity.models import Agent, AgentKey
from tests.controlplane.world import UNKNOWN, Api, World


def problem(response: Any) -> tuple[int, str, str]:
    assert response.headers["Content-Type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == response.status_code
    return (
        response.status_code,
        body["type"].removeprefix("urn:comptroller:problem:"),
        body["detail"],
    )


def test_an_admin_creates_an_agent(world: World, admin: Api) -> None:
    team = world.team()
    body = {"slug": "writer", "name": "Writer", "team": str(team.pk), "tokens_per_minute": 500}
    response = admin.call("POST", "agents", body)
    agent = Agent.objects.get(slug="writer")
    assert response.status_code == 201
    assert response.json() | {"state_changed_at": 0, "created_at": 0} == {
        "id": str(agent.pk),
        "slug": "writer",
        "name": "Writer",
        "team": str(team.pk),
        "project": None,
        "owner": None,
        "state": "active",
        "state_reason": "",
        "state_changed_at": 0,
        "state_drains": False,
        "requests_per_minute": None,
        "tokens_per_minute": 500,
        "priority": 0,
        "hand_back_tokens": None,
        "created_at": 0,
        "retired_at": None,
    }
    entry = AuditEntry.objects.get(action="agent.create", object_id=str(agent.pk))
    assert (entry.actor_kind, entry.actor_label) == ("token", "admin")


@pytest.mark.parametrize("role", ["owner", "admin", "viewer"])
def test_every_member_reads_agents(world: World, role: str) -> None:
    agent = world.agent()
    client = world.clients[role]
    assert [row["id"] for row in client.call("GET", "agents").json()["results"]] == [str(agent.pk)]
    assert client.call("GET", f"agents/{agent.pk}").json()["slug"] == "reader"


def test_a_viewer_writes_nothing(world: World, viewer: Api) -> None:
    agent = world.agent()
    for method, path in (
        ("POST", "agents"),
        ("PATCH", f"agents/{agent.pk}"),
        ("POST", f"agents/{agent.pk}/retire"),
        ("POST", f"agents/{agent.pk}/keys"),
    ):
        assert problem(viewer.call(method, path, {}))[:2] == (403, "permission-denied")
    assert Agent.objects.count() == 1
    assert AgentKey.objects.count() == 0


def test_a_foreign_agent_is_as_unknown_as_none(world: World, foreigner: Api) -> None:
    agent = world.agent()
    for method, tail, body in (
        ("GET", "", None),
        ("PATCH", "", {"name": "Mine"}),
        ("POST", "/retire", {}),
        ("GET", "/keys", None),
        ("POST", "/keys", {"name": "mine"}),
    ):
        foreign = foreigner.call(method, f"agents/{agent.pk}{tail}", body)
        unknown = foreigner.call(method, f"agents/{UNKNOWN}{tail}", body)
        assert foreign.status_code == unknown.status_code == 404
        assert foreign.content.replace(str(agent.pk).encode(), b"") == unknown.content.replace(
            str(UNKNOWN).encode(), b""
        )
    assert foreigner.call("GET", "agents").json()["results"] == []


def test_foreign_and_unknown_references_answer_alike(world: World, stranger: World) -> None:
    foreign_team, foreign_project = stranger.team(), stranger.project()
    owner = world.clients["owner"]
    for name, place in (("team", foreign_team.pk), ("project", foreign_project.pk)):
        answers = [
            owner.call("POST", "agents", {"slug": "x", "name": "X", name: str(place_id)})
            for place_id in (place, UNKNOWN)
        ]
        assert [answer.status_code for answer in answers] == [400, 400]
        assert [list(answer.json()["errors"]) for answer in answers] == [[name], [name]]
    foreign_person = stranger.people["owner"].pk
    answer = owner.call("POST", "agents", {"slug": "x", "name": "X", "owner": str(foreign_person)})
    assert answer.json()["errors"] == {"owner": [f"no member {foreign_person}"]}


def test_filtering_by_a_foreign_team_finds_nothing(world: World, stranger: World) -> None:
    world.agent(team_id=world.team().pk)
    owner = world.clients["owner"]
    for team_id in (stranger.team().pk, UNKNOWN):
        answer = owner.call("GET", f"agents?team={team_id}")
        assert (answer.status_code, answer.json()["results"]) == (200, [])


def test_unknown_fields_and_parameters_are_refused_by_name(world: World, owner: Api) -> None:
    body = {"slug": "x", "name": "X", "state": "killed", "organization": str(UNKNOWN), "cap": 1}
    answer = owner.call("POST", "agents", body)
    unknown = ["unknown field"]
    assert answer.json()["errors"] == {"cap": unknown, "organization": unknown, "state": unknown}
    answer = owner.call("GET", "agents?expand=keys&slug=x")
    assert answer.json()["errors"] == {"expand": ["unknown parameter"]}
    assert Agent.objects.count() == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"slug": "Upper", "name": "X"}, "slug"),
        ({"slug": "-x", "name": "X"}, "slug"),
        ({"slug": "x\n", "name": "X"}, "slug"),
        ({"slug": "ｘ", "name": "X"}, "slug"),
        ({"slug": "x" * 64, "name": "X"}, "slug"),
        ({"slug": "x", "name": " "}, "name"),
        ({"slug": "x", "name": "a\u202eb"}, "name"),
        ({"slug": "x", "name": "a\u0000b"}, "name"),
        ({"slug": "x", "name": "X", "tokens_per_minute": 0}, "tokens_per_minute"),
        ({"slug": "x", "name": "X", "tokens_per_minute": 2**31}, "tokens_per_minute"),
        ({"slug": "x", "name": "X", "requests_per_minute": -1}, "requests_per_minute"),
        ({"slug": "x", "name": "X", "requests_per_minute": 1.5}, "requests_per_minute"),
        ({"slug": "x", "name": "X", "team": "1"}, "team"),
    ],
)
def test_bad_values_are_refused_by_name(
    world: World, owner: Api, body: dict[str, Any], field: str
) -> None:
    answer = owner.call("POST", "agents", body)
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == [field]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"slug": "a", "slug": "b", "name": "X"}', "'slug' stands twice"),
        (b'{"slug": "a", "tokens_per_minute": NaN}', "NaN is no JSON"),
        (b"{", "Expecting property name"),
        (b"\xff", "codec can't decode"),
        (b"[" * 100_000, "recursion"),
    ],
)
def test_bad_json_is_refused(world: World, owner: Api, body: bytes, words: str) -> None:
    status, kind, detail = problem(owner.call("POST", "agents", body))
    assert (status, kind) == (400, "parse-error")
    assert words in detail


def test_a_list_is_no_agent(world: World, owner: Api) -> None:
    answer = owner.call("POST", "agents", [1])
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == ["non_field_errors"]


def test_a_slug_stays_taken_after_retirement(world: World, owner: Api) -> None:
    agent = world.agent()
    key = world.key(agent)
    retired = owner.call("POST", f"agents/{agent.pk}/retire", {"reason": "done"})
    key.refresh_from_db()
    assert (retired.status_code, retired.json()["state"]) == (200, "killed")
    assert key.revoked_at is not None
    answer = owner.call("POST", "agents", {"slug": "reader", "name": "Again"})
    assert answer.json()["errors"] == {"slug": ["the slug 'reader' is taken"]}
    for method, tail in (("PATCH", ""), ("POST", "/retire"), ("POST", "/keys")):
        again = owner.call(method, f"agents/{agent.pk}{tail}", {"name": "X"} if not tail else {})
        assert problem(again)[:2] == (409, "agent-retired")


def test_a_change_says_what_changed(world: World, owner: Api) -> None:
    team = world.team()
    agent = world.agent(project_id=world.project(team_id=team.pk).pk)
    assert agent.team_id == team.pk
    body = {"name": "Critic", "requests_per_minute": 60}
    answer = owner.call("PATCH", f"agents/{agent.pk}", body)
    assert (answer.json()["name"], answer.json()["requests_per_minute"]) == ("Critic", 60)
    entry = AuditEntry.objects.get(action="agent.change")
    assert entry.before == {"name": "Reader", "requests_per_minute": None}
    assert entry.after == {"name": "Critic", "requests_per_minute": 60}


def test_an_agent_is_in_the_team_of_its_project(world: World, owner: Api) -> None:
    project, other = world.project(team_id=world.team().pk), world.team("sales")
    body = {"slug": "x", "name": "X", "project": str(project.pk), "team": str(other.pk)}
    answer = owner.call("POST", "agents", body)
    assert answer.json()["errors"] == {"team": ["the project belongs to another team"]}


def test_moving_to_another_project_moves_to_its_team(world: World, owner: Api) -> None:
    agent = world.agent(project_id=world.project(team_id=world.team().pk).pk)
    sales = world.team("sales")
    project = world.project("deals", team_id=sales.pk)
    answer = owner.call("PATCH", f"agents/{agent.pk}", {"project": str(project.pk)})
    assert answer.json()["team"] == str(sales.pk)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_list_costs_the_same_whatever_its_length(
    world: World, owner: Api, rows: int, django_assert_num_queries: Any
) -> None:
    for number in range(rows):
        world.agent(f"a{number}", team_id=world.team(f"t{number}").pk)
    owner.call("GET", "me")  # the token's use is noted at most once a minute
    with django_assert_num_queries(3):  # token, membership, page
        answer = owner.call("GET", "agents")
    assert len(answer.json()["results"]) == rows


def test_pages_are_capped_and_linked(world: World, owner: Api) -> None:
    ids = [str(world.agent(f"a{number}").pk) for number in range(3)]
    first = owner.call("GET", "agents?page_size=2").json()
    assert [row["id"] for row in first["results"]] == [ids[2], ids[1]]
    second = owner.call("GET", first["next"].partition("/api/v1/")[2]).json()
    assert [row["id"] for row in second["results"]] == [ids[0]]
    assert second["next"] is None
    for size in ("0", "-1", "x", "1e3", "٣"):
        answer = owner.call("GET", f"agents?page_size={size}")
        assert answer.json()["errors"] == {"page_size": ["a whole number above 0"]}
    assert owner.call("GET", "agents?page_size=100000").status_code == 200
    assert problem(owner.call("GET", "agents?cursor=x"))[:2] == (404, "not-found")


def test_a_repeated_creation_gets_the_same_answer(world: World, owner: Api) -> None:
    body = {"slug": "x", "name": "X"}
    first = owner.call("POST", "agents", body, Idempotency_Key="k1")
    again = owner.call("POST", "agents", body, Idempotency_Key="k1")
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["Idempotency-Replayed"] == "true"
    assert Agent.objects.count() == 1
    other = owner.call("POST", "agents", {"slug": "y", "name": "Y"}, Idempotency_Key="k1")
    assert problem(other)[:2] == (422, "idempotency-conflict")


def test_a_failed_creation_can_be_tried_again_under_its_key(world: World, owner: Api) -> None:
    bad = owner.call("POST", "agents", {"slug": "x", "name": " "}, Idempotency_Key="k1")
    good = owner.call("POST", "agents", {"slug": "x", "name": "X"}, Idempotency_Key="k1")
    assert (bad.status_code, good.status_code) == (400, 201)


def test_an_idempotency_key_belongs_to_one_caller(world: World, stranger: World) -> None:
    body = {"slug": "x", "name": "X"}
    for client in (world.clients["owner"], world.clients["admin"], stranger.clients["owner"]):
        body = {"slug": f"x{Agent.objects.count()}", "name": "X"}
        answer = client.call("POST", "agents", body, Idempotency_Key="k1")
        assert answer.status_code == 201
    assert Agent.objects.count() == 3


def test_killed_stays_killed_for_the_api_without_orders(world: World, owner: Api) -> None:
    agent = world.agent()
    answer = owner.call("PATCH", f"agents/{agent.pk}", {"state": "killed"})
    assert answer.json()["errors"] == {"state": ["unknown field"]}
    assert domain.find(Agent, organization_id=world.id, object_id=agent.pk).state == "active"
