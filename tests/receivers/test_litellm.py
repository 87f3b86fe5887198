"""LiteLLM's logs as a proxy really wrote them (1.106.2, in front of vLLM), cut to what is read."""

import json
from typing import Any

import pytest
from django.utils import timezone

from budgets.models import RejectedEvent, UsageEvent
from controlplane.identity.domain import create_agent
from controlplane.identity.enums import Scope
from tests.controlplane.world import Api
from tests.enforcement.stack import ACTOR, Site, make_site
from tests.receivers.conftest import key_of

CALL = {
    "id": "chatcmpl-a449722c3638c503",
    "litellm_call_id": "818a8504-ac83-477f-9a93-30c6d218ecff",
    "trace_id": "sess-9",
    "session_id": "",
    "call_type": "acompletion",
    "cache_hit": None,
    "stream": None,
    "status": "success",
    "custom_llm_provider": "hosted_vllm",
    "startTime": 1795456441.304605,
    "endTime": 1795456441.798223,
    "completionStartTime": 1795456441.798223,
    "model": "hosted_vllm/tiny-llama",
    "metadata": {
        "user_api_key_alias": None,
        "user_api_key_end_user_id": "agent-7",
        "requester_metadata": {"agent_id": "agent-7", "run_id": "run-1"},
        "requester_custom_headers": {"x-agent-id": "agent-7"},
        "usage_object": {
            "completion_tokens": 12,
            "prompt_tokens": 15,
            "total_tokens": 27,
            "completion_tokens_details": None,
            "prompt_tokens_details": {"cached_tokens": 4, "created_cache_tokens": 0},
        },
    },
    "response_cost": 2.55e-05,
    "total_tokens": 27,
    "prompt_tokens": 15,
    "completion_tokens": 12,
    "request_tags": ["team-a", "batch", "User-Agent: curl", "User-Agent: curl/7.88.1"],
    "end_user": "agent-7",
    "api_base": "http://127.0.0.1:18000/v1/chat/completions",
    "model_group": "tiny",
}


@pytest.fixture
def site(db: None) -> Site:
    return make_site()


@pytest.fixture
def api(site: Site) -> Api:
    return Api(key_of(site))


def told(api: Api, body: Any, *, status: int = 200) -> dict[str, Any]:
    answer = api.call("POST", "usage/litellm", body)
    assert answer.status_code == status, answer.content
    found: dict[str, Any] = answer.json()
    return found


def result(**counts: int) -> dict[str, Any]:
    names = ("booked", "duplicates", "metered", "unattributed", "contradictions", "no_usage")
    return dict.fromkeys(names, 0) | {"rejected": []} | counts


def test_a_logged_call_is_a_usage_event_of_its_agent(site: Site, api: Api) -> None:
    agent = create_agent(
        organization_id=site.organization.id,
        slug="agent-7",
        name="Seven",
        actor=ACTOR,
        now=timezone.now(),
    )
    assert told(api, [CALL]) == result(booked=1)
    event = UsageEvent.objects.get()
    assert (event.agent_id, event.session, event.user) == (agent.id, "sess-9", "agent-7")
    assert (event.provider, event.model, event.source) == ("hosted_vllm", "tiny-llama", "litellm")
    assert (event.input_tokens, event.cached_input_tokens, event.output_tokens) == (15, 4, 12)
    assert (event.duration_ms, event.upstream_id, event.outcome) == (
        494,
        "chatcmpl-a449722c3638c503",
        "completed",
    )
    assert event.tags == {"team-a": "", "batch": ""}
    assert event.started_at.isoformat() == "2026-11-23T17:54:01.304000+00:00"


@pytest.mark.parametrize("form", ["list", "one", "wrapped", "lines", "printed"])
def test_every_form_of_the_callback_is_read(api: Api, form: str) -> None:
    other = CALL | {"litellm_call_id": "c2", "id": "chatcmpl-b449722c3638c503"}
    bodies: dict[str, tuple[Any, int]] = {
        "list": ([CALL, other], 2),
        "one": (CALL, 1),
        "wrapped": ({"event": "success", "standard_logging_object": CALL}, 1),
        "lines": ((json.dumps(CALL) + "\n" + json.dumps(other) + "\n").encode(), 2),
        "printed": (json.dumps(CALL, indent=1).encode(), 1),
    }
    body, count = bodies[form]
    assert told(api, body) == result(booked=count, unattributed=count)
    assert told(api, body) == result(duplicates=count)


def test_what_ran_on_no_model_is_no_call(api: Api) -> None:
    failed = {"status": "failure", "prompt_tokens": 0, "completion_tokens": 0, "metadata": {}}
    assert told(api, [CALL | {"cache_hit": True}, CALL | failed]) == result(no_usage=2)
    assert told(api, []) == result()


def test_what_cannot_be_true_is_set_aside_and_the_rest_is_booked(api: Api) -> None:
    bad = [
        CALL | {"prompt_tokens": -1},
        CALL | {"prompt_tokens": 10**12},
        CALL | {"completion_tokens": 1.5},
        CALL | {"model": ""},
        {"spend": 5},
        [],
        7,
    ]
    answer = told(api, [*bad, CALL])
    assert (answer["booked"], len(answer["rejected"])) == (1, len(bad))
    assert answer["rejected"][:2] == [
        "prompt_tokens is negative or more than 100,000,000",
        "prompt_tokens is negative or more than 100,000,000",
    ]
    assert {row.source for row in RejectedEvent.objects.all()} == {"litellm"}
    assert RejectedEvent.objects.count() == len(bad)


def test_another_content_under_a_known_name_is_set_aside(api: Api) -> None:
    assert told(api, CALL)["booked"] == 1
    changed = CALL | {"completion_tokens": 13}
    answer = told(api, [changed, CALL])
    assert (answer["contradictions"], answer["duplicates"], answer["booked"]) == (1, 1, 0)
    assert answer["rejected"] == ["this call was told before with other content"]
    assert told(api, CALL) == result(duplicates=1)
    assert UsageEvent.objects.get().output_tokens == 12


def test_what_went_to_a_sidecar_is_left_to_it(api: Api) -> None:
    behind = CALL | {"api_base": "http://127.0.0.1:8400/v1/chat/completions"}
    assert told(api, behind) == result(metered=1)
    assert UsageEvent.objects.count() == 0


@pytest.mark.parametrize(
    ("body", "status"), [(b"{", 400), (b"nothing", 400), (b"[" * 100_000, 400), (b"\xff", 400)]
)
def test_what_is_no_json_is_refused(api: Api, body: bytes, status: int) -> None:
    problem = told(api, body, status=status)
    assert problem["type"] == "urn:comptroller:problem:unreadable-report"


def test_reporting_is_a_scope_of_its_own(site: Site) -> None:
    others = [scope for scope in Scope if scope is not Scope.USAGE_WRITE]
    told(Api(key_of(site, *others)), CALL, status=403)
    told(Api(), CALL, status=401)
    told(Api(site.token), CALL, status=401)
    reporter = Api(key_of(site))
    assert reporter.call("GET", "usage-events").status_code == 403


def test_organizations_tell_of_one_call_each_for_themselves(site: Site, api: Api) -> None:
    stranger = Api(key_of(make_site("stranger")))
    assert told(api, CALL)["booked"] == 1
    assert told(stranger, CALL)["booked"] == 1
    first, second = UsageEvent.objects.all()
    assert first.organization_id != second.organization_id
    assert first.id != second.id
    assert told(stranger, CALL | {"prompt_tokens": 16})["rejected"] != []
    assert set(UsageEvent.objects.values_list("input_tokens", flat=True)) == {15}
