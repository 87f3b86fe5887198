"""Skills over the API: import, list, verify, sign."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries

from skills.models import Skill, SkillCard
from tests.skills.api.conftest import Api, problem
from tests.skills.conftest import version, zip_of
from tests.skills.publisher import FILES, Publisher

Import = Callable[..., Skill]


def upload(api: Api, raw: bytes) -> Any:
    file = io.BytesIO(raw)
    file.name = "skill.zip"
    return api.upload("skills/import", archive=file)


@pytest.mark.usefixtures("trusted_root")
def test_import(api: Api, publisher: Publisher) -> None:
    bundle = {"skill.oms.sig": publisher.sign("example-skill", FILES)}

    response = upload(api, zip_of(FILES | bundle))

    body = response.json()
    assert response.status_code == 201
    assert (body["name"], body["state"], body["reasons"]) == ("example-skill", "verified", [])
    assert body["publisher"] == "Example Publisher"
    assert body["files"]["SKILL.md"]["size"] == len(FILES["SKILL.md"])
    assert body["front_matter"]["allowed-tools"] == "Read Bash"


def test_import_names_why_a_signature_does_not_hold(api: Api, publisher: Publisher) -> None:
    bundle = {"skill.oms.sig": publisher.sign("example-skill", FILES)}

    body = upload(api, zip_of(FILES | bundle)).json()

    assert body["state"] == "wrong_root"
    assert [reason["code"] for reason in body["reasons"]] == ["no_trust_root"]


@pytest.mark.parametrize("raw", [b"", b"not a zip", zip_of({"../SKILL.md": b""})])
def test_import_of_what_is_no_skill(api: Api, raw: bytes) -> None:
    response = upload(api, raw)

    assert problem(response)[0] in {400, 422}
    assert Skill.objects.count() == 0


def test_import_refuses_unknown_fields_by_name(api: Api) -> None:
    response = api.upload("skills/import", archive=io.BytesIO(b"x"), force="1")

    assert problem(response) == (400, "invalid")
    assert response.json()["errors"] == {"force": ["unknown field"]}


@pytest.mark.parametrize(("rows", "queries"), [(1, 2), (3, 2)])
def test_list(
    api: Api,
    import_files: Import,
    django_assert_num_queries: DjangoAssertNumQueries,
    rows: int,
    queries: int,
) -> None:
    for number in range(rows):
        import_files(version(FILES, f"1.{number}.0"), signed=False)

    api.get("skills")  # the token's first use is written down

    with django_assert_num_queries(queries):
        response = api.get("skills")

    found = [item["version"] for item in response.json()["results"]]
    assert found == [f"1.{number}.0" for number in reversed(range(rows))]


def test_filter(api: Api, import_files: Import) -> None:
    import_files(signed=False)

    assert len(api.get("skills?state=unsigned").json()["results"]) == 1
    assert api.get("skills?state=verified").json()["results"] == []


def test_detail_and_verify(api: Api, import_files: Import) -> None:
    skill = import_files(signed=False)

    assert api.get(f"skills/{skill.pk}").json()["root_digest"] == skill.root_digest
    assert api.post(f"skills/{skill.pk}/verify").json()["state"] == "unsigned"


def test_sign(api: Api, import_files: Import) -> None:
    skill = import_files(signed=False)

    response = api.post(
        f"skills/{skill.pk}/sign",
        {
            "capabilities": {
                "tools": [{"name": "Bash", "args": {"command": ["git *"]}}],
                "net": [{"host": "api.example.com"}],
            },
            "budget": {"per_activation": {"usd": "2.50", "tokens": 1000}},
            "source": {"repo": "https://example.com/skills", "commit": "abc"},
            "expires": "2099-01-01T00:00:00Z",
            "reason": "first card",
        },
    )

    body = response.json()
    assert response.status_code == 201
    assert (body["card_rev"], body["tools"], body["verdict"]["code"]) == (1, ["Bash"], "valid")
    assert body["verify_command"] == (
        f"comptroller cards verify example-skill-r1.card.json --key {body['public_key']}"
    )
    statement = _statement(body["envelope"])["predicate"]
    assert statement["budget"] == {"per_activation": {"tokens": 1000, "usd_nanos": 2_500_000_000}}
    assert statement["capabilities"]["net"] == [{"host": "api.example.com"}]
    assert statement["skill"]["source"]["commit"] == "abc"


def _statement(envelope: str) -> Any:
    import base64
    import json

    return json.loads(base64.b64decode(json.loads(envelope)["payload"]))


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"expires": "2001-01-01T00:00:00Z"}, (422, "card-refused")),
        ({"expires": "soon"}, (400, "invalid")),
        ({"expires": None}, (400, "invalid")),
        ({"reason": ""}, (400, "invalid")),
        ({"surprise": 1}, (400, "invalid")),
        ({"capabilities": {"shell": True}}, (400, "invalid")),
        ({"capabilities": {"tools": ["Bash"]}}, (400, "invalid")),
        ({"capabilities": 7}, (400, "invalid")),
        ({"budget": {"per_activation": {"usd": 2.5}}}, (400, "invalid")),
        ({"budget": {"per_activation": {"usd": "-1"}}}, (422, "card-refused")),
        ({"budget": {"per_week": {}}}, (400, "invalid")),
        ({"budget": {"per_day": {"tokens": 1 << 60}}}, (422, "card-refused")),
    ],
    ids=str,
)
def test_cards_that_are_not_signed(
    api: Api, import_files: Import, change: dict[str, Any], status: tuple[int, str]
) -> None:
    skill = import_files(signed=False)
    body = {"expires": "2099-01-01T00:00:00Z", "reason": "x"} | change

    assert problem(api.post(f"skills/{skill.pk}/sign", body)) == status
    assert SkillCard.objects.count() == 0


def test_unknown_capability_is_named(api: Api, import_files: Import) -> None:
    skill = import_files(signed=False)
    body = {"expires": "2099-01-01T00:00:00Z", "reason": "x", "capabilities": {"shell": 1}}

    errors = api.post(f"skills/{skill.pk}/sign", body).json()["errors"]

    assert errors["capabilities"] == ["capabilities: Object contains unknown field `shell`"]


def test_skill_that_is_not_trusted_gets_no_card(api: Api, import_files: Import) -> None:
    skill = import_files()
    body = {"expires": "2099-01-01T00:00:00Z", "reason": "x"}

    response = api.post(f"skills/{skill.pk}/sign", body)

    assert problem(response) == (422, "not-signable")
    assert "no trust root is switched on" in response.json()["detail"]


def test_readers_read_only(reader: Api, import_files: Import) -> None:
    skill = import_files(signed=False)

    assert reader.get("skills").status_code == 200
    assert problem(upload(reader, zip_of(FILES)))[0] == 403
    assert problem(reader.post(f"skills/{skill.pk}/verify"))[0] == 403
    assert problem(reader.post(f"skills/{skill.pk}/sign"))[0] == 403


def test_strangers_see_nothing(foreigner: Api, import_files: Import) -> None:
    skill = import_files(signed=False)

    assert foreigner.get("skills").json()["results"] == []
    assert problem(foreigner.get(f"skills/{skill.pk}"))[0] == 404
    assert problem(foreigner.post(f"skills/{skill.pk}/verify"))[0] == 404
    body = {"expires": "2099-01-01T00:00:00Z", "reason": "x"}
    assert problem(foreigner.post(f"skills/{skill.pk}/sign", body))[0] == 404
