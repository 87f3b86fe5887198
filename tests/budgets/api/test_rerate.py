"""Charging recorded calls again, over the API."""

from datetime import timedelta
from typing import Any

import pytest
from rest_framework.test import APIClient

from budgets.models import Budget, Rating
from tests.budgets.domain.test_rerate import LATER, NEW, OLD, book, price
from tests.budgets.world import NOW, World, amounts, make_budget

URL = "/api/v1/usage/rerate"
WISH = {
    "model": "gemma",
    "since": (NOW - timedelta(hours=1)).isoformat(),
    "until": LATER.isoformat(),
}
BOOK = WISH | {"apply": True, "reason": "wrong list"}


@pytest.fixture
def rated(world: World) -> World:
    """A call at an old price, and a new price that is valid now."""
    make_budget(world)
    book(world, price(world, OLD))
    price(world, NEW, at=LATER)
    return world


def post(client: APIClient, wish: dict[str, Any], **headers: str) -> Any:
    return client.post(URL, wish, format="json", headers=headers)


def test_without_apply_it_is_only_told(rated: World, owner: APIClient) -> None:
    body = post(owner, WISH).json()
    assert (body["applied"], body["calls"], body["rated"]) == (False, 1, 1)
    assert (body["old_charge"], body["new_charge"], body["delta"]) == (
        "0.0015",
        "0.00014",
        "-0.00136",
    )
    (balance,) = body["balances"]
    assert (balance["name"], balance["spent"], balance["overrun"]) == ("Reader", "-0.00136", "0.00")
    assert Rating.objects.count() == 0


def test_it_is_booked_once_whatever_is_sent_again(rated: World, owner: APIClient) -> None:
    first = post(owner, BOOK, **{"Idempotency-Key": "k1"})
    assert (first.status_code, first.json()["rated"]) == (200, 1)
    again = post(owner, BOOK, **{"Idempotency-Key": "k1"})
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (first.json(), "true")
    other = post(owner, BOOK | {"reason": "another"}, **{"Idempotency-Key": "k1"})
    assert other.status_code == 422
    assert other.json()["type"] == "urn:comptroller:problem:idempotency-conflict"
    assert post(owner, BOOK).json()["unchanged"] == 1
    (rating,) = owner.get("/api/v1/ratings").json()["results"]
    assert (rating["old_charge"], rating["charge"], rating["number"]) == ("0.0015", "0.00014", 1)
    (event,) = owner.get("/api/v1/usage-events").json()["results"]
    assert (event["charge"], event["current_charge"]) == ("0.0015", "0.00014")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"model": "*"}, "model"),
        ({"until": WISH["since"]}, "until"),
        ({"until": "soon"}, "until"),
        ({"price_version": "x"}, "price_version"),
        ({"apply": True}, "reason"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_what_cannot_be_meant_is_a_problem(
    rated: World, owner: APIClient, wrong: dict[str, Any], field: str
) -> None:
    answer = post(owner, WISH | wrong)
    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")
    assert field in answer.json()["errors"]


def test_it_needs_the_right_to_set_prices(
    rated: World, viewer: APIClient, stranger: APIClient
) -> None:
    assert post(viewer, BOOK).status_code == 403
    assert post(stranger, BOOK).json()["calls"] == 0
    assert amounts(Budget.objects.get(organization=rated.organization))[0] == 1_500_000
