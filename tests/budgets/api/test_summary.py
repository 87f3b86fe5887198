from datetime import timedelta
from typing import Any

import pytest
from rest_framework.test import APIClient

from budgets.domain.usage import book_usage
from tests.budgets.world import NOW, World, call

URL = "/api/v1/usage/summary"
RANGE = {"since": (NOW - timedelta(hours=2)).isoformat(), "until": NOW.isoformat()}


@pytest.fixture
def booked(world: World) -> None:
    events = [
        call(world),
        call(world, model="llama", charge_nanos=500),
        call(world, agent=str(world.loner.id), charge_nanos=10),
    ]
    book_usage(organization_id=world.id, sidecar_id=None, events=events, now=NOW)


@pytest.mark.usefixtures("booked")
def test_by_agent_and_model(world: World, viewer: APIClient) -> None:
    body = viewer.get(URL, RANGE | {"group_by": "agent,model"}).json()
    assert body["total"] == {
        "calls": 3,
        "cut_calls": 0,
        "input_tokens": 300,
        "cached_input_tokens": 0,
        "output_tokens": 60,
        "reasoning_tokens": 0,
        "charge": "0.00000201",
    }
    assert [(g["key"], g["names"], g["charge"]) for g in body["groups"]] == [
        ({"agent": str(world.agent.id), "model": "gemma"}, {"agent": "Reader"}, "0.0000015"),
        ({"agent": str(world.agent.id), "model": "llama"}, {"agent": "Reader"}, "0.0000005"),
        ({"agent": str(world.loner.id), "model": "gemma"}, {"agent": "Loner"}, "0.00000001"),
    ]


@pytest.mark.usefixtures("booked")
def test_of_one_agent(world: World, viewer: APIClient) -> None:
    body = viewer.get(URL, RANGE | {"group_by": "team", "agent": str(world.loner.id)}).json()
    assert [(group["key"], group["calls"]) for group in body["groups"]] == [({"team": None}, 1)]


@pytest.mark.usefixtures("booked")
def test_a_stranger_sees_nothing(stranger: APIClient) -> None:
    body = stranger.get(URL, RANGE).json()
    assert (body["groups"], body["total"]["calls"]) == ([], 0)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"group_by": "mood"}, "group_by"),
        ({"group_by": ","}, "group_by"),
        ({"group_by": "agent,1; DROP TABLE"}, "group_by"),
        ({"since": NOW.isoformat(), "until": NOW.isoformat()}, "since"),
        ({"since": "2020-01-01T00:00:00Z", "until": NOW.isoformat()}, "since"),
        ({"since": "yesterday"}, "since"),
        ({"agent": "me"}, "agent"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_cannot_be_meant(viewer: APIClient, query: dict[str, Any], field: str) -> None:
    answer = viewer.get(URL, query)
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])
