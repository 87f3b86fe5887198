"""OTLP's JSON: as the specification's examples have it, and as it should not be."""

import json
from typing import Any

import pytest

from enforcement.rules.reports.call import ReportError
from enforcement.rules.reports.spans import Span, spans_of_json


def spans(document: Any) -> list[Span]:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return spans_of_json(body, wanted=lambda name: name != "prompt")


def one(**said: Any) -> dict[str, Any]:
    return {"resourceSpans": [{"scopeSpans": [{"spans": [said]}]}]}


def attribute(key: str, **value: Any) -> dict[str, Any]:
    return {"key": key, "value": value}


def test_a_span_of_the_specification_is_read() -> None:
    document = {
        "resourceSpans": [
            {
                "resource": {"attributes": [attribute("service.name", stringValue="my.service")]},
                "schemaUrl": "https://opentelemetry.io/schemas/1.37.0",
                "scopeSpans": [
                    {
                        "scope": {"name": "my.library", "version": "1.0.0"},
                        "spans": [
                            {
                                "traceId": "5B8EFFF798038103D269B633813FC60C",
                                "spanId": "EEE19B7EC3C1B174",
                                "name": "I'm a server span",
                                "startTimeUnixNano": "1544712660000000000",
                                "endTimeUnixNano": 1544712661000000000,
                                "kind": 2,
                                "status": {"code": 2},
                                "attributes": [
                                    attribute("text", stringValue="some value"),
                                    attribute("digits", intValue="42"),
                                    attribute("number", intValue=43),
                                    attribute("half", doubleValue=0.5),
                                    attribute("yes", boolValue=True),
                                    attribute("prompt", stringValue="secret"),
                                    attribute("nothing"),
                                    attribute(
                                        "list",
                                        arrayValue={
                                            "values": [{"stringValue": "a"}, {"intValue": "1"}]
                                        },
                                    ),
                                ],
                            }
                        ],
                    }
                ],
            }
        ]
    }
    assert spans(document) == [
        Span(
            trace_id="5b8efff798038103d269b633813fc60c",
            span_id="eee19b7ec3c1b174",
            name="I'm a server span",
            started_ns=1544712660000000000,
            ended_ns=1544712661000000000,
            failed=True,
            attributes={
                "text": "some value",
                "digits": 42,
                "number": 43,
                "half": 0.5,
                "yes": True,
                "list": ("a",),
            },
            resource={"service.name": "my.service"},
        )
    ]


@pytest.mark.parametrize("document", [{}, {"resourceSpans": []}, {"other": 1}])
def test_a_body_without_spans_has_none(document: Any) -> None:
    assert spans(document) == []


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff\xfe",
        b'{"resourceSpans":' * 5_000,
        {"resourceSpans": {}},
        one(startTimeUnixNano="soon"),
        one(startTimeUnixNano="9" * 5_000),
        one(attributes=[attribute("n", intValue="one")]),
        one(attributes=[attribute("n", intValue="9" * 5_000)]),
        one(attributes=[attribute("n", doubleValue="half")]),
        one(attributes=[attribute("n", arrayValue=7)]),
        one(attributes="none"),
    ],
)
def test_what_is_no_otlp_is_an_error_in_words(document: Any) -> None:
    with pytest.raises(ReportError, match="no OTLP: "):
        spans(document)


@pytest.mark.parametrize("at_ns", [-1, 2**64, "-1"])
def test_times_beyond_the_type_are_none(at_ns: object) -> None:
    assert spans(one(startTimeUnixNano=at_ns))[0].started_ns == 0
