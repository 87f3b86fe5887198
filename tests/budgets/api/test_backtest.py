"""Back-testing over the API and by page: our own calls, or a CSV."""

from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone
from rest_framework.test import APIClient

from budgets.domain.usage import book_usage
from tests.budgets.world import World, call, ms
from tests.visitors import make_visitors

URL = "/api/v1/budgets/backtest"
CSV = "at,input_tokens,output_tokens,charge_usd\n2026-11-16T18:00:00Z,100,50,0.25\n"
LOW = {"name": "low", "unit": "tokens", "limit": 200, "scope": "agent:reader", "window": "day"}


@pytest.fixture
def used(world: World) -> World:
    """Three calls of 120 tokens, a minute apart, an hour ago."""
    now = timezone.now()
    events = [
        call(world, user="ann", started_at_ms=ms(now) - 3_600_000 + turn * 60_000)
        for turn in range(3)
    ]
    book_usage(organization_id=world.id, sidecar_id=None, events=events, now=now)
    return world


def post(client: APIClient, **body: Any) -> Any:
    return client.post(URL, {"budgets": [LOW]} | body, format="json")


def test_our_own_calls_are_replayed_at_what_they_were_charged(
    used: World, viewer: APIClient
) -> None:
    answer = post(viewer)
    assert answer.status_code == 200, answer.json()
    total = answer.json()["total"]
    assert (total["calls"], total["refused"]) == (3, 2)
    assert (total["charge_usd"], total["saved_usd"]) == ("0.0000045", "0.000003")
    assert list(answer.json()["agents"]) == ["reader"]
    (balance,) = answer.json()["balances"]
    assert (balance["limit"], balance["spent"], balance["wanted"]) == (200, 120, 360)


def test_a_csv_is_replayed(viewer: APIClient) -> None:
    lifetime = {"name": "all", "unit": "usd", "limit": "0.20"}
    body = post(viewer, trace=CSV, budgets=[lifetime]).json()
    assert (body["total"]["refused"], body["total"]["saved_usd"]) == (1, "0.25")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"budgets": []}, "budgets"),
        ({"budgets": [{"name": "x"}]}, "budgets"),
        ({"budgets": [LOW, LOW]}, "budgets"),
        ({"trace": "nothing"}, "trace"),
        ({"trace": CSV + "x,1,1,1\n"}, "trace"),
        ({"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, "until"),
        ({"since": "2020-01-01T00:00:00Z", "until": "2020-01-02T00:00:00Z"}, "since"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_cannot_be_replayed(
    used: World, viewer: APIClient, body: dict[str, Any], field: str
) -> None:
    answer = post(viewer, **body)
    assert answer.status_code == 400
    assert field in answer.json()["errors"]


def test_a_stranger_replays_only_their_own(used: World, stranger: APIClient) -> None:
    since = (timezone.now() - timedelta(days=1)).isoformat()
    assert post(stranger, since=since).status_code == 400


def test_the_page_shows_who_is_stopped_and_a_picture(used: World) -> None:
    viewer = make_visitors(used.organization).viewer
    assert "each agent a day" in viewer.get("/budgets/backtest/").content.decode()
    form = {
        "budgets": "- {name: low, unit: tokens, limit: 200, window: day}",
        "period": "1",
    }
    page = viewer.post("/budgets/backtest/", form).content.decode()
    assert "What stopped calls" in page
    assert page.count("data-x=") >= 2
    assert ">120 tokens<" in page
    file = SimpleUploadedFile("trace.csv", CSV.encode())
    with_file = viewer.post("/budgets/backtest/", form | {"trace": file}).content.decode()
    assert "No call would have been stopped" in with_file


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"budgets": "- [", "period": "1"}, "This is no YAML"),
        ({"budgets": "hello", "period": "1"}, "Budgets file"),
        ({"budgets": "- {name: a, unit: usd, limit: 1}", "period": "9"}, "Select a valid choice"),
    ],
)
def test_the_page_says_what_is_wrong(used: World, form: dict[str, str], words: str) -> None:
    answer = make_visitors(used.organization).viewer.post("/budgets/backtest/", form)
    assert answer.status_code == 422
    assert words in answer.content.decode()
