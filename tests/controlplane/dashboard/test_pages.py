"""The frame of every page, the overview, the trail and the settings."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from controlplane.audit.models import AuditEntry
from controlplane.identity.domain import issue_api_token, make_sign_in_link
from controlplane.identity.enums import Role
from controlplane.identity.models import ApiToken, Membership, Person
from tests.budgets.world import World, make_balance, make_budget
from tests.enforcement.dashboard.fleet import make_sidecar, make_spool, session
from tests.enforcement.dashboard.test_agent_pages import call_now, refuse_now
from tests.visitors import SYSTEM, Visitors

Queries = Callable[[int], AbstractContextManager[Any]]
PAGES = (
    "/",
    "/budgets/",
    "/agents/",
    "/nodes/",
    "/prices/",
    "/skills/",
    "/audit/",
    "/tasks/",
    "/settings/",
)


@pytest.mark.parametrize("path", PAGES)
def test_every_page_wants_a_member(world: World, visitors: Visitors, path: str) -> None:
    assert visitors.viewer.get(path).status_code == 200
    assert visitors.nobody.get(path).headers["Location"] == f"/sign-in/?next={path}"
    outsider = Client()
    outsider.force_login(Person.objects.create(email="o@example.com", created_at=timezone.now()))
    assert outsider.get(path).status_code == 403


@pytest.mark.parametrize("path", PAGES)
def test_every_page_has_a_strict_policy_and_one_heading(
    world: World, visitors: Visitors, path: str
) -> None:
    response = visitors.owner.get(path)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert response.content.count(b"<h1") == 1
    assert b'href="#main"' in response.content


def test_a_member_of_two_organizations_chooses(world: World, visitors: Visitors) -> None:
    stranger = Membership.objects.get(organization__slug="other")
    Membership.objects.create(
        organization=world.organization,
        person=stranger.person,
        role=Role.VIEWER,
        created_at=timezone.now(),
    )
    client = visitors.stranger
    assert client.get("/").context["organization"].slug == "other"
    client.post("/preferences/organization/", {"organization": str(world.id)})
    context = client.get("/").context
    assert (context["organization"].slug, context["may_write"]) == ("acme", False)


def test_the_overview_sums_the_day(world: World, visitors: Visitors) -> None:
    make_balance(make_budget(world, name="Near"), spent_amount=850_000_000)
    make_spool(make_sidecar(world, "gpu"), sessions=[session(world, running=2)])
    call_now(world, world.loner, charge_nanos=1_250_000_000)
    refuse_now(world, world.loner, count=3)
    context = visitors.viewer.get("/").context
    assert (context["today"].charge_nanos, context["today"].stopped) == (1_250_000_000, 3)
    assert (context["risk"].near, context["running"], context["links"].online) == (1, 2, 1)
    assert [row.slug for row in context["agents"]] == ["reader", "loner"]
    assert [row.word for row in context["stops"]] == ["refused 3 times"]
    assert len(context["hours"]) == 24
    assert context["hours"][-1].spend.calls == 1


def test_a_new_organization_is_told_how_to_begin(world: World, visitors: Visitors) -> None:
    assert b"Three steps" in visitors.owner.get("/").content
    call_now(world, world.agent)
    assert b"Three steps" not in visitors.owner.get("/").content


@pytest.mark.parametrize("count", [1, 3])
def test_the_overview_asks_as_often_for_three_of_all_as_for_one(
    world: World, visitors: Visitors, count: int, django_assert_num_queries: Queries
) -> None:
    for index in range(count):
        make_balance(make_budget(world, name=f"Budget {index}"), spent_amount=index)
        make_spool(make_sidecar(world, f"gpu-{index}"), sessions=[session(world)])
        call_now(world, world.agent)
        refuse_now(world, world.agent)
    with django_assert_num_queries(25):
        assert visitors.viewer.get("/").status_code == 200


def test_the_trail_tells_who_changed_what(world: World, visitors: Visitors) -> None:
    wish = {"name": "Reader two", "team": "", "project": "", "owner": ""}
    visitors.admin.post(f"/agents/{world.agent.id}/edit/", wish)
    entry = visitors.viewer.get("/audit/?q=agent.change").context["entries"][0]
    assert (entry.actor, entry.words) == ("Acme Admin", "changed the agent")
    change = next(change for change in entry.changes if change.name == "name")
    assert (change.before, change.after) == ("Reader", "Reader two")


def test_the_trail_of_others_is_not_shown(world: World, visitors: Visitors) -> None:
    visitors.owner.post(f"/agents/{world.agent.id}/kill/", {"reason": "a secret reason"})
    for path in ("/audit/", "/audit/export.csv"):
        assert "a secret reason" in visitors.viewer.get(path).content.decode()
        assert "a secret reason" not in visitors.stranger.get(path).content.decode()


@pytest.mark.parametrize("count", [1, 3])
def test_the_trail_asks_as_often_for_three_entries_as_for_one(
    world: World, visitors: Visitors, count: int, django_assert_num_queries: Queries
) -> None:
    for index in range(count):
        make_budget(world, name=f"Budget {index}")
    with django_assert_num_queries(6):
        assert visitors.viewer.get("/audit/").status_code == 200


def test_a_token_is_shown_once(world: World, visitors: Visitors) -> None:
    visitors.admin.post("/settings/tokens/", {"name": "export", "scopes": ["read"]})
    token = ApiToken.objects.get(name="export")
    assert token.scopes == ["read"]
    first = visitors.admin.get("/settings/").context["new_secret"]
    assert token.prefix in first["text"]
    assert visitors.admin.get("/settings/").context["new_secret"] is None
    visitors.admin.post(f"/settings/tokens/{token.id}/revoke/")
    token.refresh_from_db()
    assert token.revoked_at is not None


def test_nobody_gives_a_token_more_than_they_may(world: World, visitors: Visitors) -> None:
    wish = {"name": "all", "scopes": ["read", "owner"]}
    assert visitors.admin.post("/settings/tokens/", wish).status_code == 403
    assert visitors.viewer.post("/settings/tokens/", wish).status_code == 403
    assert ApiToken.objects.count() == 0


def test_people_are_added_and_let_in_by_a_link(world: World, visitors: Visitors) -> None:
    visitors.admin.post(
        "/settings/people/", {"email": "new@acme.example", "name": "New", "role": "viewer"}
    )
    person = Person.objects.get(email="new@acme.example")
    visitors.admin.post(f"/settings/people/{person.id}/link/")
    link = visitors.admin.get("/settings/").context["new_secret"]["text"]
    guest = Client()
    path = "/" + link.split("/", 3)[3]
    assert guest.get(path).status_code == 200
    assert guest.post(path).headers["Location"] == "/"
    assert guest.get("/").context["role"] == "viewer"


def test_admins_neither_make_owners_nor_become_them(world: World, visitors: Visitors) -> None:
    wish = {"email": "boss@acme.example", "role": "owner"}
    assert visitors.admin.post("/settings/people/", wish).status_code == 403
    owner = Membership.objects.get(organization=world.organization, role=Role.OWNER)
    assert visitors.admin.post(f"/settings/people/{owner.person_id}/link/").status_code == 403
    assert visitors.viewer.post("/settings/people/", wish).status_code == 403


@pytest.mark.parametrize("count", [1, 3])
def test_the_settings_ask_as_often_for_three_of_all_as_for_one(
    world: World, visitors: Visitors, count: int, django_assert_num_queries: Queries
) -> None:
    for index in range(count):
        issue_api_token(
            organization_id=world.id,
            name=f"token {index}",
            scopes=["read"],
            actor=SYSTEM,
            now=timezone.now(),
        )
    with django_assert_num_queries(5):
        assert visitors.viewer.get("/settings/").status_code == 200


def test_a_link_asks_before_it_is_used_up(world: World, visitors: Visitors) -> None:
    person = Membership.objects.get(organization__slug="other").person
    path = f"/sign-in/{make_sign_in_link(person_id=person.id, now=timezone.now())}/"
    client = Client()
    assert [client.get(path).status_code for _ in range(3)] == [200, 200, 200]
    assert client.post(path).headers["Location"] == "/"
    assert client.post(path).headers["Location"] == "/sign-in/"


def test_signing_in_follows_only_addresses_of_ours(world: World, visitors: Visitors) -> None:
    person = Person.objects.get(email="owner@acme.example")
    person.set_password("a-long-password")
    person.save()
    wish = {"email": "owner@acme.example", "password": "a-long-password"}
    ours = Client().post("/sign-in/?next=/budgets/", wish)
    theirs = Client().post("/sign-in/?next=https://evil.example/", wish)
    assert (ours.headers["Location"], theirs.headers["Location"]) == ("/budgets/", "/")


def test_too_many_wrong_passwords_must_wait(world: World, visitors: Visitors) -> None:
    wish = {"email": "owner@acme.example", "password": "wrong"}
    client = Client()
    codes = [client.post("/sign-in/", wish).status_code for _ in range(6)]
    assert codes == [422, 422, 422, 422, 422, 429]


def test_the_theme_is_kept_and_nothing_else(world: World, visitors: Visitors) -> None:
    client = visitors.viewer
    answer = client.post("/preferences/theme/", {"theme": "dark", "next": "//evil.example"})
    assert answer.headers["Location"] == "/"
    assert b'data-theme="dark"' in client.get("/").content
    client.post("/preferences/theme/", {"theme": '"><script>'})
    assert b'data-theme="dark"' in client.get("/").content


def test_looking_writes_nothing_down(world: World, visitors: Visitors) -> None:
    before = AuditEntry.objects.count()
    for path in PAGES:
        visitors.viewer.get(path)
    assert AuditEntry.objects.count() == before


def test_a_role_is_changed_and_a_member_removed(world: World, visitors: Visitors) -> None:
    person = Person.objects.get(email="viewer@acme.example")
    visitors.admin.post(f"/settings/people/{person.id}/role/", {"role": "admin"})
    assert Membership.objects.get(person=person).role == Role.ADMIN
    visitors.admin.post(f"/settings/people/{person.id}/remove/")
    assert visitors.viewer.get("/").status_code == 403
    assert Membership.objects.filter(person=person).count() == 0


def test_the_last_owner_stays(world: World, visitors: Visitors) -> None:
    owner = Person.objects.get(email="owner@acme.example")
    for path, wish in (("role", {"role": "viewer"}), ("remove", {})):
        page = visitors.owner.post(f"/settings/people/{owner.id}/{path}/", wish, follow=True)
        assert "keeps" in page.content.decode()
    assert Membership.objects.get(person=owner).role == Role.OWNER


def test_admins_leave_owners_alone(world: World, visitors: Visitors) -> None:
    owner = Person.objects.get(email="owner@acme.example")
    viewer = Person.objects.get(email="viewer@acme.example")
    codes = [
        visitors.admin.post(path, {"role": role}).status_code
        for path, role in (
            (f"/settings/people/{owner.id}/role/", "viewer"),
            (f"/settings/people/{owner.id}/remove/", ""),
            (f"/settings/people/{viewer.id}/role/", "owner"),
        )
    ]
    assert codes == [403, 403, 403]
    assert visitors.stranger.post(f"/settings/people/{viewer.id}/remove/").status_code == 404
    assert (
        visitors.owner.post(f"/settings/people/{viewer.id}/role/", {"role": "god"}).status_code
        == 404
    )


def test_the_organization_gets_a_name_and_a_zone(world: World, visitors: Visitors) -> None:
    wish = {"name": "Acme Two", "time_zone": "Asia/Tokyo"}
    assert visitors.admin.post("/settings/organization/", wish).status_code == 302
    world.organization.refresh_from_db()
    assert (world.organization.name, world.organization.time_zone) == ("Acme Two", "Asia/Tokyo")
    wrong = visitors.admin.post("/settings/organization/", {**wish, "time_zone": "Mars"})
    assert wrong.status_code == 422
    assert visitors.viewer.post("/settings/organization/", wish).status_code == 403
