"""Reconciliation and bills over the REST API."""

from datetime import timedelta
from typing import Any

import pytest

from enforcement.models import BillLine, Reconciliation
from tests.controlplane.world import Api, World
from tests.enforcement.domain.bills.pages import DAY, completions, costs, openai_page

PAGE = openai_page([completions("gpt-4o", 900, 70), costs(1.5, "gpt-4o, input")]).decode()


def row(world: World, **changes: Any) -> Reconciliation:
    values: dict[str, Any] = {
        "node": "gpu-a",
        "model": "gemma",
        "starts_at": DAY,
        "ends_at": DAY + timedelta(hours=1),
        "calls": 1,
        "metered_prompt_tokens": 100,
        "metered_cached_tokens": 0,
        "metered_generation_tokens": 20,
        "charge_nanos": 1_500,
        "verdict": "alone",
        "cause_kind": "no_counters",
        "computed_at": DAY,
    }
    return Reconciliation.objects.create(organization=world.organization, **values | changes)


def test_rows_come_youngest_first_and_by_what_is_asked(world: World, viewer: Api) -> None:
    row(world)
    row(world, starts_at=DAY - timedelta(hours=1), verdict="unknown")
    found = viewer.call("GET", "reconciliation").json()["results"]
    assert [one["verdict"] for one in found] == ["alone", "unknown"]
    assert (found[0]["charge"], found[0]["billed"]) == ("0.0000015", None)
    assert (found[0]["metered_prompt_tokens"], found[0]["produced_prompt_tokens"]) == (100, None)
    (one,) = viewer.call("GET", "reconciliation?verdict=unknown&node=gpu-a").json()["results"]
    assert one["starts_at"] == "2026-05-12T23:00:00.000000Z"
    assert viewer.call("GET", "reconciliation?verdct=unknown").status_code == 400


def test_a_bill_is_kept_and_compared(admin: Api, viewer: Api) -> None:
    sent = {"content": PAGE, "account": "research", "origin": "may"}
    answer = admin.call("POST", "bills/import", sent)
    assert (answer.status_code, answer.json()) == (
        200,
        {"new": 2, "changed": 0, "gone": 0, "same": 0},
    )
    lines = viewer.call("GET", "bills?kind=cost").json()["results"]
    assert [(line["account"], line["source"], line["cost"]) for line in lines] == [
        ("research", "may", "1.50")
    ]
    (found,) = viewer.call("GET", "reconciliation").json()["results"]
    assert (found["verdict"], found["cause_kind"]) == ("drifts", "past_sidecars")
    assert (found["billed"], found["billed_generation_tokens"]) == ("1.50", 70)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"content": "<html>"}, 422, "a web page or XML"),
        ({"content": "a,b"}, 422, "not a table of OpenAI's"),
        ({"content": ""}, 400, "may not be blank"),
        ({"content": PAGE, "acount": "x"}, 400, "unknown field"),
        ({}, 400, "required"),
    ],
)
def test_what_is_no_bill_is_refused(
    admin: Api, body: dict[str, str], status: int, words: str
) -> None:
    answer = admin.call("POST", "bills/import", body)
    assert answer.status_code == status
    assert words in answer.content.decode()
    assert BillLine.objects.count() == 0


def test_bills_are_kept_by_those_who_set_prices_and_seen_by_their_own(
    world: World, admin: Api, viewer: Api, foreigner: Api
) -> None:
    row(world)
    assert viewer.call("POST", "bills/import", {"content": PAGE}).status_code == 403
    admin.call("POST", "bills/import", {"content": PAGE})
    for path in ("bills", "reconciliation"):
        assert foreigner.call("GET", path).json()["results"] == []
