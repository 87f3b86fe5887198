"""API tokens: what they may, how they end, and what is refused before anybody is asked."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from controlplane.identity import domain
from controlplane.identity.enums import TokenKind
from controlplane.identity.models import ApiToken
from enforcement.rules.keys import make_key
from tests.controlplane.world import NOW, UNKNOWN, Api, World

BODY = {"name": "ci", "scopes": ["read"]}


def refusal(token: str) -> tuple[int, str]:
    answer = Api(token).call("GET", "me")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="comptroller"'
    return answer.status_code, answer.json()["detail"]


def test_a_new_token_works_within_its_scopes(world: World, admin: Api) -> None:
    answer = admin.call("POST", "api-tokens", BODY)
    client = Api(answer.json()["secret"])
    assert answer.status_code == 201
    assert answer.json()["person"] == str(world.people["admin"].pk)
    assert client.call("GET", "me").json()["scopes"] == ["read"]
    assert client.call("GET", "agents").status_code == 200
    assert client.call("POST", "teams", {"slug": "x", "name": "X"}).status_code == 403
    assert ApiToken.objects.get(name="ci").last_used_at is not None


def test_nobody_gives_more_than_they_have(world: World, admin: Api) -> None:
    answer = admin.call("POST", "api-tokens", {"name": "x", "scopes": ["owner", "read"]})
    assert (answer.status_code, answer.json()["detail"]) == (
        403,
        "you lack the scopes owner yourself",
    )
    limited = admin.call("POST", "api-tokens", {"name": "a", "scopes": ["admin"]}).json()["secret"]
    answer = Api(limited).call("POST", "api-tokens", {"name": "x", "scopes": ["kill"]})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x"}, "scopes"),
        ({"name": "x", "scopes": ["*"]}, "scopes"),
        ({"name": "x", "scopes": "read"}, "scopes"),
        ({"name": "x", "kind": "sidecar", "scopes": ["read"]}, "scopes"),
        ({"name": "x", "kind": "agent", "scopes": ["read"]}, "kind"),
        ({"name": "", "scopes": ["read"]}, "name"),
        (BODY | {"person": str(UNKNOWN)}, "person"),
        (BODY | {"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
    ],
)
def test_bad_wishes_are_refused_by_name(
    world: World, owner: Api, body: dict[str, Any], field: str
) -> None:
    answer = owner.call("POST", "api-tokens", body)
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])


def test_malformed_tokens_are_refused_for_their_reason(world: World) -> None:
    secret = world.secrets["owner"]
    cases = {
        secret[:-1]: "malformed token: cut off, or with something added",
        secret + "0": "malformed token: cut off, or with something added",
        secret.swapcase(): "malformed token: does not start with cmp_",
        "sk-123": "malformed token: does not start with cmp_",
        "cmp_" + "x" * 200: "malformed token: too long for a key",
        secret[:-1] + ("a" if secret[-1] != "a" else "b"): (
            "malformed token: mistyped: the checksum is wrong"
        ),
    }
    assert {token: refusal(token) for token in cases} == {
        token: (401, words) for token, words in cases.items()
    }


def test_a_token_of_another_kind_is_told_apart(world: World) -> None:
    agent_key = domain.issue_agent_key(agent_id=world.agent().pk, name="k", **world.who).secret
    assert refusal(agent_key) == (401, "this is a key for 'live', not for 'api'")
    assert refusal(world.secrets["sidecar"]) == (401, "this is a key for 'sidecar', not for 'api'")


def test_a_well_formed_but_unknown_token_is_refused(world: World) -> None:
    made = make_key(env="api", id_bytes=bytes(9), secret_bytes=bytes(32))
    assert refusal(made.text) == (401, "unknown token")


def test_the_right_prefix_with_a_wrong_secret_is_as_unknown(world: World) -> None:
    right = ApiToken.objects.get(name="owner")
    wrong = make_key(env="api", id_bytes=bytes(9), secret_bytes=bytes(32))
    ApiToken.objects.create(
        organization=right.organization,
        name="x",
        kind=TokenKind.API,
        prefix=wrong.id,
        token_hash="0" * 64,
        scopes=["read"],
        created_at=NOW,
    )
    assert refusal(wrong.text) == (401, "unknown token")


def test_expired_and_revoked_tokens_are_refused(world: World, owner: Api) -> None:
    later = timezone.now() + timedelta(seconds=30)
    issued = domain.issue_api_token(name="x", scopes=["read"], expires_at=later, **world.who)
    assert Api(issued.secret).call("GET", "me").status_code == 200
    ApiToken.objects.filter(pk=issued.token.pk).update(expires_at=timezone.now())
    assert refusal(issued.secret) == (401, "this token has expired")
    body = {"reason": "lost"}
    assert owner.call("POST", f"api-tokens/{issued.token.pk}/revoke", body).status_code == 200
    assert refusal(issued.secret) == (401, "this token was revoked")


def test_a_deactivated_persons_token_is_refused(world: World) -> None:
    person = world.people["viewer"]
    person.is_active = False
    person.save(update_fields=["is_active"])
    assert refusal(world.secrets["viewer"]) == (401, "the person of this token was deactivated")


def test_without_a_token_nothing_is_said(world: World) -> None:
    answer = Api().call("GET", "agents")
    assert (answer.status_code, answer.json()["title"]) == (401, "Not authenticated")


def test_rotation_keeps_scopes_and_overlaps(world: World, owner: Api) -> None:
    old = domain.issue_api_token(
        name="ci", scopes=["read", "kill"], person_id=world.people["owner"].pk, **world.who
    )
    answer = owner.call("POST", f"api-tokens/{old.token.pk}/rotate", {"overlap_seconds": 60})
    assert answer.status_code == 201
    assert answer.json()["scopes"] == ["kill", "read"]
    for secret in (old.secret, answer.json()["secret"]):
        assert Api(secret).call("GET", "me").status_code == 200


def test_nobody_rotates_anothers_token_to_get_its_secret(world: World, admin: Api) -> None:
    owners = ApiToken.objects.get(name="owner")
    answer = admin.call("POST", f"api-tokens/{owners.pk}/rotate", {})
    assert (answer.status_code, answer.json()["detail"]) == (
        403,
        "the new secret would do what you may not",
    )


def test_a_sidecars_token_is_rotated_by_an_admin(world: World, admin: Api) -> None:
    token = ApiToken.objects.get(kind=TokenKind.SIDECAR)
    answer = admin.call("POST", f"api-tokens/{token.pk}/rotate", {})
    assert (answer.status_code, answer.json()["kind"]) == (201, "sidecar")
    assert answer.json()["secret"].startswith("cmp_sidecar_")


def test_a_foreign_token_is_as_unknown_as_none(world: World, foreigner: Api) -> None:
    token = ApiToken.objects.get(name="viewer", organization=world.organization)
    for method, tail in (("GET", ""), ("POST", "/revoke"), ("POST", "/rotate")):
        foreign = foreigner.call(method, f"api-tokens/{token.pk}{tail}", {} if tail else None)
        unknown = foreigner.call(method, f"api-tokens/{UNKNOWN}{tail}", {} if tail else None)
        assert foreign.status_code == unknown.status_code == 404
        assert foreign.content.replace(str(token.pk).encode(), b"") == unknown.content.replace(
            str(UNKNOWN).encode(), b""
        )


@pytest.mark.parametrize("rows", [1, 3])
def test_a_list_costs_the_same_whatever_its_length(
    world: World, owner: Api, rows: int, django_assert_num_queries: Any
) -> None:
    for number in range(rows):
        domain.issue_api_token(name=f"t{number}", scopes=["read"], **world.who)
    owner.call("GET", "me")
    with django_assert_num_queries(3):  # token, membership, page
        answer = owner.call("GET", "api-tokens")
    assert len(answer.json()["results"]) == rows + 4


def test_use_is_noted_at_most_once_a_minute(world: World, django_assert_num_queries: Any) -> None:
    client = world.clients["viewer"]
    with django_assert_num_queries(4):  # token, membership, note, organization
        client.call("GET", "me")
    with django_assert_num_queries(3):
        client.call("GET", "me")


def test_a_session_needs_the_csrf_token_to_write(world: World) -> None:
    session = Api()
    session.handler.enforce_csrf_checks = True
    session.force_login(world.people["owner"])
    assert session.call("GET", "agents").status_code == 200
    answer = session.call("POST", "teams", {"slug": "x", "name": "X"})
    assert answer.status_code == 403
    assert answer.json()["detail"].startswith("CSRF Failed")
