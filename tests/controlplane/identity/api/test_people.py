"""People over the API: roles, owners, invitations that take nobody over."""

from typing import Any

import pytest

from controlplane.audit.models import AuditEntry
from controlplane.identity import domain
from controlplane.identity.enums import Role
from controlplane.identity.models import Membership, Person, SignInLink
from tests.controlplane.world import NOW, UNKNOWN, Api, World


def title(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["title"]


def test_an_admin_adds_a_viewer(world: World, admin: Api) -> None:
    body = {"email": " New@Example.com ", "name": "Nia", "role": "viewer"}
    answer = admin.call("POST", "people", body)
    person = Person.objects.get(email="new@example.com")
    assert answer.status_code == 201
    assert answer.json()["id"] == str(person.pk)
    assert (answer.json()["name"], answer.json()["role"]) == ("Nia", "viewer")
    assert not person.has_usable_password()
    entry = AuditEntry.objects.get(action="member.add", object_id=str(person.pk))
    assert entry.after == {"email": "new@example.com", "role": "viewer"}


def test_adding_somebody_twice_in_another_role_is_refused(world: World, owner: Api) -> None:
    body = {"email": world.people["viewer"].email, "role": "admin"}
    assert title(owner.call("POST", "people", body)) == (409, "Already member")
    assert Membership.objects.get(person=world.people["viewer"]).role == "viewer"


def test_only_owners_make_and_unmake_owners(world: World, owner: Api, admin: Api) -> None:
    viewer, own = world.people["viewer"], world.people["owner"]
    refused = (403, "Owners only")
    new = {"email": "x@example.com", "role": "owner"}
    assert title(admin.call("POST", "people", new)) == refused
    assert title(admin.call("PATCH", f"people/{viewer.pk}", {"role": "owner"})) == refused
    assert title(admin.call("PATCH", f"people/{own.pk}", {"role": "viewer"})) == refused
    assert title(admin.call("DELETE", f"people/{own.pk}")) == refused
    assert title(admin.call("POST", f"people/{own.pk}/sign-in-link")) == refused
    assert owner.call("PATCH", f"people/{viewer.pk}", {"role": "owner"}).status_code == 200
    assert owner.call("PATCH", f"people/{own.pk}", {"role": "admin"}).status_code == 200


def test_the_last_owner_stays(world: World, owner: Api) -> None:
    own = world.people["owner"]
    answers = [
        owner.call("PATCH", f"people/{own.pk}", {"role": "admin"}),
        owner.call("DELETE", f"people/{own.pk}"),
    ]
    assert [title(answer) for answer in answers] == [(409, "Last owner")] * 2
    assert Membership.objects.get(person=own).role == "owner"


def test_who_is_removed_loses_their_tokens(world: World, owner: Api) -> None:
    admin = world.people["admin"]
    assert world.clients["admin"].call("GET", "me").status_code == 200
    assert owner.call("DELETE", f"people/{admin.pk}").status_code == 204
    answer = world.clients["admin"].call("GET", "me")
    assert (answer.status_code, answer.json()["detail"]) == (401, "this token was revoked")
    assert title(owner.call("GET", f"people/{admin.pk}")) == (404, "Not found")


def test_who_is_demoted_has_weaker_tokens_at_once(world: World, owner: Api) -> None:
    admin = world.people["admin"]
    owner.call("PATCH", f"people/{admin.pk}", {"role": "viewer"})
    client = world.clients["admin"]
    assert client.call("GET", "me").json()["scopes"] == ["read"]
    assert client.call("POST", "teams", {"slug": "x", "name": "X"}).status_code == 403


def test_an_invited_person_signs_in_by_the_link(world: World, admin: Api) -> None:
    viewer = world.people["viewer"]
    answer = admin.call("POST", f"people/{viewer.pk}/sign-in-link")
    url = answer.json()["sign_in_url"]
    assert answer.status_code == 201
    assert url.startswith("http://testserver/sign-in/")
    secret = url.rstrip("/").rpartition("/")[2]
    assert SignInLink.objects.get().person == viewer
    assert secret not in str(list(SignInLink.objects.values()))
    assert AuditEntry.objects.filter(action="person.invite").count() == 1


def test_no_organization_signs_in_a_person_whom_another_knows(
    world: World, stranger: World
) -> None:
    victim = stranger.people["viewer"]
    world.clients["owner"].call("POST", "people", {"email": victim.email, "role": "viewer"})
    answer = world.clients["owner"].call("POST", f"people/{victim.pk}/sign-in-link")
    assert title(answer) == (403, "Foreign person")
    assert SignInLink.objects.count() == 0


def test_adding_a_known_person_takes_neither_name_nor_password(
    world: World, stranger: World
) -> None:
    victim = stranger.people["viewer"]
    domain.add_member(
        email=victim.email.upper(),
        name="Renamed",
        password="a password of an attacker",
        role=Role.VIEWER,
        **world.who,
    )
    victim.refresh_from_db()
    assert victim.name == "Viewer"
    assert not victim.has_usable_password()


def test_a_foreign_person_is_as_unknown_as_none(world: World, foreigner: Api) -> None:
    viewer = world.people["viewer"]
    for method, tail, body in (
        ("GET", "", None),
        ("PATCH", "", {"role": "admin"}),
        ("DELETE", "", None),
        ("POST", "/sign-in-link", None),
    ):
        foreign = foreigner.call(method, f"people/{viewer.pk}{tail}", body)
        unknown = foreigner.call(method, f"people/{UNKNOWN}{tail}", body)
        assert foreign.status_code == unknown.status_code == 404
        assert foreign.content.replace(str(viewer.pk).encode(), b"") == unknown.content.replace(
            str(UNKNOWN).encode(), b""
        )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"email": "x", "role": "viewer"}, "email"),
        ({"email": "x@example.com", "role": "staff"}, "role"),
        ({"email": "x@example.com", "role": "viewer", "is_staff": True}, "is_staff"),
        ({"email": "x@example.com", "role": "viewer", "password": "x"}, "password"),
        ({"role": "viewer"}, "email"),
    ],
)
def test_bad_wishes_are_refused_by_name(
    world: World, owner: Api, body: dict[str, Any], field: str
) -> None:
    answer = owner.call("POST", "people", body)
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])


@pytest.mark.parametrize("rows", [1, 3])
def test_a_list_costs_the_same_whatever_its_length(
    world: World, owner: Api, rows: int, django_assert_num_queries: Any
) -> None:
    for number in range(rows):
        domain.add_member(email=f"p{number}@example.com", role=Role.VIEWER, **world.who)
    owner.call("GET", "me")
    with django_assert_num_queries(3):  # token, membership, page with people
        answer = owner.call("GET", "people")
    assert len(answer.json()["results"]) == rows + 3


def test_a_password_is_changed_in_a_session_only(world: World, owner: Api) -> None:
    person = world.people["owner"]
    body = {"password": "correct horse battery"}
    assert owner.call("PUT", "me/password", body).status_code == 403
    session = Api()
    session.force_login(person)
    assert session.call("PUT", "me/password", body).status_code == 204
    person.refresh_from_db()
    assert person.check_password("correct horse battery")
    session.force_login(person)
    wrong = session.call("PUT", "me/password", body | {"current_password": "guess"})
    assert wrong.json()["errors"] == {"current_password": ["This is not the password."]}
    short = {"password": "short", "current_password": "correct horse battery"}
    assert list(session.call("PUT", "me/password", short).json()["errors"]) == ["password"]


def test_a_member_of_nothing_is_told_so(world: World) -> None:
    nobody = Person.objects.create(email="n@example.com", created_at=NOW)
    session = Api()
    session.force_login(nobody)
    answer = session.call("GET", "agents")
    assert (answer.status_code, answer.json()["detail"]) == (
        403,
        "you are a member of no organization",
    )
