from typing import Any
from uuid import uuid4

import pytest
from rest_framework.test import APIClient

from budgets.models import Budget
from controlplane.audit.models import AuditEntry
from tests.budgets.world import World, make_budget

URL = "/api/v1/budgets"
_ASKING = {"percent": 90}
_FIVE: dict[str, Any] = {"kind": "approval", "amount": 5}
_FIVE_USD = {"kind": "approval", "amount": "5.00"}


def wish(world: World, **changes: Any) -> dict[str, Any]:
    return {
        "name": "Reader",
        "scope_kind": "agent",
        "scope_id": str(world.agent.id),
        "unit": "usd",
        "limit": "12.50",
    } | changes


def test_an_owner_makes_one(world: World, owner: APIClient) -> None:
    answer = owner.post(URL, wish(world, reason="new agent"), format="json")
    assert answer.status_code == 201, answer.json()
    body = answer.json()
    budget = Budget.objects.get()
    assert body == {
        "id": str(budget.id),
        "name": "Reader",
        "scope_kind": "agent",
        "scope_id": str(world.agent.id),
        "scope_session": "",
        "filters": {},
        "per": "",
        "unit": "usd",
        "limit": "12.50",
        "increase": "0.00",
        "mode": "hard",
        "hold_mode": "strict",
        "window_kind": "lifetime",
        "period": "",
        "time_zone": "UTC",
        "anchor_day": 1,
        "anchor_month": 1,
        "ends_at": None,
        "rolling_s": None,
        "rolling_parts": 0,
        "rollover": "none",
        "rollover_amount": None,
        "max_values": 10_000,
        "overflow": "refuse",
        "thresholds": [],
        "state": "arming",
        "armed_at": None,
        "policy_revision": budget.policy_revision,
        "created_at": body["created_at"],
        "archived_at": None,
    }
    assert budget.limit_amount == 12_500_000_000
    assert AuditEntry.objects.get(action="budget.create").reason == "new agent"


def test_tokens_are_integers(world: World, owner: APIClient) -> None:
    answer = owner.post(URL, wish(world, unit="tokens", limit=100_000), format="json")
    assert (answer.status_code, answer.json()["limit"]) == (201, 100_000)


def test_a_calendar_window(world: World, owner: APIClient) -> None:
    window = {"window_kind": "calendar", "period": "month", "time_zone": "Europe/Berlin"}
    answer = owner.post(URL, wish(world, **window, anchor_day=15), format="json")
    assert answer.status_code == 201
    assert {key: answer.json()[key] for key in window} == window


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"limit": 12.5}, "limit", "decimal string"),
        ({"limit": 12}, "limit", "decimal string"),
        ({"limit": True}, "limit", "decimal string"),
        ({"limit": None}, "limit", "may not be null"),
        ({"limit": "lots"}, "limit", "not an amount in dollars"),
        ({"limit": "NaN"}, "limit", "not an amount in dollars"),
        ({"limit": "0.0000000001"}, "limit", "finer than a nano-dollar"),
        ({"limit": "999999999999"}, "limit", "out of range"),
        ({"limit": "1e3"}, "limit", "not an amount in dollars"),
        ({"limit": "1e999999"}, "limit", "not an amount in dollars"),
        ({"limit": "１２"}, "limit", "not an amount in dollars"),
        ({"thresholds": [_ASKING | {"actions": [_FIVE]}]}, "thresholds", "decimal string"),
        (
            {"unit": "tokens", "limit": 9, "thresholds": [_ASKING | {"actions": [_FIVE_USD]}]},
            "thresholds",
            "tokens as an integer",
        ),
        ({"limit": "0"}, "limit", "must be above zero"),
        ({"limit": "-1"}, "limit", "limit must be above zero, not -1.00"),
        ({"unit": "tokens", "limit": "5"}, "limit", "tokens as an integer"),
        ({"unit": "tokens", "limit": 5.0}, "limit", "tokens as an integer"),
        ({"unit": "requests", "limit": True}, "limit", "requests as an integer"),
        ({"unit": "tokens", "limit": 2**63}, "limit", "is at most"),
        ({"unit": "euro"}, "unit", "not a valid choice"),
        ({"scope_kind": "galaxy"}, "scope_kind", "not a valid choice"),
        ({"scope_id": str(uuid4())}, "scope_id", "no agent with id"),
        ({"scope_id": "me"}, "scope_id", "valid UUID"),
        ({"per": "session"}, "per", "needs a hard budget"),
        ({"mode": "soft", "hold_mode": "metered"}, "hold_mode", "only a hard budget"),
        ({"window_kind": "calendar"}, "period", "needs a period"),
        ({"time_zone": "Mars/Base"}, "time_zone", "no time zone"),
        ({"limits": "5", "colour": "red"}, "colour", "unknown field"),
        ({"limits": "5", "colour": "red"}, "limits", "unknown field"),
        ({"id": str(uuid4())}, "id", "unknown field"),
        ({"state": "armed"}, "state", "unknown field"),
    ],
)
def test_what_cannot_be_meant_is_told_by_field(
    world: World, owner: APIClient, changes: dict[str, Any], field: str, words: str
) -> None:
    answer = owner.post(URL, wish(world, **changes), format="json")
    assert answer.status_code == 400
    assert answer["Content-Type"] == "application/problem+json"
    assert words in str(answer.json()["errors"][field])
    assert Budget.objects.count() == 0


def test_a_key_makes_one_budget_and_other_content_is_a_conflict(
    world: World, owner: APIClient
) -> None:
    key = {"Idempotency-Key": "k1"}
    first = owner.post(URL, wish(world), format="json", headers=key)
    again = owner.post(URL, wish(world), format="json", headers=key)
    assert (again.status_code, again.json()["id"]) == (201, first.json()["id"])
    other = owner.post(URL, wish(world, limit="13"), format="json", headers=key)
    assert (other.status_code, other["Content-Type"]) == (422, "application/problem+json")
    assert Budget.objects.count() == 1


@pytest.mark.parametrize("missing", ["name", "scope_kind", "scope_id", "unit", "limit"])
def test_what_is_missing_is_told(world: World, owner: APIClient, missing: str) -> None:
    body = wish(world)
    del body[missing]
    answer = owner.post(URL, body, format="json")
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [missing])


def test_an_owner_changes_one(world: World, owner: APIClient) -> None:
    budget = make_budget(world)
    answer = owner.patch(f"{URL}/{budget.id}", {"limit": "3", "reason": "more"}, format="json")
    assert (answer.status_code, answer.json()["limit"]) == (200, "3.00")
    assert AuditEntry.objects.get(action="budget.change").reason == "more"


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"limit": 3}, "limit"), ({"unit": "tokens"}, "unit"), ({"scope_id": "x"}, "scope_id")],
)
def test_a_change_that_cannot_be(
    world: World, owner: APIClient, changes: dict[str, Any], field: str
) -> None:
    budget = make_budget(world)
    answer = owner.patch(f"{URL}/{budget.id}", changes, format="json")
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])


def test_archiving_takes_it_from_the_list(world: World, owner: APIClient) -> None:
    budget = make_budget(world)
    answer = owner.post(f"{URL}/{budget.id}/archive", {"reason": "done"}, format="json")
    assert answer.status_code == 200
    assert answer.json()["archived_at"] is not None
    assert owner.get(URL).json()["results"] == []
    archived = owner.get(URL, {"archived": "true"}).json()["results"]
    assert [row["id"] for row in archived] == [str(budget.id)]
    again = owner.post(f"{URL}/{budget.id}/archive", {}, format="json")
    assert (again.status_code, again.json()["type"]) == (
        409,
        "urn:comptroller:problem:budget-archived",
    )


def test_nothing_is_ever_deleted(world: World, owner: APIClient) -> None:
    budget = make_budget(world)
    assert owner.delete(f"{URL}/{budget.id}").status_code == 405
    assert owner.put(f"{URL}/{budget.id}", wish(world), format="json").status_code == 405


def test_filters(world: World, owner: APIClient) -> None:
    make_budget(world)
    make_budget(world, name="soft", mode="soft")
    names = [row["name"] for row in owner.get(URL, {"mode": "soft"}).json()["results"]]
    assert names == ["soft"]


def test_a_viewer_reads_only(world: World, viewer: APIClient) -> None:
    budget = make_budget(world)
    assert viewer.get(f"{URL}/{budget.id}").json()["name"] == "Reader"
    assert viewer.post(URL, wish(world, name="x"), format="json").status_code == 403
    assert viewer.patch(f"{URL}/{budget.id}", {"name": "x"}, format="json").status_code == 403
    assert viewer.post(f"{URL}/{budget.id}/archive", {}, format="json").status_code == 403
    assert Budget.objects.get().archived_at is None


def test_a_stranger_sees_nothing(world: World, stranger: APIClient) -> None:
    budget = make_budget(world)
    assert stranger.get(URL).json()["results"] == []
    assert stranger.get(f"{URL}/{budget.id}").status_code == 404
    assert stranger.patch(f"{URL}/{budget.id}", {"name": "x"}, format="json").status_code == 404
    assert stranger.post(f"{URL}/{budget.id}/archive", {}, format="json").status_code == 404
    foreign = stranger.post(URL, wish(world), format="json")
    assert (foreign.status_code, list(foreign.json()["errors"])) == (400, ["scope_id"])


def test_nobody_sees_less(world: World) -> None:
    assert APIClient().get(URL).status_code == 401
