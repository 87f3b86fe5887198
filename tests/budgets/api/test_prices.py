from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from budgets.domain.priceimport import import_catalogue
from budgets.models import PriceVersion
from tests.budgets.domain.test_priceimport import CATALOGUE
from tests.budgets.world import NOW, World

URL = "/api/v1/price-versions"
WISH = {"model": "gemma", "input_per_mtok": "0.05", "output_per_mtok": "0.25"}


def test_an_owner_sets_an_own_rate(world: World, owner: APIClient) -> None:
    answer = owner.post(URL, WISH, format="json")
    assert answer.status_code == 201, answer.json()
    body = answer.json()
    assert {key: body[key] for key in WISH} == WISH
    assert (body["cached_input_per_mtok"], body["cache_write_per_mtok"]) == ("0.05", "0.05")
    assert (body["own"], body["source"], body["valid_to"], body["tiers"]) == (True, "own", None, [])
    price = PriceVersion.objects.get()
    assert (price.organization, price.output_nanos_per_mtok) == (world.organization, 250_000_000)


def test_tiers_and_a_later_beginning(owner: APIClient) -> None:
    later = (timezone.now() + timedelta(days=1)).isoformat()
    batch = {"service_tier": "batch", "input_per_mtok": "0.5", "output_per_mtok": "1"}
    long = {"above_input_tokens": 1000, "input_per_mtok": "1", "output_per_mtok": "2"}
    tiers = [long | {"variants": [batch]}]
    body = owner.post(URL, WISH | {"tiers": tiers, "valid_from": later}, format="json").json()
    assert body["tiers"] == [
        {
            "above_input_tokens": 1000,
            "input_per_mtok": "1.00",
            "cached_input_per_mtok": "1.00",
            "cache_write_per_mtok": "1.00",
            "output_per_mtok": "2.00",
            "per_request": "0.00",
            "variants": [
                {
                    "service_tier": "batch",
                    "input_per_mtok": "0.50",
                    "cached_input_per_mtok": "0.50",
                    "cache_write_per_mtok": "0.50",
                    "output_per_mtok": "1.00",
                    "per_request": "0.00",
                }
            ],
        }
    ]


def test_kinds_and_variants_have_rates_of_their_own(owner: APIClient) -> None:
    flex = {"service_tier": "flex", "input_per_mtok": "0.02", "output_per_mtok": "0.10"}
    wish = WISH | {"cache_write_long_per_mtok": "0.10", "variants": [flex]}
    body = owner.post(URL, wish, format="json").json()
    assert (body["cache_write_long_per_mtok"], body["reasoning_per_mtok"]) == ("0.10", None)
    assert [(v["service_tier"], v["cache_write_per_mtok"]) for v in body["variants"]] == [
        ("flex", "0.02")
    ]
    policy = PriceVersion.objects.get().to_policy()
    assert policy.rates.cache_write_long == 100_000_000
    assert policy.variants["flex"].output == 100_000_000


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model": ""}, "model"),
        ({"model": None}, "model"),
        ({"input_per_mtok": 0.05}, "input_per_mtok"),
        ({"input_per_mtok": "cheap"}, "input_per_mtok"),
        ({"output_per_mtok": "0.0000000001"}, "output_per_mtok"),
        ({"output_per_mtok": "-1"}, "output"),
        ({"valid_from": NOW.isoformat()}, "valid_from"),
        ({"colour": "red"}, "colour"),
        ({"match": "regex"}, "match"),
    ],
)
def test_what_cannot_be_meant(owner: APIClient, changes: dict[str, Any], field: str) -> None:
    answer = owner.post(URL, WISH | changes, format="json")
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])
    assert PriceVersion.objects.count() == 0


def test_everybody_sees_the_catalogue_and_only_its_owner_an_own_rate(
    owner: APIClient, viewer: APIClient, stranger: APIClient
) -> None:
    import_catalogue(now=NOW, catalogue=CATALOGUE)
    owner.post(URL, WISH, format="json")
    assert len(viewer.get(URL, {"own": "true"}).json()["results"]) == 1
    assert stranger.get(URL, {"own": "true"}).json()["results"] == []
    assert len(stranger.get(URL).json()["results"]) == 3
    assert len(viewer.get(URL, {"valid_at": NOW.isoformat()}).json()["results"]) == 2


def test_a_viewer_sets_nothing(viewer: APIClient) -> None:
    assert viewer.post(URL, WISH, format="json").status_code == 403
