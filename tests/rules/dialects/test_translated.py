"""Ollama's API on an engine that speaks OpenAI's: both ways, whole and streamed."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.rules.dialects import DIALECTS, TRANSLATIONS, Engine
from enforcement.rules.money import TokenUsage
from enforcement.rules.requests import Endpoint, ParsedRequest
from tests.rules.dialects.samples import BODIES, chat, event

CHAT = TRANSLATIONS[Endpoint.OLLAMA_CHAT]
GENERATE = TRANSLATIONS[Endpoint.OLLAMA_GENERATE]
EMBED = TRANSLATIONS[Endpoint.OLLAMA_EMBED]


def parse(endpoint: Endpoint, **fields: Any) -> ParsedRequest:
    return DIALECTS[endpoint].parse(json.dumps(BODIES[endpoint] | fields).encode())


def forwarded(endpoint: Endpoint, *, engine: Engine = Engine.LLAMA_CPP, **fields: Any) -> Any:
    dialect = TRANSLATIONS[endpoint]
    limit = 7 if dialect.generates else None
    body = dialect.forward_body(parse(endpoint, **fields), output_limit=limit, engine=engine)
    return json.loads(body)


def lines(data: bytes) -> list[Any]:
    return [json.loads(line) for line in data.splitlines()]


def test_a_conversation_keeps_its_calls_and_results() -> None:
    call = {"function": {"name": "search", "arguments": {"q": "cats"}}}
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "many", "tool_name": "search"},
    ]
    told = forwarded(Endpoint.OLLAMA_CHAT, messages=messages, stream=False)
    (called,) = told["messages"][1]["tool_calls"]
    assert called["function"] == {"name": "search", "arguments": '{"q":"cats"}'}
    assert told["messages"][2]["tool_call_id"] == called["id"]
    assert (told["max_tokens"], told["stream"], told["model"]) == (7, False, "m")


def test_options_are_told_in_the_engines_words() -> None:
    options = {"temperature": 0.5, "top_k": 3, "num_predict": 80, "num_ctx": 2048, "stop": ["x"]}
    told = forwarded(Endpoint.OLLAMA_CHAT, options=options, format="json", think=False)
    assert (told["temperature"], told["top_k"], told["stop"]) == (0.5, 3, ["x"])
    assert told["response_format"] == {"type": "json_object"}
    assert told["chat_template_kwargs"] == {"enable_thinking": False}
    assert told["stream_options"] == {"include_usage": True}
    assert not {"options", "num_predict", "num_ctx", "keep_alive"} & told.keys()
    paid = forwarded(Endpoint.OLLAMA_CHAT, engine=Engine.OPENAI, options=options)
    assert (paid["max_completion_tokens"], "top_k" in paid) == (7, False)


def test_a_prompt_is_a_message_and_an_input_stays_one() -> None:
    told = forwarded(Endpoint.OLLAMA_GENERATE, system="be brief", format={"type": "object"})
    assert told["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
    ]
    assert told["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert forwarded(Endpoint.OLLAMA_EMBED, keep_alive="5m") == {"model": "m", "input": "hi"}


@pytest.mark.parametrize("field", ["raw", "template", "suffix", "context"])
def test_what_has_no_counterpart_is_named(field: str) -> None:
    given = {"raw": True, "context": [1]}.get(field, "x")
    assert GENERATE.untranslatable(parse(Endpoint.OLLAMA_GENERATE, **{field: given})) == field


def stream(*frames: bytes, note: bytes = b"") -> tuple[Any, list[Any]]:
    meter = CHAT.meter(parse(Endpoint.OLLAMA_CHAT), clamp_note=note)
    out = meter.feed(b"".join(frames)) + meter.end()
    return meter, lines(out + meter.missing_end())


def test_events_become_lines_with_the_counts_in_the_last() -> None:
    meter, said = stream(*chat(3))
    assert [line["message"]["content"] for line in said] == ["a", "a", "a", "a", ""]
    assert [line["done"] for line in said] == [False] * 4 + [True]
    assert (said[-1]["prompt_eval_count"], said[-1]["eval_count"]) == (27, 3)
    assert meter.usage == TokenUsage(input_tokens=27, output_tokens=3)


def delta(reason: str | None = None, **said: Any) -> bytes:
    choice = {"index": 0, "delta": said, "finish_reason": reason}
    return event({"model": "m", "choices": [choice]}, named=False)


def test_fragments_of_a_call_become_one() -> None:
    begin = [{"index": 0, "id": "c", "function": {"name": "search", "arguments": ""}}]
    rest = [{"index": 0, "function": {"arguments": '{"q":1}'}}]
    meter, said = stream(delta(tool_calls=begin), delta(tool_calls=rest), delta("tool_calls"))
    (call,) = said[0]["message"]["tool_calls"]
    assert call == {"function": {"name": "search", "arguments": {"q": 1}}}
    assert (meter.tool_calls, said[-1]["done"]) == (1, True)


def test_a_limit_of_ours_is_noted_and_thoughts_are_kept_apart() -> None:
    frames = (delta(reasoning_content="hm"), delta(content="x"), delta("length"))
    _, said = stream(*frames, note=b'{"outcome":"clamped"}')
    assert [line["message"].get("thinking") for line in said] == ["hm", None, None]
    assert (said[-1]["done_reason"], said[-1]["comptroller"]) == ("length", {"outcome": "clamped"})


def test_whole_answers() -> None:
    call = {"id": "c", "function": {"name": "search", "arguments": '{"q":1}'}}
    message = {"role": "assistant", "content": "x", "tool_calls": [call]}
    usage = {"prompt_tokens": 27, "completion_tokens": 3}
    choice = {"index": 0, "message": message, "finish_reason": "length"}
    body = json.dumps({"model": "m", "choices": [choice], "usage": usage}).encode()
    answer = CHAT.read_answer(body)
    assert (answer.usage, answer.tool_calls, answer.limited) == (
        TokenUsage(input_tokens=27, output_tokens=3),
        1,
        True,
    )
    said = json.loads(CHAT.answer_body(body))
    assert said["message"]["tool_calls"][0]["function"]["arguments"] == {"q": 1}
    assert (said["done"], said["done_reason"], said["eval_count"]) == (True, "length", 3)
    assert json.loads(GENERATE.answer_body(body))["response"] == "x"
    rows = {"model": "m", "data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 4}}
    embedded = json.loads(EMBED.answer_body(json.dumps(rows).encode()))
    assert (embedded["embeddings"], embedded["prompt_eval_count"]) == ([[0.5]], 4)
    assert json.loads(CHAT.error_body(b'{"error":{"message":"no"}}')) == {"error": "no"}


@given(data=st.data())
def test_lines_and_counts_do_not_depend_on_how_bytes_are_split(data: st.DataObject) -> None:
    whole = b"".join(chat(3))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    meter, pieces = CHAT.meter(parse(Endpoint.OLLAMA_CHAT)), []
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        pieces.append(meter.feed(whole[start:end]))
    expected, said = stream(*chat(3))
    assert lines(b"".join(pieces)) == said
    assert (meter.usage, meter.events) == (expected.usage, expected.events)


@pytest.mark.parametrize("dialect", TRANSLATIONS.values(), ids=TRANSLATIONS)
@given(noise=st.binary(max_size=200), at=st.integers(0, 5))
def test_nothing_that_an_engine_says_breaks_a_translation(
    dialect: Any, noise: bytes, at: int
) -> None:
    frames = chat(3)
    frames.insert(at, noise)
    meter = dialect.meter(parse(Endpoint.OLLAMA_CHAT))
    written = meter.feed(b"".join(frames))
    meter.end()
    assert all("model" in line for line in lines(written + meter.missing_end()))
    for body in (noise, b"{}", b'{"choices":"x","data":[1],"usage":5}'):
        assert "model" in json.loads(dialect.answer_body(body))
        assert dialect.error_body(body) == body or "error" in json.loads(dialect.error_body(body))
        assert dialect.read_answer(body).usage is None
