"""Aliases, discounts and price files over the API, and what a call says of the rule it paid by."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from budgets.domain.priceimport import import_catalogue
from budgets.domain.usage import book_usage
from budgets.models import PriceRule, PriceVersion
from tests.budgets.domain.test_priceimport import CATALOGUE
from tests.budgets.world import NOW, World, call, ms

URL = "/api/v1/price-rules"
FILES = "/api/v1/price-versions/import"
DISCOUNT = {"kind": "discount", "provider": "openai", "match": "prefix", "percent": "12.5"}
ALIAS = {"kind": "alias", "model": "house", "target_model": "gpt", "target_provider": "openai"}
SHEET = "model,input,output\ngemma,0.05,0.10\n"


@pytest.fixture(autouse=True)
def catalogue(world: World) -> None:
    import_catalogue(now=NOW, catalogue=CATALOGUE)


def made(client: APIClient, wish: dict[str, Any]) -> dict[str, Any]:
    answer = client.post(URL, wish, format="json")
    assert answer.status_code == 201, answer.json()
    body: dict[str, Any] = answer.json()
    return body


def test_a_discount_is_set_listed_and_ended(owner: APIClient, viewer: APIClient) -> None:
    body = made(owner, DISCOUNT | {"reason": "contract"})
    assert (body["says"], body["percent"], body["reason"], body["valid_to"]) == (
        "openai:* 12.5 % off",
        "12.5",
        "contract",
        None,
    )
    assert viewer.get(URL).json()["results"] == [body]
    versions = viewer.get("/api/v1/price-versions", {"own": "true"}).json()["results"]
    assert {version["rule"] for version in versions} == {body["id"]}
    assert all(version["basis"] for version in versions)
    ended = owner.post(f"{URL}/{body['id']}/end", {"reason": "over"}, format="json")
    assert ended.json()["valid_to"] is not None
    again = owner.post(f"{URL}/{body['id']}/end", {}, format="json")
    assert again.status_code == 404


def test_a_rule_set_twice_by_one_key_is_one(owner: APIClient) -> None:
    headers = {"HTTP_IDEMPOTENCY_KEY": "once"}
    first, second = (owner.post(URL, ALIAS, format="json", **headers) for _ in range(2))
    assert (first.status_code, second.json()) == (201, first.json())
    assert PriceRule.objects.count() == 1


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        (DISCOUNT | {"percent": "0"}, "percent"),
        (DISCOUNT | {"percent": "100"}, "percent"),
        (DISCOUNT | {"percent": "0.05"}, "percent"),
        (DISCOUNT | {"percent": "NaN"}, "percent"),
        (DISCOUNT | {"match": "exact"}, "model"),
        (DISCOUNT | {"target_model": "gpt"}, "target_model"),
        (ALIAS | {"target_model": "unknown"}, "target_model"),
        (ALIAS | {"percent": "5"}, "percent"),
        (ALIAS | {"valid_from": NOW.isoformat()}, "valid_from"),
        (ALIAS | {"kind": "gift"}, "kind"),
        (ALIAS | {"colour": "red"}, "colour"),
    ],
)
def test_what_cannot_be_meant(owner: APIClient, wish: dict[str, Any], field: str) -> None:
    answer = owner.post(URL, wish, format="json")
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])
    assert not PriceRule.objects.exists()


def test_a_viewer_and_a_stranger_change_nothing(
    owner: APIClient, viewer: APIClient, stranger: APIClient
) -> None:
    rule = made(owner, ALIAS)["id"]
    assert viewer.post(URL, ALIAS, format="json").status_code == 403
    assert viewer.post(FILES, {"content": SHEET, "apply": True}, format="json").status_code == 403
    assert stranger.post(f"{URL}/{rule}/end", {}, format="json").status_code == 404
    assert stranger.get(f"{URL}/{rule}").status_code == 404
    assert stranger.get(URL).json()["results"] == []


def test_a_call_says_which_rule_priced_it(world: World, owner: APIClient) -> None:
    made(owner, ALIAS)
    version = PriceVersion.objects.get(own=True)
    family = PriceVersion.objects.get(model="gpt-")
    now = timezone.now()
    for model, priced in (("house", str(version.id)), ("gpt-4", str(family.id)), ("x", "")):
        event = call(world, model=model, price_version=priced, started_at_ms=ms(now) - 1_000)
        book_usage(organization_id=world.id, sidecar_id=None, events=[event], now=now)
    rows = owner.get("/api/v1/usage-events").json()["results"]
    assert {row["model"]: row["price_rule"] for row in rows} == {
        "house": "house (house like openai:gpt)",
        "gpt-4": "openai:gpt-*",
        "x": "",
    }


# ------------------------------------------------------------------------------ files


def test_a_file_is_told_then_taken_as_own_rates(world: World, owner: APIClient) -> None:
    told = owner.post(FILES, {"content": SHEET}, format="json").json()
    assert (told["added"], told["applied"], PriceVersion.objects.filter(own=True).count()) == (
        1,
        False,
        0,
    )
    assert next((row["rate"], row["after"]) for row in told["changes"]) == ("input", "0.05")
    taken = owner.post(FILES, {"content": SHEET, "apply": True}, format="json").json()
    assert (taken["added"], taken["applied"]) == (1, True)
    assert PriceVersion.objects.get(own=True).organization_id == world.id


@pytest.mark.parametrize(
    ("wish", "field", "said"),
    [
        ({"content": ""}, "content", "may not be blank"),
        ({"content": "x" * 2_000_001}, "content", "no more than 2000000"),
        ({"content": "hello"}, "content", "not a csv price file"),
        ({"content": "{}", "form": "csv"}, "content", "not a csv price file"),
        ({"content": SHEET, "form": "xls"}, "form", "not a valid choice"),
        ({"content": SHEET.replace("0.10", "90000"), "apply": True}, "confirm", "gemma: output is"),
    ],
)
def test_a_file_that_is_not_taken(
    owner: APIClient, wish: dict[str, Any], field: str, said: str
) -> None:
    answer = owner.post(FILES, wish, format="json")
    assert answer.status_code == 400
    assert said in answer.json()["errors"][field][0]
    assert not PriceVersion.objects.filter(own=True).exists()


def test_a_jump_that_is_meant_is_taken(owner: APIClient) -> None:
    wish = {"content": SHEET.replace("0.10", "90000"), "apply": True, "confirm": ["gemma"]}
    assert owner.post(FILES, wish, format="json").json()["added"] == 1


def test_an_unknown_rule_cannot_be_ended(owner: APIClient) -> None:
    answer = owner.post(f"{URL}/{uuid4()}/end", {}, format="json")
    assert answer.status_code == 404


def test_a_discount_begins_when_it_is_told_to(owner: APIClient) -> None:
    later = timezone.now() + timedelta(days=1)
    made(owner, DISCOUNT | {"valid_from": later.isoformat()})
    assert set(PriceVersion.objects.filter(own=True).values_list("valid_from", flat=True)) >= {
        later
    }
