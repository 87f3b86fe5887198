"""Asking what was used, over the API."""

from datetime import timedelta
from typing import Any

import pytest
from rest_framework.test import APIClient

from budgets.domain.rollups import fold_usage
from budgets.domain.usage import book_usage
from budgets.queries import explore
from tests.budgets.world import NOW, World, call, make_world, ms

URL = "/api/v1/usage/query"
RANGE = {
    "since": (NOW.date() - timedelta(days=30)).isoformat(),
    "until": (NOW.date() + timedelta(days=1)).isoformat(),
}


def book(world: World, **changes: Any) -> None:
    events = [call(world, started_at_ms=ms(NOW), **changes)]
    book_usage(organization_id=world.id, sidecar_id=None, events=events, now=NOW)


@pytest.fixture
def used(world: World) -> World:
    book(world, model="dear", tags={"env": "prod"}, charge_nanos=9)
    book(world, model="cheap", agent=str(world.loner.id), charge_nanos=1)
    book(make_world("other"), model="foreign")
    fold_usage(now=NOW)
    return world


def test_groups_are_named_and_amounts_are_dollars(used: World, owner: APIClient) -> None:
    body = owner.get(URL, {"group_by": "team,model", **RANGE}).json()
    assert (body["found"], body["answered_by"]) == (2, "rollups")
    assert body["total"]["charge"] == "0.00000001"
    dear, cheap = body["groups"]
    assert dear["key"] == {"team": str(used.team.id), "model": "dear"}
    assert dear["names"] == {"team": used.team.name}
    assert (dear["calls"], dear["charge"]) == (1, "0.000000009")
    assert (cheap["key"], cheap["names"]) == ({"team": None, "model": "cheap"}, {})


def test_filters_name_owners_by_slug_or_id(used: World, owner: APIClient) -> None:
    for name in (used.agent.slug, str(used.agent.id)):
        body = owner.get(URL, {"filter": f"agent={name}", **RANGE}).json()
        assert [group["key"]["model"] for group in body["groups"]] == ["dear"]
    two = {"filter": ["tag:env=prod", f"agent={used.agent.slug}"], "group_by": "model", **RANGE}
    body = owner.get(URL, two).json()
    assert (body["answered_by"], body["total"]["calls"]) == ("events", 1)


def test_without_days_the_last_thirty_are_meant(world: World, owner: APIClient) -> None:
    body = owner.get(URL).json()
    assert (body["group_by"], body["groups"], body["total"]["calls"]) == (["model"], [], 0)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"group_by": "mood"}, "group_by"),
        ({"group_by": "model,model"}, "group_by"),
        ({"group_by": "a" * 100_000}, "group_by"),
        ({"group_by": "minute"}, "group_by"),
        ({"group_by": "model, tag:"}, "group_by"),
        ({"group_by": "model; DROP TABLE budgets_usagecell"}, "group_by"),
        ({"group_by": "," * 400 + "hour,day"}, "group_by"),
        ({"filter": [f"tag:{number}=x" for number in range(900)]}, "filter"),
        ({"filter": "day=2026-05-01"}, "filter"),
        ({"filter": "model"}, "filter"),
        ({"filter": "agent=nobody"}, "filter"),
        ({"filter": ["model=a", "model=b"]}, "filter"),
        ({"filter": "model=a\x00b"}, "filter"),
        ({"since": "yesterday"}, "since"),
        ({"since": "2026-01-02", "until": "2026-01-02"}, "since"),
        ({"since": "0001-01-01", "until": "9999-12-31"}, "since"),
        ({"until": "0001-01-01"}, "until"),
        ({"since": "9999-12-30", "until": "9999-12-31"}, "until"),
        ({"limit": "0"}, "limit"),
        ({"limit": "1e9"}, "limit"),
        ({"order": "x"}, "order"),
        ({"page": "100000"}, "page"),
        ({"offset": "1"}, "offset"),
    ],
)
def test_what_cannot_be_meant_names_its_field(
    world: World, owner: APIClient, asked: dict[str, Any], field: str
) -> None:
    answer = owner.get(URL, asked)
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])


def test_ten_thousand_filters_are_not_even_read(world: World, owner: APIClient) -> None:
    asked = {"filter": [f"tag:{number}=x" for number in range(10_000)]}
    assert owner.get(URL, asked).status_code == 400


def test_a_refusal_does_not_repeat_what_was_sent(world: World, owner: APIClient) -> None:
    asked = {"group_by": "a" * 60_000, "filter": ["b" * 60_000]}
    assert len(owner.get(URL, asked).content) < 1_000


@pytest.mark.parametrize("name", ["model", "tag:env", "tag:' OR '1'='1", "tag:%(organization)s"])
@pytest.mark.parametrize("by", ["", "model", "tag:%s", "session"])
@pytest.mark.parametrize(
    "value", ["' OR 1=1 --", "%(organization)s", "100%", "\\", "{}", "é\u202e" * 50]
)
def test_any_text_is_only_text(
    used: World, owner: APIClient, name: str, by: str, value: str
) -> None:
    answer = owner.get(URL, {"group_by": by, "filter": f"{name}={value}", **RANGE})
    assert (answer.status_code, answer.json()["total"]["calls"]) == (200, 0)


@pytest.mark.parametrize("by", ["", "model", "week", "session,user"])
@pytest.mark.parametrize(
    ("since", "until"),
    [("9998-12-30", "9998-12-31"), ("1969-12-01", "1970-01-02")],
)
def test_days_at_the_ends_of_the_calendar_are_days(
    used: World, owner: APIClient, by: str, since: str, until: str
) -> None:
    answer = owner.get(URL, {"group_by": by, "since": since, "until": until})
    assert (answer.status_code, answer.json()["total"]["calls"]) == (200, 0)
    export: Any = owner.get("/api/v1/usage/export", {"since": since, "until": until})
    assert len(b"".join(export.streaming_content).splitlines()) == 1


@pytest.mark.parametrize("by", ["hour", "session"])
def test_what_takes_too_long_is_given_up(
    used: World, owner: APIClient, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setattr(explore, "statement", lambda *_: "SELECT pg_sleep(20)")
    monkeypatch.setattr(explore, "PATIENCE_MS", 50)
    answer = owner.get(URL, {"group_by": by, **RANGE})
    assert answer.status_code == 400
    (message,) = answer.json()["errors"]["since"]
    assert message.startswith("too much to read")


def test_foreign_owners_are_unknown(used: World, owner: APIClient) -> None:
    foreign = make_world("third")
    answer = owner.get(URL, {"filter": f"agent={foreign.agent.id}", **RANGE})
    assert answer.status_code == 400


def test_an_export_is_a_stream_with_a_name(used: World, owner: APIClient) -> None:
    answer: Any = owner.get("/api/v1/usage/export", {"spec": "focus-1.3", **RANGE})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    name = f"focus-1.3-{RANGE['since']}-{RANGE['until']}.csv"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
    head, *rows = b"".join(answer.streaming_content).decode().splitlines()
    assert "PublisherName" in head
    assert [("foreign" in row, "dear" in row or "cheap" in row) for row in rows] == [
        (False, True)
    ] * 2


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"spec": "focus-9"}, "spec"),
        ({"output": "xml"}, "output"),
        ({"since": "2026-01-02", "until": "2026-01-02"}, "since"),
        ({"format": "csv"}, "format"),
    ],
)
def test_an_export_that_cannot_be_meant_names_its_field(
    world: World, owner: APIClient, asked: dict[str, str], field: str
) -> None:
    answer = owner.get("/api/v1/usage/export", asked)
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])
