"""Thresholds, approvals and notifications over the API."""

from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from budgets.models import Balance, Budget
from enforcement.domain.thresholds import watch
from tests.budgets.world import World, make_balance, make_budget

pytestmark = pytest.mark.django_db
PAUSE = {"percent": 95, "actions": [{"kind": "pause"}]}
THRESHOLDS = [
    {"percent": 90, "actions": [{"kind": "notify"}, {"kind": "approval", "amount": 250_000_000}]},
    PAUSE,
]
SAID = [
    {"percent": 90, "actions": [{"kind": "notify"}, {"kind": "approval", "amount": "0.25"}]},
    PAUSE,
]


@pytest.fixture
def budget(world: World) -> Budget:
    budget = make_budget(world, thresholds=THRESHOLDS)
    make_balance(budget, spent_amount=960_000_000)
    watch(now=timezone.now())
    return budget


def only(client: APIClient, name: str) -> dict[str, Any]:
    (row,) = client.get(f"/api/v1/{name}").json()["results"]
    return dict(row)


def test_thresholds_are_set_and_told(world: World, owner: APIClient) -> None:
    budget = make_budget(world)
    answer = owner.patch(f"/api/v1/budgets/{budget.id}", {"thresholds": SAID}, format="json")
    assert answer.status_code == 200
    told = answer.json()["thresholds"]
    assert [one["percent"] for one in told] == [90, 95]
    assert told[0]["actions"] == [
        {"kind": "notify"},
        {"kind": "approval", "amount": "0.25"},
    ]
    bad = owner.patch(
        f"/api/v1/budgets/{budget.id}",
        {"thresholds": [{"percent": 90, "actions": [{"kind": "shout"}]}]},
        format="json",
    )
    assert bad.status_code == 400
    assert "shout" in str(bad.json()["errors"]["thresholds"])


def test_a_question_is_approved(budget: Budget, owner: APIClient) -> None:
    asked = only(owner, "approvals")
    assert (asked["amount"], asked["state"]) == ("0.25", "pending")
    url = f"/api/v1/approvals/{asked['id']}/approve"
    answer = owner.post(url, {"amount": "0.50", "reason": "worth it"}, format="json")
    assert (answer.status_code, answer.json()["state"]) == (200, "approved")
    assert Balance.objects.get(budget=budget).limit_amount == 1_500_000_000
    again = owner.post(url, {"reason": "worth it"}, format="json")
    assert (again.status_code, "already" in again.json()["detail"]) == (409, True)
    assert owner.get("/api/v1/approvals?state=pending").json()["results"] == []


@pytest.mark.usefixtures("budget")
def test_a_question_is_denied(owner: APIClient) -> None:
    asked = only(owner, "approvals")
    url = f"/api/v1/approvals/{asked['id']}/deny"
    assert owner.post(url, {}, format="json").status_code == 400
    assert owner.post(url, {"reason": "no"}, format="json").json()["state"] == "denied"


@pytest.mark.usefixtures("budget")
def test_what_holds_is_lifted(owner: APIClient) -> None:
    firings = owner.get("/api/v1/firings").json()["results"]
    paused = next(one for one in firings if one["percent"] == 95)
    assert paused["actions"] == [{"kind": "pause"}]
    url = f"/api/v1/firings/{paused['id']}/lift"
    assert owner.post(url, {"reason": "go on"}, format="json").json()["lifted_by"] == "test"
    assert owner.post(url, {"reason": "go on"}, format="json").status_code == 404


@pytest.mark.usefixtures("budget")
def test_notifications_are_seen(owner: APIClient, viewer: APIClient) -> None:
    told = viewer.get("/api/v1/notifications").json()["results"]
    assert len(told) == 2  # the threshold, and the question
    url = f"/api/v1/notifications/{told[0]['id']}/seen"
    assert viewer.post(url).status_code == 403
    assert [owner.post(url).json()["seen"] for _ in range(2)] == [1, 0]


@pytest.mark.usefixtures("budget")
def test_others_see_none_of_it(stranger: APIClient, owner: APIClient) -> None:
    asked, firing = only(owner, "approvals"), owner.get("/api/v1/firings").json()["results"][0]
    for name in ("approvals", "firings", "notifications"):
        assert stranger.get(f"/api/v1/{name}").json()["results"] == []
    reason = {"reason": "mine"}
    for url in (f"approvals/{asked['id']}/approve", f"firings/{firing['id']}/lift"):
        assert stranger.post(f"/api/v1/{url}", reason, format="json").status_code == 404
