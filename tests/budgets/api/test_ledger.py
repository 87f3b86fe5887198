"""Balances, leases, transfers, usage events and refusals: readable, never writable."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from rest_framework.test import APIClient

from budgets.domain.archive import archive_day
from budgets.domain.rollups import fold_usage
from budgets.domain.usage import book_refusals, book_usage
from budgets.models import Balance, Lease
from controlplane.identity.ids import new_id
from enforcement.rules.policy import Mode, Unit
from enforcement.rules.wire import Outcome, RefusalCount
from tests.budgets.constraints.attack import sql
from tests.budgets.world import NOW, World, call, make_balance, make_budget, make_lease, ms

LISTS = ["balances", "leases", "transfers", "usage-events", "refusals"]


@pytest.fixture
def lease(world: World) -> Lease:
    balance = make_balance(make_budget(world), spent_amount=100)
    return make_lease(balance, amount=5_000, used_amount=1_500, open_amount=300)


@pytest.fixture
def booked(world: World, lease: Lease) -> None:
    make_budget(world, name="tokens", mode=Mode.SOFT, unit=Unit.TOKENS)
    event = call(world, session="s1", outcome=Outcome.CUT)
    book_usage(organization_id=world.id, sidecar_id=None, events=[event], now=NOW)
    refusal = RefusalCount(str(new_id()), str(world.agent.id), "budget_exhausted", 3, ms(NOW))
    book_refusals(organization_id=world.id, refusals=[refusal], now=NOW)


@pytest.mark.usefixtures("booked")
@pytest.mark.parametrize("name", LISTS)
def test_owner_and_viewer_read_a_stranger_sees_nothing(
    owner: APIClient, viewer: APIClient, stranger: APIClient, name: str
) -> None:
    rows = owner.get(f"/api/v1/{name}").json()["results"]
    assert rows
    assert viewer.get(f"/api/v1/{name}").json()["results"] == rows
    assert viewer.get(f"/api/v1/{name}/{rows[0]['id']}").json() == rows[0]
    assert stranger.get(f"/api/v1/{name}").json()["results"] == []
    assert stranger.get(f"/api/v1/{name}/{rows[0]['id']}").status_code == 404


@pytest.mark.usefixtures("booked")
@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_nobody_writes(owner: APIClient, name: str, method: str) -> None:
    row = owner.get(f"/api/v1/{name}").json()["results"][0]
    for url in (f"/api/v1/{name}", f"/api/v1/{name}/{row['id']}"):
        assert getattr(owner, method)(url, {}, format="json").status_code == 405


def test_a_balance_says_its_amounts_in_its_unit(owner: APIClient, lease: Lease) -> None:
    body = owner.get(f"/api/v1/balances/{lease.balance_id}").json()
    assert body["unit"] == "usd"
    assert {key: body[key] for key in ("limit", "cap", "spent", "held", "suspense", "overrun")} == {
        "limit": "1.00",
        "cap": "1.00",
        "spent": "0.0000001",
        "held": "0.000005",
        "suspense": "0.00",
        "overrun": "0.00",
    }
    assert body["free"] == "0.9999949"


def test_a_lease_says_its_watermarks(owner: APIClient, lease: Lease) -> None:
    body = owner.get(f"/api/v1/leases/{lease.id}").json()
    assert (body["amount"], body["used"], body["open"]) == ("0.000005", "0.0000015", "0.0000003")
    assert (body["state"], body["closed_at"]) == ("granted", None)


@pytest.mark.usefixtures("booked")
def test_a_transfer_names_its_event(owner: APIClient) -> None:
    rows = owner.get("/api/v1/transfers", {"kind": "usage"}).json()["results"]
    assert sorted(str(row["amount"]) for row in rows) == ["0.0000015", "120"]
    event = owner.get("/api/v1/usage-events").json()["results"][0]
    assert {row["usage_event"] for row in rows} == {event["id"]}
    assert (event["charge"], event["outcome"], event["session"]) == ("0.0000015", "cut", "s1")


@pytest.mark.usefixtures("booked")
def test_filters(world: World, owner: APIClient) -> None:
    def count(name: str, **filters: str) -> int:
        return len(owner.get(f"/api/v1/{name}", filters).json()["results"])

    assert count("usage-events", agent=str(world.agent.id)) == 1
    assert count("usage-events", agent=str(world.loner.id)) == 0
    assert count("usage-events", outcome="completed") == 0
    assert count("usage-events", since=NOW.isoformat()) == 0
    assert count("usage-events", until=NOW.isoformat()) == 1
    assert count("refusals", code="budget_exhausted") == 1
    assert count("leases", state="settled") == 0
    assert count("transfers", kind="grant") == 1
    assert owner.get("/api/v1/transfers", {"kind": "gift"}).status_code == 400


def test_current_balances(world: World, owner: APIClient, lease: Lease) -> None:
    past = make_balance(
        make_budget(world, name="month"),
        window_start=NOW - timedelta(days=60),
        window_end=NOW - timedelta(days=30),
    )
    ids = {
        row["id"] for row in owner.get("/api/v1/balances", {"current": "true"}).json()["results"]
    }
    assert ids == {str(lease.balance_id)}
    ids = {
        row["id"] for row in owner.get("/api/v1/balances", {"current": "false"}).json()["results"]
    }
    assert ids == {str(past.id)}


def test_lists_page_by_cursor(world: World, owner: APIClient) -> None:
    make_budget(world, mode=Mode.SOFT)
    for number in range(5):
        event = call(world, charge_nanos=number + 1)
        book_usage(organization_id=world.id, sidecar_id=None, events=[event], now=NOW)
    seen: list[str] = []
    url: str | None = "/api/v1/transfers?page_size=2"
    pages = 0
    while url:
        page = owner.get(url).json()
        seen += [row["id"] for row in page["results"]]
        url, pages = page["next"], pages + 1
    assert (len(seen), len(set(seen)), pages) == (5, 5, 3)
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize("count", [1, 3])
def test_lists_cost_the_same_for_any_length(
    world: World,
    owner: APIClient,
    count: int,
    django_assert_num_queries: Any,
) -> None:
    budget = make_budget(world)
    for number in range(count):
        balance = make_balance(budget, value=f"v{number}")
        make_lease(balance, amount=5)
    assert Balance.objects.count() == count
    owner.get("/api/v1/balances")  # the token's last use is written at most once a minute
    for name in ("balances", "leases", "transfers"):
        with django_assert_num_queries(2):
            assert len(owner.get(f"/api/v1/{name}").json()["results"]) == count


def test_an_owner_writes_off_what_is_in_suspense(
    owner: APIClient, viewer: APIClient, stranger: APIClient, lease: Lease
) -> None:
    url, why = f"/api/v1/leases/{lease.id}/write-off", {"reason": "disk lost"}
    live = owner.post(url, why, format="json")
    assert (live.status_code, live.json()["type"]) == (
        409,
        "urn:comptroller:problem:lease-not-suspended",
    )
    sql("UPDATE budgets_lease SET state = 'suspended' WHERE id = %s", lease.id)
    sql("UPDATE budgets_balance SET held_amount = 1500, suspense_amount = 3500")
    assert viewer.post(url, why, format="json").status_code == 403
    assert stranger.post(url, why, format="json").status_code == 404
    assert list(owner.post(url, {}, format="json").json()["errors"]) == ["reason"]
    done = owner.post(url, why, format="json").json()
    assert (done["state"], done["used"]) == ("written_off", "0.000005")


def test_an_owner_corrects_what_was_spent(
    owner: APIClient, viewer: APIClient, stranger: APIClient, lease: Lease
) -> None:
    url = f"/api/v1/balances/{lease.balance_id}/correct"
    wish = {"amount_back": "0.00000004", "reason": "counted twice"}
    assert viewer.post(url, wish, format="json").status_code == 403
    assert stranger.post(url, wish, format="json").status_code == 404
    assert owner.post(url, wish, format="json").json()["spent"] == "0.00000006"
    wrong = owner.post(url, wish | {"amount_back": 4}, format="json")
    assert (wrong.status_code, list(wrong.json()["errors"])) == (400, ["amount_back"])
    much = owner.post(url, wish | {"amount_back": "9"}, format="json")
    assert (much.status_code, much.json()["type"]) == (400, "urn:comptroller:problem:correction")


def test_an_archived_event_is_gone_and_its_archive_is_named(
    world: World, owner: APIClient, stranger: APIClient, tmp_path: Path
) -> None:
    event = call(world)
    book_usage(organization_id=world.id, sidecar_id=None, events=[event], now=NOW)
    fold_usage(now=NOW)
    address = f"/api/v1/usage-events/{event.id}"
    assert owner.get(address).status_code == 200
    archive_day(NOW.date(), folder=tmp_path, now=NOW + timedelta(days=40))
    answer = owner.get(address)
    assert (answer.status_code, answer.json()["type"]) == (
        410,
        "urn:comptroller:problem:usage-event-archived",
    )
    assert "stands in the archive usage-20260513.parquet" in answer.json()["detail"]
    assert stranger.get(address).status_code == 404
    assert owner.get(f"/api/v1/usage-events/{new_id()}").status_code == 404
