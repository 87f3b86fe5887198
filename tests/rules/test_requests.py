"""Request bodies: strict in, rebuilt out."""

import json
from typing import Any

import pytest

from enforcement.rules.dialects import DIALECTS, Engine
from enforcement.rules.requests import (
    MAX_FIELDS,
    MAX_VALUES,
    Endpoint,
    ParsedRequest,
    RequestError,
)

MESSAGES = [{"role": "user", "content": "hello"}]


def parse(endpoint: Endpoint = Endpoint.CHAT, **fields: Any) -> ParsedRequest:
    if endpoint is Endpoint.CHAT:
        fields = {"messages": MESSAGES} | fields
    return DIALECTS[endpoint].parse(json.dumps({"model": "m"} | fields).encode())


def refused(body: bytes, endpoint: Endpoint = Endpoint.CHAT) -> RequestError:
    with pytest.raises(RequestError) as error:
        DIALECTS[endpoint].parse(body)
    return error.value


def test_what_a_chat_says() -> None:
    parsed = parse(
        max_tokens=9,
        n=3,
        stream=True,
        stream_options={"include_usage": True},
        user="ann",
        tools=[{"type": "function", "function": {"name": "search"}}],
        temperature=0.5,
    )
    assert (parsed.model, parsed.output_limit, parsed.sequences) == ("m", 9, 3)
    assert (parsed.stream, parsed.wants_usage, parsed.user) == (True, True, "ann")
    assert (parsed.tools, parsed.unseen) == (("search",), False)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "invalid_json", ""),
        (b"{", "invalid_json", ""),
        (b"[]", "invalid_json", ""),
        (b'"x"', "invalid_json", ""),
        (b'{"model":"m","messages":[{}]}x', "invalid_json", ""),
        (b'{"model":NaN}', "invalid_json", ""),
        (b'{"model":"\xff"}', "invalid_json", ""),
        (b'{"model":"\\ud800"}', "invalid_json", ""),
        (b"[" * 100_000, "invalid_json", ""),
        (b'{"seed":' + b"9" * 5000 + b"}", "invalid_json", ""),
        (b'{"model":"m","model":"n","messages":[{}]}', "duplicate_key", "model"),
        (b'{"model":"m","messages":[{"role":"a","role":"b"}]}', "duplicate_key", "role"),
        (b'{"model":"m","m\\u006fdel":"n","messages":[{}]}', "duplicate_key", "model"),
        (b'{"model":"m","messages":[{}],"n_predict":5}', "unknown_field", "n_predict"),
        (
            b'{"model":"m","messages":[{}],"use_beam_search":true}',
            "unknown_field",
            "use_beam_search",
        ),
        (
            b'{"model":"m","messages":[{}],"previous_response_id":"x"}',
            "unknown_field",
            "previous_response_id",
        ),
        (b'{"model":"m","messages":[{}],"prompt":"x"}', "unknown_field", "prompt"),
        (
            b'{"model":"m","messages":[{}],"max_tokens":1,"max_completion_tokens":2}',
            "conflicting_fields",
            "max_tokens",
        ),
    ],
)
def test_what_is_ambiguous_is_refused(body: bytes, code: str, param: str) -> None:
    error = refused(body)
    assert (error.code, error.param) == (code, param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 5}, "model"),
        ({"model": "m" * 300}, "model"),
        ({"model": "a\nb"}, "model"),
        ({"user": ["x"]}, "user"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages"),
        ({"messages": [{"content": 5}]}, "messages.content"),
        ({"messages": [{"content": ["x"]}]}, "messages.content"),
        ({"messages": [{"content": [{"text": "x"}]}]}, "messages.content"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"max_completion_tokens": 10**12}, "max_completion_tokens"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"best_of": 1.0}, "best_of"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": []}, "stream_options"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
        ({"tools": {}}, "tools"),
        ({"tools": ["x"]}, "tools"),
        ({"tools": [{}]}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools"),
        ({"functions": [{}]}, "functions"),
    ],
)
def test_wrong_types_are_named(fields: dict[str, Any], param: str) -> None:
    body = json.dumps({"model": "m", "messages": MESSAGES} | fields).encode()
    assert refused(body).param == param


def test_bodies_of_too_many_values_are_refused_and_long_texts_not() -> None:
    lists = b'{"model":"m","metadata":[' + b"0," * MAX_VALUES + b"0]}"
    fields = b'{"model":"m","metadata":[' + b'{"a":0},' * MAX_FIELDS + b"0]}"
    assert [refused(body).code for body in (lists, fields)] == ["too_many_values"] * 2
    code = 'if (a) { b[0], "c", d: \\ }\n' * MAX_FIELDS
    assert parse(messages=[{"role": "user", "content": code}]).model == "m"
    tokens = list(range(131_072))
    assert parse(Endpoint.COMPLETIONS, prompt=tokens).prompt_tokens == len(tokens)


def test_deep_bodies_are_refused_and_long_ones_not() -> None:
    value: Any = "x"
    for _ in range(60):
        value = [value]
    assert refused(
        json.dumps({"model": "m", "messages": MESSAGES, "stop": value}).encode()
    ).code == ("too_deep")
    parse(messages=MESSAGES * 200)


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]},
        {"messages": [{"role": "assistant", "audio": {"id": "a"}}]},
        {"modalities": ["text", "audio"]},
    ],
)
def test_content_of_unknown_size_is_seen(fields: dict[str, Any]) -> None:
    assert parse(**fields).unseen


@pytest.mark.parametrize(
    "fields", [{"web_search_options": {}}, {"tools": [{"type": "web_search"}]}]
)
def test_tools_that_the_provider_runs_are_seen(fields: dict[str, Any]) -> None:
    assert parse(**fields).hosted


def test_text_parts_are_plain() -> None:
    content = [{"type": "text", "text": "a"}]
    assert not parse(messages=[{"role": "user", "content": content}], modalities=["text"]).unseen


def test_tool_names_of_every_kind() -> None:
    tools = [
        {"type": "function", "function": {"name": "a"}},
        {"type": "custom", "custom": {"name": "b"}},
        {"type": "code_interpreter"},
    ]
    parsed = parse(tools=tools, functions=[{"name": "c"}])
    assert parsed.tools == ("a", "b", "code_interpreter", "c")


@pytest.mark.parametrize(
    ("prompt", "prompts", "tokens"),
    [
        ("text", 1, None),
        (["a", "b", "c"], 3, None),
        ([1, 2, 3], 1, 3),
        ([[1, 2], [3]], 2, 3),
    ],
)
def test_prompts_of_every_form(prompt: Any, prompts: int, tokens: int | None) -> None:
    for endpoint, field in ((Endpoint.COMPLETIONS, "prompt"), (Endpoint.EMBEDDINGS, "input")):
        parsed = parse(endpoint, **{field: prompt})
        assert (parsed.prompts, parsed.prompt_tokens) == (prompts, tokens)


@pytest.mark.parametrize("prompt", [None, 5, [], [""] * 3000, ["a", 1], [[1], "a"], [[]], [[1.5]]])
def test_other_prompts_are_refused(prompt: Any) -> None:
    body = json.dumps({"model": "m", "prompt": prompt}).encode()
    assert refused(body, Endpoint.COMPLETIONS).param == "prompt"


def test_a_suffix_is_context_that_nobody_counted() -> None:
    assert parse(Endpoint.COMPLETIONS, prompt="a", suffix="b").unseen


def forward(parsed: ParsedRequest, limit: int | None, *, engine: Engine = Engine.UNKNOWN) -> Any:
    body = DIALECTS[parsed.endpoint].forward_body(parsed, output_limit=limit, engine=engine)
    pairs: list[Any] = []
    value = json.loads(body, object_pairs_hook=lambda found: pairs.append(found) or dict(found))
    assert all(len(found) == len(dict(found)) for found in pairs)
    return value


def test_the_output_limit_is_always_written() -> None:
    assert forward(parse(), 50)["max_tokens"] == 50
    assert forward(parse(max_tokens=80), 50)["max_tokens"] == 50
    other = forward(parse(max_completion_tokens=80), 50)
    assert other == {"model": "m", "messages": MESSAGES, "max_tokens": 50}


def test_additions_replace_what_the_client_said() -> None:
    parsed = parse(stream=True, stream_options={"include_usage": False}, max_tokens=5)
    body = forward(parsed, 5)
    assert body["stream_options"] == {"include_usage": True}


def test_an_unchanged_body_is_not_encoded_again() -> None:
    parsed = parse(max_tokens=5)
    body = DIALECTS[Endpoint.CHAT].forward_body(parsed, output_limit=5, engine=Engine.UNKNOWN)
    assert body is parsed.encoded


def test_embeddings_get_no_output_limit() -> None:
    assert forward(parse(Endpoint.EMBEDDINGS, input="x"), None) == {"model": "m", "input": "x"}
