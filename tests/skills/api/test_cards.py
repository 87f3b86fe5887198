"""Cards, grants, trust roots, revocations and the requirement over the API."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from pytest_django import DjangoAssertNumQueries

from controlplane.identity.models import Agent
from skills.models import Skill, SkillCard, SkillGrant, TrustRoot
from tests.skills.api.conftest import Api, problem
from tests.skills.conftest import make_agent
from tests.skills.publisher import PIN, Publisher

Sign = Callable[..., SkillCard]


@pytest.fixture
def skill(import_files: Callable[..., Skill]) -> Skill:
    return import_files(signed=False)


@pytest.fixture
def card(skill: Skill, sign: Sign) -> SkillCard:
    return sign(skill)


# ---------------------------------------------------------------------------- cards


@pytest.mark.parametrize(("rows", "queries"), [(1, 4), (3, 4)])
def test_list_of_cards(
    api: Api,
    skill: Skill,
    sign: Sign,
    django_assert_num_queries: DjangoAssertNumQueries,
    rows: int,
    queries: int,
) -> None:
    for _ in range(rows):
        sign(skill)

    api.get("skill-cards")  # the token's first use is written down

    with django_assert_num_queries(queries):
        found = api.get("skill-cards").json()["results"]

    assert [card["card_rev"] for card in found] == list(reversed(range(1, rows + 1)))
    codes = {card["verdict"]["code"] for card in found}
    assert codes <= {"valid", "rolled_back", "expired"}


def test_envelope_is_the_signed_file(api: Api, card: SkillCard) -> None:
    response = api.get(f"skill-cards/{card.pk}/envelope")

    assert response.content.decode() == card.envelope
    assert response["Content-Disposition"] == 'attachment; filename="example-skill-r1.card.json"'


def test_revoke_once(api: Api, card: SkillCard) -> None:
    response = api.post(f"skill-cards/{card.pk}/revoke", {"reason": "leaked"})

    assert (response.json()["state"], response.json()["verdict"]["code"]) == ("revoked", "revoked")
    again = api.post(f"skill-cards/{card.pk}/revoke", {"reason": "again"})
    assert problem(again) == (409, "already-revoked")


def test_revoke_needs_a_reason(api: Api, card: SkillCard) -> None:
    assert problem(api.post(f"skill-cards/{card.pk}/revoke")) == (400, "invalid")


def test_cards_of_others(reader: Api, foreigner: Api, card: SkillCard) -> None:
    assert reader.get(f"skill-cards/{card.pk}").status_code == 200
    assert problem(reader.post(f"skill-cards/{card.pk}/revoke", {"reason": "x"}))[0] == 403
    assert foreigner.get("skill-cards").json()["results"] == []
    for path in ("", "/envelope"):
        assert problem(foreigner.get(f"skill-cards/{card.pk}{path}"))[0] == 404
    assert problem(foreigner.post(f"skill-cards/{card.pk}/revoke", {"reason": "x"}))[0] == 404


# ---------------------------------------------------------------------------- grants


@pytest.fixture
def living_card(skill: Skill, sign: Sign) -> SkillCard:
    """A card that is valid at the real time, at which the API works."""
    from datetime import UTC, datetime

    return sign(skill, expires=datetime(2099, 1, 1, tzinfo=UTC))


def ask(agent: Agent, card: SkillCard, /, **changes: Any) -> dict[str, Any]:
    return {"agent": str(agent.pk), "card": str(card.pk), "reason": "x"} | changes


def test_grant_and_revoke(api: Api, living_card: SkillCard, agent: Agent) -> None:
    response = api.post("skill-grants", ask(agent, living_card, tools=["Read"]))

    body = response.json()
    assert (response.status_code, body["tools"], body["granted_by"]) == (201, ["Read"], "test")
    again = api.post("skill-grants", ask(agent, living_card))
    assert problem(again) == (409, "already-granted")
    revoked = api.post(f"skill-grants/{body['id']}/revoke")
    assert revoked.json()["revoked_at"] is not None
    assert problem(api.post(f"skill-grants/{body['id']}/revoke")) == (409, "already-revoked")


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"tools": ["Write"]}, (422, "card-not-grantable")),
        ({"tools": "Read"}, (400, "invalid")),
        ({"agent": "x"}, (400, "invalid")),
        ({"agent": str(uuid4())}, (404, "not-found-in-organization")),
        ({"card": str(uuid4())}, (404, "not-found-in-organization")),
        ({"reason": ""}, (400, "invalid")),
        ({"extra": 1}, (400, "invalid")),
    ],
    ids=str,
)
def test_grants_that_are_refused(
    api: Api,
    living_card: SkillCard,
    agent: Agent,
    changes: dict[str, Any],
    status: tuple[int, str],
) -> None:
    assert problem(api.post("skill-grants", ask(agent, living_card, **changes))) == status
    assert SkillGrant.objects.count() == 0


def test_grants_of_others(
    reader: Api, foreigner: Api, api: Api, living_card: SkillCard, agent: Agent, stranger: Any
) -> None:
    grant = api.post("skill-grants", ask(agent, living_card)).json()["id"]
    foreign = make_agent(stranger, "other")

    assert len(reader.get("skill-grants").json()["results"]) == 1
    assert problem(reader.post("skill-grants", ask(agent, living_card)))[0] == 403
    assert problem(api.post("skill-grants", ask(foreign, living_card)))[0] == 404
    assert foreigner.get("skill-grants").json()["results"] == []
    assert problem(foreigner.post(f"skill-grants/{grant}/revoke"))[0] == 404
    assert problem(foreigner.post("skill-grants", ask(foreign, living_card)))[0] == 404


# ---------------------------------------------------------------------------- trust


def test_shipped_root_is_switched_on_and_off(api: Api) -> None:
    shipped = api.get("trust-roots").json()[0]
    assert (shipped["shipped"], shipped["enabled"]) == (True, False)

    on = api.post(f"trust-roots/{shipped['id']}/enable", {"reason": "we use them"}).json()
    off = api.post(f"trust-roots/{on['id']}/disable", {"reason": "no more"}).json()

    assert (on["shipped"], on["enabled"], off["enabled"]) == (False, True, False)
    assert off["id"] == on["id"] == api.get("trust-roots").json()[0]["id"]


def test_own_root_starts_off(api: Api, publisher: Publisher) -> None:
    body = {
        "name": "Ours",
        "pem": publisher.root_pem,
        "required_subject": PIN,
        "reason": "our own publisher",
    }

    response = api.post("trust-roots", body)

    assert (response.status_code, response.json()["enabled"]) == (201, False)
    assert problem(api.post("trust-roots", body)) == (422, "trust-root")
    assert problem(api.post("trust-roots", body | {"pem": "x"})) == (422, "trust-root")


def test_trust_needs_an_administrator(
    reader: Api, organization: Any, foreigner: Api, publisher: Publisher
) -> None:
    shipped = TrustRoot.objects.get()
    signer = Api(organization, "read", "cards:write")
    path = f"trust-roots/{shipped.pk}/enable"

    assert problem(reader.post(path, {"reason": "x"}))[0] == 403
    assert problem(signer.post(path, {"reason": "x"}))[0] == 403
    assert foreigner.post(path, {"reason": "x"}).status_code == 200
    assert not TrustRoot.objects.filter(organization=organization).exists()


def test_root_of_another_organization(api: Api, foreigner: Api, publisher: Publisher) -> None:
    body = {"name": "x", "pem": publisher.root_pem, "required_subject": PIN, "reason": "x"}
    own = foreigner.post("trust-roots", body).json()["id"]

    assert problem(api.post(f"trust-roots/{own}/enable", {"reason": "x"}))[0] == 404
    assert problem(api.post("trust-roots/nonsense/enable", {"reason": "x"}))[0] == 404


def test_revocations(api: Api, foreigner: Api, skill: Skill) -> None:
    body = {"kind": "digest", "value": skill.root_digest, "reason": "malicious"}

    response = api.post("skill-revocations", body)

    assert response.status_code == 201
    assert api.get(f"skills/{skill.pk}").json()["reasons"][-1]["code"] == "digest_revoked"
    assert problem(api.post("skill-revocations", body)) == (409, "already-revoked")
    assert problem(api.post("skill-revocations", body | {"value": "xyz"}))[0] == 400
    assert foreigner.get("skill-revocations").json()["results"] == []


def test_signing_keys_show_the_public_half_only(api: Api, card: SkillCard) -> None:
    (key,) = api.get("skill-signing-keys").json()["results"]

    assert key["key_id"] == card.key.key_id
    assert sorted(key) == ["created_at", "distrusted_at", "key_id", "public_key", "retired_at"]


def test_requirement(api: Api, reader: Api, organization: Any) -> None:
    assert reader.get("skill-requirement").json() == {"required": False}
    assert problem(reader.put("skill-requirement", {"required": True, "reason": "x"}))[0] == 403

    response = api.put("skill-requirement", {"required": True, "reason": "policy"})

    organization.refresh_from_db()
    assert (response.json(), organization.requires_skill_cards) == ({"required": True}, True)
    assert problem(api.put("skill-requirement", {"required": "maybe", "reason": "x"}))[0] == 400
