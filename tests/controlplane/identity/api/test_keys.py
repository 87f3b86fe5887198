"""Keys of agents over the API: shown once, rotated with overlap, revoked for ever."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from controlplane.audit.models import AuditEntry
from controlplane.identity.domain import organization_pepper
from controlplane.identity.models import AgentKey, Organization
from enforcement.rules.keys import hash_matches, parse_key
from tests.controlplane.world import UNKNOWN, Api, World


def test_a_secret_is_shown_once_and_stored_as_hash(world: World, admin: Api) -> None:
    agent = world.agent()
    answer = admin.call("POST", f"agents/{agent.pk}/keys", {"name": "laptop"})
    secret = answer.json()["secret"]
    key = AgentKey.objects.get()
    assert answer.status_code == 201
    assert parse_key(secret).env == "live"
    assert parse_key(secret).id == key.prefix == answer.json()["prefix"]
    assert hash_matches(secret, key.key_hash, pepper=organization_pepper(world.id))
    for path in (f"agents/{agent.pk}/keys", f"agent-keys/{key.pk}", "agent-keys", "audit-entries"):
        shown = admin.call("GET", path).content.decode()
        assert secret not in shown
        assert secret[-20:] not in shown
        assert key.key_hash not in shown


def test_issuing_and_revoking_raise_the_policy_revision(world: World, admin: Api) -> None:
    agent = world.agent()
    before = Organization.objects.get().policy_revision
    key = admin.call("POST", f"agents/{agent.pk}/keys", {}).json()
    admin.call("POST", f"agent-keys/{key['id']}/revoke", {"reason": "lost"})
    assert Organization.objects.get().policy_revision == before + 2
    actions = AuditEntry.objects.filter(object_id=key["id"]).values_list("action", "reason")
    assert list(actions) == [("agent_key.revoke", "lost"), ("agent_key.issue", "")]


def test_revoking_again_changes_nothing(world: World, admin: Api) -> None:
    key = world.key(world.agent())
    first = admin.call("POST", f"agent-keys/{key.pk}/revoke", {}).json()
    again = admin.call("POST", f"agent-keys/{key.pk}/revoke", {}).json()
    assert first == again
    assert first["revoked_at"] is not None
    assert AuditEntry.objects.filter(action="agent_key.revoke").count() == 1


def test_rotation_with_overlap_lets_the_old_key_end_later(world: World, admin: Api) -> None:
    key = world.key(world.agent())
    began = timezone.now()
    answer = admin.call("POST", f"agent-keys/{key.pk}/rotate", {"overlap_seconds": 3600})
    key.refresh_from_db()
    assert answer.status_code == 201
    assert answer.json()["name"] == key.name
    assert answer.json()["id"] != str(key.pk)
    assert key.revoked_at is None
    assert key.expires_at is not None
    assert began + timedelta(hours=1) <= key.expires_at <= timezone.now() + timedelta(hours=1)


def test_rotation_without_overlap_revokes_the_old_key(world: World, admin: Api) -> None:
    key = world.key(world.agent())
    assert admin.call("POST", f"agent-keys/{key.pk}/rotate", {}).status_code == 201
    key.refresh_from_db()
    assert key.revoked_at is not None
    again = admin.call("POST", f"agent-keys/{key.pk}/rotate", {})
    assert (again.status_code, again.json()["title"]) == (409, "Key revoked")


def test_a_repeated_issue_makes_no_second_key_and_stores_no_secret(
    world: World, admin: Api
) -> None:
    agent = world.agent()
    first = admin.call("POST", f"agents/{agent.pk}/keys", {}, Idempotency_Key="k").json()
    again = admin.call("POST", f"agents/{agent.pk}/keys", {}, Idempotency_Key="k").json()
    assert again == first | {"secret": None}
    assert AgentKey.objects.count() == 1


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({"expires_at": "2020-01-01T00:00:00Z"}, {"expires_at": ["must lie in the future"]}),
        ({"expires_at": "soon"}, ["expires_at"]),
        ({"secret": "mine"}, {"secret": ["unknown field"]}),
        ({"key_hash": "0" * 64}, {"key_hash": ["unknown field"]}),
        ({"name": "x" * 101}, ["name"]),
    ],
)
def test_bad_wishes_are_refused_by_name(
    world: World, admin: Api, body: dict[str, Any], errors: Any
) -> None:
    answer = admin.call("POST", f"agents/{world.agent().pk}/keys", body)
    assert answer.status_code == 400
    got = answer.json()["errors"]
    assert (list(got) if isinstance(errors, list) else got) == errors


def test_a_foreign_key_is_as_unknown_as_none(world: World, foreigner: Api) -> None:
    key = world.key(world.agent())
    for method, tail in (("GET", ""), ("POST", "/revoke"), ("POST", "/rotate")):
        foreign = foreigner.call(method, f"agent-keys/{key.pk}{tail}", {} if tail else None)
        unknown = foreigner.call(method, f"agent-keys/{UNKNOWN}{tail}", {} if tail else None)
        assert foreign.status_code == unknown.status_code == 404
        assert foreign.json() == {
            name: value.replace(str(UNKNOWN), str(key.pk)) if isinstance(value, str) else value
            for name, value in unknown.json().items()
        }
    key.refresh_from_db()
    assert key.revoked_at is None


@pytest.mark.parametrize("rows", [1, 3])
def test_a_list_costs_the_same_whatever_its_length(
    world: World, admin: Api, rows: int, django_assert_num_queries: Any
) -> None:
    agent = world.agent()
    for number in range(rows):
        world.key(agent, f"k{number}")
    admin.call("GET", "me")
    with django_assert_num_queries(3):  # token, membership, page
        answer = admin.call("GET", "agent-keys?revoked_at__isnull=true")
    assert len(answer.json()["results"]) == rows
    with django_assert_num_queries(4):  # and the agent
        answer = admin.call("GET", f"agents/{agent.pk}/keys")
    assert len(answer.json()["results"]) == rows
