"""Filters, splits, own limits and explanations over the API."""

from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks
from rest_framework.test import APIClient

from budgets.domain.matchers import compiled_budgets
from budgets.models import Budget, BudgetOverride
from controlplane.identity.domain import bump_policy
from enforcement.rules.policy import Mode, Per, Unit
from tests.budgets.api.test_budgets import URL, wish
from tests.budgets.world import World, make_balance, make_budget


def test_a_filtered_split_budget(world: World, owner: APIClient) -> None:
    wanted = {
        "filters": {"user": ["ann*"], "tag:env": ["prod"]},
        "per": "tag:task",
        "overflow": "share",
        "mode": "soft",
    }
    answer = owner.post(URL, wish(world, **wanted), format="json")
    assert answer.status_code == 201, answer.json()
    assert {name: answer.json()[name] for name in wanted} == wanted
    assert Budget.objects.get().filters == wanted["filters"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"filters": {"modle": ["x"]}}, "filters"),
        ({"filters": {"node": ["rack"]}, "unit": "gpu_ms", "limit": 5}, None),
        ({"filters": ["user"]}, "filters"),
        ({"filters": {"user": "ann"}}, "filters"),
        ({"per": "weather"}, "per"),
        ({"per": "user"}, "per"),
        ({"unit": "concurrency", "limit": 2, "mode": "soft"}, "mode"),
        ({"unit": "concurrency", "limit": "2.00"}, "limit"),
        ({"unit": "usd", "limit": "NaN"}, "limit"),
        ({"unit": "usd", "limit": "-1"}, "limit"),
        ({"unit": "usd", "limit": "1e400"}, "limit"),
        ({"unit": "tokens", "limit": 0}, "limit"),
        ({"unit": "tokens", "limit": 2**63}, "limit"),
        ({"scope_kind": "session"}, "scope_session"),
    ],
)
def test_bad_wishes_name_the_field(
    world: World, owner: APIClient, changes: dict[str, Any], field: str | None
) -> None:
    answer = owner.post(URL, wish(world, **changes), format="json")
    if field is None:
        assert answer.status_code == 201
        return
    assert answer.status_code == 400, answer.json()
    assert field in str(answer.json()["errors"])


@pytest.fixture
def each_user(world: World) -> Budget:
    make_budget(world, name="above")
    return make_budget(world, name="each user", per=Per.USER, unit=Unit.TOKENS, limit_amount=100)


def test_own_limits_are_set_listed_and_cleared(
    each_user: Budget, owner: APIClient, viewer: APIClient
) -> None:
    url = f"{URL}/{each_user.id}/overrides"
    assert owner.get(url).json() == []
    wanted = {"value": "ann", "limit": 500, "reason": "trusted"}
    answer = owner.put(url, wanted, format="json")
    assert (answer.status_code, answer.json()["limit"]) == (200, 500)
    assert [row["value"] for row in viewer.get(url).json()] == ["ann"]
    assert viewer.put(url, wanted, format="json").status_code == 403
    assert owner.delete(f"{url}?value=ann").status_code == 204
    assert owner.delete(f"{url}?value=ann").status_code == 404
    assert owner.delete(url).status_code == 400
    assert not BudgetOverride.objects.exists()


def test_strangers_see_no_own_limits(each_user: Budget, stranger: APIClient) -> None:
    url = f"{URL}/{each_user.id}/overrides"
    assert stranger.get(url).status_code == 404
    assert stranger.put(url, {"value": "a", "limit": 1}, format="json").status_code == 404


def test_an_explanation(world: World, viewer: APIClient) -> None:
    whole = make_budget(world, name="whole", unit=Unit.TOKENS, limit_amount=10_000)
    split = make_budget(world, name="split", unit=Unit.TOKENS, limit_amount=900, per=Per.USER)
    make_budget(world, name="soft", unit=Unit.USD, mode=Mode.SOFT)
    make_budget(world, name="other", unit=Unit.TOKENS, filters={"tag:env": ["test"]})
    make_balance(whole, spent_amount=3_000, held_amount=100)
    query = "agent=reader&model=gemma&user=ann&tags=env=prod&input_tokens=200&output_tokens=800"
    answer = viewer.get(f"{URL}/explain?{query}")
    assert answer.status_code == 200, answer.json()
    body = answer.json()
    assert [row["name"] for row in body["budgets"]] == [
        *(b.name for b in sorted((whole, split), key=lambda b: str(b.id))),
        "soft",
    ]
    rows = {row["name"]: row for row in body["budgets"]}
    assert (rows["whole"]["free"], rows["whole"]["need"], rows["whole"]["outcome"]) == (
        6_900,
        1_000,
        "allow",
    )
    assert (rows["split"]["value"], rows["split"]["outcome"]) == ("ann", "clamp")
    assert (rows["soft"]["need"], rows["soft"]["outcome"]) == (None, "count")
    assert (body["outcome"], body["status"], body["decided_by"]) == ("clamp", 200, str(split.id))


def test_an_explanation_says_who_can_raise_the_limit(world: World, viewer: APIClient) -> None:
    make_budget(world, unit=Unit.REQUESTS, limit_amount=5)
    budget = Budget.objects.get()
    make_balance(budget, spent_amount=5)
    body = viewer.get(f"{URL}/explain?agent={world.agent.id}").json()
    assert (body["outcome"], body["status"], body["reason"]) == ("refuse", 402, "budget_exhausted")
    assert body["message"] == "Budget 'Reader' is exhausted"
    assert body["can_raise"] == []


@pytest.mark.parametrize(
    "query",
    ["", "agent=nobody", "agent=reader&tags=x", "agent=reader&input_tokens=-1", "agent=reader&a=1"],
)
def test_what_cannot_be_explained(viewer: APIClient, query: str) -> None:
    assert viewer.get(f"{URL}/explain?{query}").status_code == 400


def test_budgets_are_compiled_anew_when_the_policy_changes(
    world: World, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    make_budget(world)
    with django_capture_on_commit_callbacks(execute=True):
        first = compiled_budgets(world.id)
    assert compiled_budgets(world.id) is first
    make_budget(world, name="second")
    assert len(compiled_budgets(world.id).budgets) == 2


def test_what_a_transaction_saw_that_is_rolled_back_is_not_kept(
    world: World, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        with suppress(ZeroDivisionError), transaction.atomic():
            make_budget(world)
            assert len(compiled_budgets(world.id).budgets) == 1
            raise ZeroDivisionError
        bump_policy(world.id)  # to the revision that the rolled back transaction saw
    assert compiled_budgets(world.id).budgets == {}


def test_changes_are_planned_listed_and_cancelled(
    world: World, owner: APIClient, viewer: APIClient, stranger: APIClient
) -> None:
    budget = make_budget(world)
    url = f"{URL}/{budget.id}/changes"
    wanted = {
        "kind": "increase",
        "amount": "0.50",
        "ends_at": "2099-01-01T00:00:00Z",
        "reason": "launch",
    }
    far = owner.post(url, wanted, format="json")
    assert (far.status_code, list(far.json()["errors"])) == (400, ["ends_at"])
    wanted["ends_at"] = (timezone.now() + timedelta(hours=1)).isoformat()
    assert viewer.post(url, wanted, format="json").status_code == 403
    made = owner.post(url, wanted, format="json")
    assert (made.status_code, made.json()["state"]) == (201, "active"), made.json()
    assert owner.get(f"{URL}/{budget.id}").json()["increase"] == "0.50"
    assert [row["id"] for row in viewer.get(url).json()] == [made.json()["id"]]
    cancel = f"{url}/{made.json()['id']}/cancel"
    assert stranger.post(cancel, {}, format="json").status_code == 404
    assert owner.post(cancel, {}, format="json").json()["state"] == "cancelled"
    assert owner.post(cancel, {}, format="json").status_code == 409
    assert owner.get(f"{URL}/{budget.id}").json()["increase"] == "0.00"
