"""Webhooks of any shape: the address says where everything stands."""

from typing import Any
from urllib.parse import urlencode

import pytest
from django.utils import timezone

from budgets.models import Balance, UsageEvent
from enforcement.rules.policy import Mode, ScopeKind, Unit
from tests.controlplane.world import Api
from tests.enforcement.stack import Site, make_site
from tests.receivers.conftest import key_of

PLAIN = {"id": "c-1", "agent": "a1", "model": "toy", "input_tokens": 10, "output_tokens": 4}


@pytest.fixture
def site(db: None) -> Site:
    return make_site()


@pytest.fixture
def api(site: Site) -> Api:
    return Api(key_of(site))


def told(api: Api, body: Any, *, status: int = 200, **pointers: str) -> dict[str, Any]:
    answer = api.call("POST", f"usage/webhook?{urlencode(pointers)}", body)
    assert answer.status_code == status, answer.content
    found: dict[str, Any] = answer.json()
    return found


def test_a_document_with_our_names_needs_no_mapping(site: Site, api: Api) -> None:
    began = timezone.now().replace(microsecond=0)
    answer = told(api, PLAIN | {"started_at": began.isoformat(), "tags": {"team": "red"}})
    assert answer["booked"] == 1
    event = UsageEvent.objects.get()
    assert (event.agent_id, event.started_at, event.source) == (site.agent.id, began, "webhook")
    assert (event.input_tokens, event.output_tokens, event.tags) == (10, 4, {"team": "red"})


def test_pointers_say_where_everything_stands(site: Site, api: Api) -> None:
    body = {
        "data": [
            {"uuid": "x", "who": {"a/b": "a1"}, "llm": ["toy"], "usage": {"in": "9", "out": 2.0}},
            {"uuid": "y", "usage": None},
        ]
    }
    answer = told(
        api,
        body,
        items="/data",
        id="/uuid",
        agent="/who/a~1b",
        model="/llm/0",
        input_tokens="/usage/in",
        output_tokens="/usage/out",
    )
    assert (answer["booked"], answer["no_usage"], answer["rejected"]) == (1, 1, [])
    event = UsageEvent.objects.get()
    assert (event.model, event.input_tokens, event.output_tokens) == ("toy", 9, 2)


@pytest.mark.parametrize(
    ("pointers", "detail"),
    [
        ({"prompt": "/p"}, "unknown field 'prompt'"),
        ({"id": "uuid"}, "id: no JSON pointer"),
        ({"items": "/nowhere"}, "there is no list where `items` points"),
        ({"id": "/a" * 40}, "id: more than 32 steps deep"),
    ],
)
def test_a_mapping_that_cannot_be_meant_is_refused(
    api: Api, pointers: dict[str, str], detail: str
) -> None:
    assert told(api, PLAIN, status=400, **pointers)["detail"] == detail


def test_clocks_that_cannot_be_right_are_replaced_by_ours(api: Api) -> None:
    for number, at in enumerate(("2999-01-01T00:00:00Z", "0001-01-01T00:00:00Z", 10**15, 0)):
        assert told(api, PLAIN | {"id": f"c-{number}", "started_at": at})["booked"] == 1
    spent = [timezone.now() - event.started_at for event in UsageEvent.objects.all()]
    assert all(0 <= age.total_seconds() < 60 for age in spent)
    assert told(api, PLAIN | {"started_at": "yesterday"})["rejected"] == [
        "started_at is no RFC 3339 instant"
    ]


def test_a_hard_limit_that_is_passed_becomes_overrun_and_soft_ones_count(
    site: Site, api: Api
) -> None:
    hard = site.budget(10)
    soft = site.budget(
        10,
        name="all",
        scope_kind=ScopeKind.ORGANIZATION,
        scope_id=site.organization.id,
        unit=Unit.REQUESTS,
        mode=Mode.SOFT,
    )
    assert told(api, [PLAIN, PLAIN | {"id": "c-2"}])["booked"] == 2
    balance = Balance.objects.get(budget=hard)
    assert (balance.spent_amount, balance.overrun_amount, balance.held_amount) == (10, 18, 0)
    assert Balance.objects.get(budget=soft).spent_amount == 2
