"""llama.cpp's own completion: running counts, its end, its two ways to say a limit."""

import json
from typing import Any

import pytest

from enforcement.rules.dialects import DIALECTS, Engine
from enforcement.rules.money import TokenUsage
from enforcement.rules.requests import Endpoint, ParsedRequest, RequestError
from enforcement.rules.verdicts import Refuse
from tests.rules.dialects.samples import BODIES, native

NATIVE = DIALECTS[Endpoint.COMPLETION]


def parse(**fields: Any) -> ParsedRequest:
    return NATIVE.parse(json.dumps(BODIES[Endpoint.COMPLETION] | fields).encode())


def test_a_stream_tells_its_counts_as_it_runs() -> None:
    meter = NATIVE.meter(parse(stream=True))
    meter.feed(b"".join(native()[:2]))
    assert (meter.produced, meter.done, meter.counted) == (2, False, False)
    meter.feed(b"".join(native()[2:]))
    assert meter.usage == TokenUsage(input_tokens=6, cached_input_tokens=2, output_tokens=3)
    assert (meter.done, meter.finish_reason) == (True, "eos")


def test_several_prompts_share_a_stream() -> None:
    meter = NATIVE.meter(parse(stream=True, prompt=["a", "b"]))
    other = [frame.replace(b'"index":0', b'"index":1') for frame in native(2)]
    meter.feed(b"".join(native(3)))
    assert not meter.done
    meter.feed(b"".join(other))
    assert meter.usage == TokenUsage(input_tokens=12, cached_input_tokens=4, output_tokens=5)
    assert meter.done


def test_whole_answers_are_one_or_many() -> None:
    result = {"stop": True, "stop_type": "limit", "tokens_predicted": 4, "tokens_evaluated": 6}
    one = NATIVE.read_answer(json.dumps(result).encode())
    assert (one.usage, one.limited) == (TokenUsage(input_tokens=6, output_tokens=4), True)
    many = NATIVE.read_answer(json.dumps([result, result]).encode())
    assert many.usage == TokenUsage(input_tokens=12, output_tokens=8)


def test_a_cut_stops_in_its_own_words() -> None:
    meter = NATIVE.meter(parse(stream=True))
    meter.feed(b"".join(native()[:2]))
    ending = meter.cut_ending({"outcome": "cut"}, request_id="r", input_tokens=6)
    said = json.loads(ending.removeprefix(b"data: "))
    assert (said["stop"], said["stop_type"], said["tokens_predicted"]) == (True, "limit", 2)
    assert said["comptroller"] == {"outcome": "cut"}


@pytest.mark.parametrize("endless", [-1, -2])
def test_no_limit_gets_ours(endless: int) -> None:
    parsed = parse(n_predict=endless)
    assert parsed.output_limit is None
    body = NATIVE.forward_body(parsed, output_limit=7, engine=Engine.LLAMA_CPP)
    assert json.loads(body)["n_predict"] == 7


def test_the_limits_other_name_is_understood_and_not_passed_on() -> None:
    parsed = parse(max_tokens=9)
    assert parsed.output_limit == 9
    written = json.loads(NATIVE.forward_body(parsed, output_limit=7, engine=Engine.LLAMA_CPP))
    assert (written["n_predict"], "max_tokens" in written) == (7, False)
    with pytest.raises(RequestError) as error:
        parse(max_tokens=9, n_predict=9)
    assert error.value.code == "conflicting_fields"


@pytest.mark.parametrize(
    "field", ["best_of", "response_fields", "image_data", "lora", "speculative.n_max"]
)
def test_what_could_hide_or_change_the_cost_is_refused(field: str) -> None:
    with pytest.raises(RequestError) as error:
        parse(**{field: 1})
    assert error.value.param == field


def test_several_answers_multiply_the_bound() -> None:
    assert parse(n_cmpl=3).sequences == parse(n=3).sequences == 3


def test_errors_carry_the_status_as_code() -> None:
    body = NATIVE.refusal_body(Refuse(402, "insufficient_quota", "No"), request_id="r")
    assert (body["error"]["code"], body["error"]["reason"]) == (402, "insufficient_quota")
