"""What holds in every dialect: strict in, a limit out, counts that no split can change."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.rules.dialects import DIALECTS, Engine
from enforcement.rules.frames import MAX_OPEN, Meter, StreamError
from enforcement.rules.requests import Endpoint, ParsedRequest, RequestError
from enforcement.rules.verdicts import Refuse
from tests.rules.dialects.samples import BODIES, STREAMS, event

LIMITS = {
    Endpoint.CHAT: "max_tokens",
    Endpoint.COMPLETIONS: "max_tokens",
    Endpoint.RESPONSES: "max_output_tokens",
    Endpoint.MESSAGES: "max_tokens",
    Endpoint.COMPLETION: "n_predict",
}
STREAMING = sorted(STREAMS)


def parse(endpoint: Endpoint, **fields: Any) -> ParsedRequest:
    return DIALECTS[endpoint].parse(json.dumps(BODIES[endpoint] | fields).encode())


def facts(meter: Meter) -> tuple[Any, ...]:
    return (
        meter.usage,
        meter.events,
        meter.produced,
        meter.tool_calls,
        meter.finish_reason,
        meter.done,
        meter.disputed,
        meter.counted,
        meter.id,
    )


@pytest.mark.parametrize("endpoint", DIALECTS)
def test_unknown_fields_and_duplicate_keys_are_refused(endpoint: Endpoint) -> None:
    with pytest.raises(RequestError) as unknown:
        parse(endpoint, surprise=1)
    assert (unknown.value.code, unknown.value.param) == ("unknown_field", "surprise")
    body = json.dumps(BODIES[endpoint])[:-1] + ',"model":"other"}'
    with pytest.raises(RequestError) as double:
        DIALECTS[endpoint].parse(body.encode())
    assert (double.value.code, double.value.param) == ("duplicate_key", "model")


@pytest.mark.parametrize("endpoint", sorted(LIMITS))
def test_the_output_limit_is_always_written(endpoint: Endpoint) -> None:
    dialect, field = DIALECTS[endpoint], LIMITS[endpoint]
    for asked in ({}, {field: 80}):
        parsed = parse(endpoint, **asked)
        body = dialect.forward_body(parsed, output_limit=50, engine=Engine.UNKNOWN)
        assert json.loads(body)[field] == 50
    assert parse(endpoint, **{field: 80}).output_limit == 80


@pytest.mark.parametrize("endpoint", sorted(LIMITS))
@pytest.mark.parametrize("limit", [0, -5, 1.5, "9", True, 10**12])
def test_a_limit_that_is_none_is_refused(endpoint: Endpoint, limit: Any) -> None:
    with pytest.raises(RequestError) as error:
        parse(endpoint, **{LIMITS[endpoint]: limit})
    assert error.value.param == LIMITS[endpoint]


@pytest.mark.parametrize("endpoint", STREAMING)
@given(data=st.data())
def test_metered_tokens_do_not_depend_on_how_bytes_are_split(
    endpoint: Endpoint, data: st.DataObject
) -> None:
    frames = STREAMS[endpoint]
    stream = b"".join(frames[: data.draw(st.integers(0, len(frames)))])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    dialect, parsed = DIALECTS[endpoint], parse(endpoint, stream=True)
    whole, pieces = dialect.meter(parsed), dialect.meter(parsed)
    expected = whole.feed(stream)
    borders = zip([0, *cuts], [*cuts, len(stream)], strict=True)
    found = b"".join(pieces.feed(stream[start:end]) for start, end in borders)
    assert (found, facts(pieces)) == (expected, facts(whole))
    assert (pieces.end(), facts(pieces)) == (whole.end(), facts(whole))


@pytest.mark.parametrize("endpoint", STREAMING)
@given(noise=st.binary(max_size=300), at=st.integers(0, 10))
def test_nothing_that_an_engine_says_breaks_a_meter(
    endpoint: Endpoint, noise: bytes, at: int
) -> None:
    frames = list(STREAMS[endpoint])
    frames.insert(at, noise)
    dialect = DIALECTS[endpoint]
    meter = dialect.meter(parse(endpoint, stream=True), clamp_note=b"{}")
    try:
        meter.feed(b"".join(frames))
        meter.end()
    except StreamError:
        return
    assert meter.produced >= 0
    assert meter.usage is None or meter.usage.consistent
    ending = meter.cut_ending({}, request_id="r", input_tokens=1)
    assert ending.endswith(b"\n")


def endless(endpoint: Endpoint, n: int) -> bytes:
    """One of many parts that begin and never end."""
    if endpoint is Endpoint.MESSAGES:
        block = {"type": "text", "text": ""}
        return event({"type": "content_block_start", "index": n, "content_block": block})
    if endpoint is Endpoint.RESPONSES:
        item = {"type": "message", "id": f"msg_{n}"}
        return event({"type": "response.output_item.added", "item": item})
    return event({"index": n, "content": "", "stop": False}, named=False)


@pytest.mark.parametrize("endpoint", [Endpoint.MESSAGES, Endpoint.RESPONSES, Endpoint.COMPLETION])
def test_parts_without_end_take_no_more_than_a_bounded_place(endpoint: Endpoint) -> None:
    meter = DIALECTS[endpoint].meter(parse(endpoint, stream=True))
    for n in range(2 * MAX_OPEN):
        meter.feed(endless(endpoint, n))
    ending = meter.cut_ending({}, request_id="r", input_tokens=1)
    assert ending.count(b"\ndata:") + ending.startswith(b"data:") <= MAX_OPEN + 3


@pytest.mark.parametrize("endpoint", DIALECTS)
@given(body=st.binary(max_size=300))
def test_no_answer_breaks_a_reader(endpoint: Endpoint, body: bytes) -> None:
    answer = DIALECTS[endpoint].read_answer(body)
    assert answer.usage is None or answer.usage.consistent


@pytest.mark.parametrize("endpoint", DIALECTS)
def test_a_refusal_says_who_and_why(endpoint: Endpoint) -> None:
    refusal = Refuse(
        402, "insufficient_quota", "Budget 'x' is exhausted", reason="budget_exhausted"
    )
    body = DIALECTS[endpoint].refusal_body(refusal, request_id="r-1")
    text = json.dumps(body)
    for said in ("Budget 'x' is exhausted", "budget_exhausted", "insufficient_quota", "r-1"):
        assert said in text
