"""Sidecars over the REST API: enrol, list, revoke."""

import pytest

from controlplane.audit.models import AuditEntry
from controlplane.identity.models import ApiToken
from enforcement.models import Sidecar
from tests.controlplane.world import Api, World


def test_enrolment_shows_the_token_once(admin: Api) -> None:
    answer = admin.call("POST", "sidecars", {"name": "edge-1"})
    assert answer.status_code == 201
    body = answer.json()
    token = ApiToken.objects.get(kind="sidecar", name="sidecar edge-1")
    assert (body["name"], body["token_prefix"], body["revoked_at"]) == (
        "edge-1",
        token.prefix,
        None,
    )
    assert token.prefix in body["secret"]
    shown = admin.call("GET", f"sidecars/{body['id']}").json()
    assert "secret" not in shown
    assert AuditEntry.objects.filter(action="sidecar.enrol", object_id=body["id"]).count() == 1


def test_the_same_key_enrols_once_and_shows_no_secret_again(admin: Api) -> None:
    first, second = (
        admin.call("POST", "sidecars", {"name": "edge-1"}, Idempotency_Key="k") for _ in range(2)
    )
    assert first.json()["id"] == second.json()["id"]
    assert second.json()["secret"] is None
    assert Sidecar.objects.count() == 1


def test_a_name_is_given_once(admin: Api, sidecar: Sidecar) -> None:
    answer = admin.call("POST", "sidecars", {"name": sidecar.name})
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:comptroller:problem:sidecar-name-taken"
    assert ApiToken.objects.filter(name="sidecar edge-1").count() == 1


@pytest.mark.parametrize(
    "body", [{}, {"name": ""}, {"name": "x" * 101}, {"name": "a", "token": "b"}]
)
def test_a_sidecar_needs_a_name_and_nothing_else(admin: Api, body: dict[str, str]) -> None:
    assert admin.call("POST", "sidecars", body).status_code == 400
    assert not Sidecar.objects.exists()


def test_a_revoked_sidecar_is_shown_as_such(admin: Api, sidecar: Sidecar) -> None:
    answer = admin.call("POST", f"sidecars/{sidecar.pk}/revoke", {"reason": "stolen"})
    assert answer.status_code == 200
    assert answer.json()["revoked_at"] is not None
    assert AuditEntry.objects.get(action="sidecar.revoke").reason == "stolen"
    assert admin.call("GET", "sidecars?token__revoked_at__isnull=true").json()["results"] == []


def test_sidecars_are_written_by_admins_only(viewer: Api, sidecar: Sidecar) -> None:
    assert viewer.call("GET", "sidecars").status_code == 200
    assert viewer.call("POST", "sidecars", {"name": "b"}).status_code == 403
    assert viewer.call("POST", f"sidecars/{sidecar.pk}/revoke", {}).status_code == 403


def test_anothers_sidecars_are_unknown(foreigner: Api, sidecar: Sidecar) -> None:
    assert foreigner.call("GET", "sidecars").json()["results"] == []
    assert foreigner.call("GET", f"sidecars/{sidecar.pk}").status_code == 404
    assert foreigner.call("POST", f"sidecars/{sidecar.pk}/revoke", {}).status_code == 404
    assert ApiToken.objects.get(pk=sidecar.token_id).revoked_at is None


def test_a_sidecars_own_token_reads_nothing_here(world: World, sidecar: Sidecar) -> None:
    assert world.clients["sidecar"].call("GET", "sidecars").status_code == 401
