"""JSON of any shape: pointers, instants, and what is no call."""

import json
from typing import Any

import pytest

from enforcement.rules.reports.call import ReportedCall, ReportError
from enforcement.rules.reports.webhook import FIELDS, Mapped
from enforcement.rules.wire import Outcome

PLAIN = {"id": "c", "model": "toy", "input_tokens": 10, "output_tokens": 4}


def told(document: Any, **pointers: str) -> ReportedCall | None:
    return Mapped(pointers).call(document)


def test_every_field_is_read() -> None:
    call = told(
        {
            "id": 7,
            "agent": "a1",
            "model": "toy",
            "provider": "OpenAI",
            "started_at": "2026-11-29T06:00:00.5Z",
            "duration_ms": 70.9,
            "input_tokens": 10,
            "output_tokens": 4,
            "cached_input_tokens": 6,
            "cache_write_tokens": 2,
            "reasoning_tokens": 3,
            "service_tier": "flex",
            "session": "s",
            "user": "u",
            "node": "n",
            "endpoint": "chat",
            "response_id": "r",
            "url": "https://api.example/v1",
            "finish_reason": "stop",
            "failed": True,
            "sidecar_event": "e",
            "tags": {"team": "red", "size": 4, "deep": {}},
        }
    )
    assert call is not None
    usage = call.usage
    assert (call.key, call.agents, call.model, call.provider) == ("7", ("a1",), "toy", "openai")
    assert (call.started_at_ms, call.duration_ms) == (1_795_932_000_500, 70)
    assert (usage.input_tokens, usage.output_tokens, usage.tier) == (10, 4, "flex")
    assert (usage.cached_input_tokens, usage.cache_write_tokens, usage.reasoning_tokens) == (
        6,
        2,
        3,
    )
    assert (call.session, call.user, call.node, call.endpoint) == ("s", "u", "n", "chat")
    assert (call.response_id, call.address) == ("r", "api.example:443")
    assert (call.finish_reason, call.outcome) == ("stop", Outcome.UPSTREAM_FAILED)
    assert (call.sidecar_event, call.tags) == ("e", {"team": "red", "size": "4", "deep": ""})


def test_pointers_are_those_of_the_rfc() -> None:
    """RFC 6901 §5, as far as its examples can name a model."""
    document = {"foo": ["bar", "baz"], "": "0", "a/b": "1", "c%d": "2", "m~n": "8", " ": "7"}
    whole = PLAIN | document
    examples = {"/foo/0": "bar", "/": "0", "/a~1b": "1", "/c%d": "2", "/m~0n": "8"}
    for pointer, model in examples.items():
        call = told(whole, model=pointer)
        assert call is not None
        assert call.model == model


@pytest.mark.parametrize("pointer", ["/foo/9", "/foo/-", "/foo/٣", "/foo/bar", "/x", "", "/foo"])
def test_a_pointer_to_nothing_finds_nothing(pointer: str) -> None:
    with pytest.raises(ReportError, match="names no id, or no model"):
        told(PLAIN | {"foo": ["bar"]}, model=pointer)


@pytest.mark.parametrize(
    ("said", "at_ms"),
    [
        (1_795_932_000, 1_795_932_000_000),
        (1_795_932_000.25, 1_795_932_000_250),
        (1_795_932_000_250, 1_795_932_000_250),
        ("2026-11-29T06:00:00+00:00", 1_795_932_000_000),
        ("2026-11-29T08:00:00+02:00", 1_795_932_000_000),
        ("2026-11-29T06:00:00", 1_795_932_000_000),
        (None, 0),
        (-5, 0),
        (10**30, 0),
        ("0001-01-01T00:00:00+14:00", 0),
    ],
)
def test_an_instant_is_a_text_or_a_unix_time(said: Any, at_ms: int) -> None:
    call = told(PLAIN | {"started_at": said})
    assert call is not None
    assert call.started_at_ms == at_ms


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"started_at": "soon"}, "started_at is no RFC 3339 instant"),
        ({"started_at": True}, "started_at is no instant"),
        ({"started_at": []}, "started_at is no instant"),
        ({"input_tokens": "ten"}, "input_tokens is no whole number"),
        ({"input_tokens": -1}, "input_tokens is negative or more than 100,000,000"),
        ({"id": ""}, "a document with tokens names no id, or no model"),
        ({"model": None}, "a document with tokens names no id, or no model"),
    ],
)
def test_what_cannot_be_true_says_why(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ReportError) as caught:
        told(PLAIN | change)
    assert str(caught.value) == reason


@pytest.mark.parametrize("document", [None, 7, "text", [], {}, {"id": "c", "model": "toy"}])
def test_what_tells_of_no_tokens_is_no_call(document: Any) -> None:
    assert told(document) is None


def test_a_body_is_one_call_or_a_list_or_has_it_deeper() -> None:
    one, two = [PLAIN], [PLAIN, PLAIN]
    assert Mapped({}).documents(json.dumps(PLAIN).encode()) == one
    assert Mapped({}).documents(json.dumps(two).encode()) == two
    deep = json.dumps({"data": {"calls": two}}).encode()
    assert Mapped({"items": "/data/calls"}).documents(deep) == two


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a":NaN}', b'{"\xd9":1}'])
def test_what_is_no_json_is_an_error_in_words(body: bytes) -> None:
    with pytest.raises(ReportError, match="no JSON: "):
        Mapped({}).documents(body)


def test_every_field_can_be_pointed_at() -> None:
    """Under another name it is read as under its own."""
    plain = dict.fromkeys(FIELDS, 1) | {"url": "http://a", "tags": {"team": "red"}, "failed": True}
    elsewhere = {f"my_{name}": value for name, value in plain.items()}
    assert told(elsewhere, **{name: f"/my_{name}" for name in FIELDS}) == told(plain) is not None
