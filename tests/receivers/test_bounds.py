"""Bodies that nobody can take: each with its status, a problem document, and nothing booked."""

import gzip
import json
from typing import Any

import pytest
from django.test import Client

from budgets.models import RejectedEvent, UsageEvent
from enforcement.receivers.bodies import MAX_BODY_BYTES, MAX_CALLS
from tests.enforcement.stack import Site, make_site
from tests.receivers.conftest import key_of

PROTOBUF, JSON, LINES = "application/x-protobuf", "application/json", "application/x-ndjson"
TRACES, LITELLM, WEBHOOK = "/v1/traces", "/api/v1/usage/litellm", "/api/v1/usage/webhook"


@pytest.fixture
def site(db: None) -> Site:
    return make_site()


@pytest.fixture
def client(site: Site) -> Client:
    headers = {"Authorization": f"Bearer {key_of(site)}"}
    return Client(headers=headers, raise_request_exception=False)


def post(client: Client, path: str, body: bytes, kind: str, encoding: str = "") -> Any:
    headers = {"Content-Encoding": encoding} if encoding else {}
    return client.post(path, body, content_type=kind, headers=headers)


def span(number: int = 1, **attributes: int | str) -> dict[str, Any]:
    said = {"gen_ai.request.model": "toy", "gen_ai.usage.input_tokens": 5} | attributes
    return {
        "traceId": "0af7651916cd43dd8448eb211c80319c",
        "spanId": f"{number:016x}",
        "attributes": [
            {"key": name, "value": {"intValue": value} if isinstance(value, int) else
             {"stringValue": value}}
            for name, value in said.items()
        ],
    }  # fmt: skip


def body_of(*spans: dict[str, Any]) -> bytes:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()


BOMB = gzip.compress(b" " * 60_000_000)
DEEP = b'{"resourceSpans":[' * 50_000
CASES = {
    "no protobuf": (TRACES, b"{}", PROTOBUF, "", 400),
    "no JSON": (TRACES, b"\x0a\x00", JSON, "", 400),
    "JSON too deep": (TRACES, DEEP, JSON, "", 400),
    "no gzip": (TRACES, b"plain", PROTOBUF, "gzip", 400),
    "half a gzip stream": (TRACES, gzip.compress(body_of())[:-4], JSON, "gzip", 400),
    "gzip bomb": (TRACES, BOMB, JSON, "gzip", 413),
    "gzip bomb of protobuf": (TRACES, BOMB, PROTOBUF, "gzip", 413),
    "gzip bomb to a webhook": (WEBHOOK, BOMB, JSON, "gzip", 413),
    "too many bytes": (LITELLM, b" " * (MAX_BODY_BYTES + 1), JSON, "", 413),
    "too many spans": (TRACES, b"\x0a\x00" * 4 * MAX_CALLS, PROTOBUF, "", 413),
    "too many values": (TRACES, b"[" + b"0," * 1_000_001, JSON, "", 413),
    "too many calls": (WEBHOOK, b"[" + b"{}," * MAX_CALLS + b"{}]", JSON, "", 413),
    "too many lines": (LITELLM, b"{}\n" * (MAX_CALLS + 1), LINES, "", 413),
    "another encoding": (TRACES, b"x", PROTOBUF, "br", 415),
    "another format": (TRACES, b"x", "text/plain", "", 415),
    "gRPC": (TRACES, b"x", "application/grpc", "", 415),
    "lines to a webhook": (WEBHOOK, b"{}", LINES, "", 415),
}


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_taken_is_refused_whole(client: Client, name: str) -> None:
    path, body, kind, encoding, status = CASES[name]
    answer = post(client, path, body, kind, encoding)
    assert (answer.status_code, answer["Content-Type"]) == (status, "application/problem+json")
    assert answer.json()["detail"]
    assert UsageEvent.objects.count() == RejectedEvent.objects.count() == 0


@pytest.mark.parametrize("path", [TRACES, LITELLM, WEBHOOK])
def test_only_a_reporters_key_opens(client: Client, site: Site, path: str) -> None:
    assert post(Client(), path, body_of(span()), JSON).status_code == 401
    wrong = Client(headers={"Authorization": f"Bearer {site.token}"})
    assert post(wrong, path, body_of(span()), JSON).status_code == 401
    assert UsageEvent.objects.count() == 0


def test_an_empty_body_tells_of_nothing(client: Client) -> None:
    assert post(client, TRACES, b"\x0a\x00", PROTOBUF).content == b""
    assert post(client, TRACES, b"{}", JSON).json() == {}
    assert post(client, LITELLM, b"\n", LINES).json()["booked"] == 0


def test_who_reports_too_fast_waits(client: Client, settings: Any) -> None:
    settings.REPORTS_PER_MINUTE = 3
    answers = [post(client, TRACES, b"{}", JSON) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[3]["Retry-After"]) <= 20
    other = Client(headers={"Authorization": f"Bearer {key_of(make_site('other'))}"})
    assert post(other, TRACES, b"{}", JSON).status_code == 200


def test_a_span_that_cannot_be_true_is_a_partial_success(client: Client) -> None:
    body = body_of(span(1), span(2, **{"gen_ai.usage.input_tokens": -1}), span(3))
    assert post(client, TRACES, body, JSON).json() == {
        "partialSuccess": {
            "rejectedSpans": "1",
            "errorMessage": (
                "set aside: gen_ai.usage.input_tokens is negative or more than 100,000,000"
            ),
        }
    }
    assert UsageEvent.objects.count() == 2
    kept = RejectedEvent.objects.get()
    assert (kept.source, kept.reason) == (
        "otlp",
        "gen_ai.usage.input_tokens is negative or more than 100,000,000",
    )


def test_spans_are_told_once_in_either_format(client: Client) -> None:
    body = body_of(span(1), span(1), span(2))
    for _ in range(2):
        assert post(client, TRACES, gzip.compress(body), JSON, "gzip").json() == {}
    changed = post(client, TRACES, body_of(span(1, **{"gen_ai.usage.input_tokens": 6})), JSON)
    assert changed.json()["partialSuccess"] == {
        "rejectedSpans": "1",
        "errorMessage": "set aside: this call was told before with other content",
    }
    assert list(UsageEvent.objects.values_list("input_tokens", flat=True)) == [5, 5]


def test_what_a_sidecar_metered_is_left_to_it(client: Client) -> None:
    told = [
        span(1, **{"comptroller.request_id": "0190b4a2-0000-7000-8000-000000000000"}),
        span(2, **{"server.address": "127.0.0.1", "server.port": 8400}),
    ]
    assert post(client, TRACES, body_of(*told), JSON).json() == {}
    assert UsageEvent.objects.count() == 0


def test_an_answer_that_is_booked_already_is_not_booked_again(client: Client) -> None:
    answer = "chatcmpl-0123456789abcdef"
    post(client, TRACES, body_of(span(1, **{"gen_ai.response.id": answer})), JSON)
    call = {"id": "c", "model": "toy", "input_tokens": 5, "response_id": answer}
    found = post(client, WEBHOOK, json.dumps(call).encode(), JSON).json()
    assert (found["metered"], found["booked"]) == (1, 0)
    short = call | {"id": "d", "response_id": "chatcmpl-123"}
    assert (
        post(client, WEBHOOK, json.dumps([short, short | {"id": "e"}]).encode(), JSON).json()[
            "booked"
        ]
        == 2
    )
