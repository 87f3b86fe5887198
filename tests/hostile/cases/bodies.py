"""Bodies that a budget would read otherwise than an engine does."""

import json

from tests.hostile.case import BODY, Case, completion, evasion

_TWICE = "RFC 8259 §4: of two equal keys one reader takes the first, another the last"
_JSON = "RFC 8259: the body is one JSON object in UTF-8"
_LIMIT = "the output limit bounds what is held: it is one positive integer, said once"
_COUNT = "the number of answers multiplies what is held: it is a positive integer"
_UNKNOWN = "a field that we do not know could change what a call costs"
_STREAM = "how an answer is streamed decides how it is metered"
_MODEL = "the model decides the price"
_PROMPT = "what is asked decides what is held for the prompt"
_DEEP = "a body may nest 48 deep"
_MUCH = "RFC 8259 §9: a parser may limit size; what one body may cost is bounded"
_WORK = "what an answer carries beside its tokens is bounded"


def _with(text: bytes) -> bytes:
    """The usual body with more text inside its braces."""
    return BODY[:-1] + b"," + text + b"}"


def _limit(name: str, value: object) -> Case:
    return evasion(f"limit {name}", _LIMIT, {"max_tokens": value})


def _count(field: str, name: str, value: object) -> Case:
    return evasion(f"{field} {name}", _COUNT, {field: value})


def _unknown(field: str, value: object) -> Case:
    return evasion(f"unknown {field}", _UNKNOWN, {field: value})


def _prompt(name: str, value: object) -> Case:
    return completion(f"prompt {name}", _PROMPT, {"prompt": value})


def _messages(name: str, value: object) -> Case:
    return evasion(f"messages {name}", _PROMPT, {"messages": value})


CASES = (
    evasion("key twice", _TWICE, _with(b'"max_tokens":9999')),
    evasion("key twice, equal", _TWICE, _with(b'"max_tokens":1')),
    evasion("key twice, once escaped", _TWICE, _with(b'"max\\u005ftokens":9999')),
    evasion("model twice", _TWICE, _with(b'"model":"other"')),
    evasion("messages twice", _TWICE, _with(b'"messages":[{"role":"user","content":"long"}]')),
    evasion("stream twice", _TWICE, _with(b'"stream":false,"stream":true')),
    evasion("key twice, deep inside", _TWICE, _with(b'"metadata":{"a":{"b":1,"b":2}}')),
    evasion("key twice, in a message", _TWICE, BODY.replace(b'"role"', b'"role":"user","role"')),
    evasion("empty body", _JSON, b""),
    evasion("body of spaces", _JSON, b"   "),
    evasion("body that ends early", _JSON, BODY[:-1]),
    evasion("body with more behind", _JSON, BODY + b"x"),
    evasion("two bodies", _JSON, BODY + BODY),
    evasion("body with NUL behind", _JSON, BODY + b"\x00"),
    evasion("body behind a byte order mark", _JSON, b"\xef\xbb\xbf" + BODY),
    evasion("body in UTF-16", _JSON, BODY.decode().encode("utf-16")),
    evasion("body in UTF-32", _JSON, BODY.decode().encode("utf-32-le")),
    evasion("body in Latin-1", _JSON, BODY.replace(b"hello", b"h\xe4llo")),
    evasion("body with an overlong form", _JSON, BODY.replace(b"hello", b"\xc0\xae")),
    evasion("body with a lone surrogate", _JSON, BODY.replace(b"hello", b"\\ud800")),
    evasion("body with an encoded surrogate", _JSON, BODY.replace(b"hello", b"\xed\xa0\x80")),
    evasion("body with a raw line break", _JSON, BODY.replace(b"hello", b"a\nb")),
    evasion("body with a bad escape", _JSON, BODY.replace(b"hello", b"\\x41")),
    evasion("body with a comment", _JSON, BODY[:-1] + b"/* */}"),
    evasion("body with a comma last", _JSON, BODY[:-1] + b",}"),
    evasion("body with single quotes", _JSON, BODY.replace(b'"', b"'")),
    evasion("body with NaN", _JSON, _with(b'"temperature":NaN')),
    evasion("body with Infinity", _JSON, _with(b'"temperature":-Infinity')),
    evasion("body with a leading zero", _JSON, _with(b'"seed":01')),
    evasion("body with a plus", _JSON, _with(b'"seed":+1')),
    evasion("body with a hexadecimal number", _JSON, _with(b'"seed":0x1')),
    evasion("body that is a list", _JSON, b"[" + BODY + b"]"),
    evasion("body that is a string", _JSON, b'"' + b"a" * 50 + b'"'),
    evasion("body that is null", _JSON, b"null"),
    evasion("body 49 deep", _DEEP, _with(b'"metadata":' + b"[" * 49 + b"]" * 49)),
    evasion("body 10,000 deep", _DEEP, _with(b'"metadata":' + b"[" * 10_000 + b"]" * 10_000)),
    evasion("body 10,000 objects deep", _DEEP, _with(b'"metadata":' + b'{"a":' * 10_000)),
    evasion("body that never closes", _DEEP, b"[" * 60_000),
    evasion("number of 5,000 digits", _JSON, _with(b'"seed":' + b"9" * 5_000)),
    evasion("number beyond floats", _JSON, _with(b'"temperature":1e999')),
    _limit("zero", 0),
    _limit("negative", -1),
    _limit("of 2³¹", 2**31),
    _limit("of 2⁶³", 2**63),
    _limit("of 10³⁰", 10**30),
    _limit("a float", 1.5),
    _limit("a whole float", 10.0),
    _limit("a string", "10"),
    _limit("true", value=True),
    _limit("a list", [1]),
    _limit("an object", {"value": 1}),
    evasion("limit with an exponent", _LIMIT, BODY.replace(b'tokens":1', b'tokens":1e1')),
    evasion("limit of minus zero", _LIMIT, BODY.replace(b'tokens":1', b'tokens":-0')),
    evasion("two limits", _LIMIT, {"max_completion_tokens": 9999}),
    evasion("two limits, equal", _LIMIT, {"max_completion_tokens": 1}),
    _count("n", "zero", 0),
    _count("n", "negative", -1),
    _count("n", "above 128", 129),
    _count("n", "of 2⁶⁴", 2**64),
    _count("n", "a float", 2.0),
    _count("n", "a string", "2"),
    _count("n", "true", value=True),
    _count("n", "a list", [2]),
    _count("best_of", "above 128", 1000),
    _count("best_of", "a float", 1.0),
    _count("best_of", "negative", -5),
    _unknown("n_predict", 9999),
    _unknown("num_predict", 9999),
    _unknown("max_new_tokens", 9999),
    _unknown("max_length", 9999),
    _unknown("Max_Tokens", 9999),
    _unknown("max_tokens ", 9999),
    _unknown("max_tokenѕ", 9999),
    _unknown("max-tokens", 9999),
    _unknown("", 1),
    _unknown("use_beam_search", value=True),
    _unknown("beam_width", 64),
    _unknown("extra_body", {"n": 9}),
    _unknown("prompt_logprobs", 99),
    _unknown("vllm_xargs", {"n": 9}),
    _unknown("kv_transfer_params", {}),
    _unknown("chat_template", "{{ messages }}" * 9),
    _unknown("mm_processor_kwargs", {}),
    _unknown("id_slot", 1),
    _unknown("lora", [{"id": 0, "scale": 1}]),
    _unknown("agent", "another"),
    _unknown("comptroller", {"budget": "another"}),
    _unknown("__proto__", {"max_tokens": 9999}),
    evasion("stream a string", _STREAM, {"stream": "true"}),
    evasion("stream a number", _STREAM, {"stream": 1}),
    evasion("stream options alone", _STREAM, {"stream_options": {"include_usage": False}}),
    evasion("stream options a list", _STREAM, {"stream": True, "stream_options": []}),
    evasion(
        "stream options unknown", _STREAM, {"stream": True, "stream_options": {"usage": False}}
    ),
    evasion(
        "stream usage a string",
        _STREAM,
        {"stream": True, "stream_options": {"include_usage": "no"}},
    ),
    evasion("model missing", _MODEL, b'{"messages":[{"role":"user","content":"a"}]}'),
    evasion("model empty", _MODEL, {"model": ""}),
    evasion("model null", _MODEL, {"model": None}),
    evasion("model a list", _MODEL, {"model": ["toy"]}),
    evasion("model a number", _MODEL, {"model": 1}),
    evasion("model of 300 letters", _MODEL, {"model": "a" * 300}),
    evasion("model with a line break", _MODEL, {"model": "toy\n"}),
    evasion("model with NUL", _MODEL, {"model": "toy\x00"}),
    evasion("model with a direction mark", _MODEL, {"model": "toy\u202e"}),
    evasion("model with a case twin", _MODEL, {"model": "TOY"}, 404),
    evasion("model with a space", _MODEL, {"model": "toy "}, 404),
    evasion("model with a Unicode twin", _MODEL, {"model": "tоy"}, 404),
    evasion("model with a path", _MODEL, {"model": "../toy"}, 404),
    evasion("user with a line break", "names in records are printable", {"user": "a\nb"}),
    evasion("user of 300 letters", "names in records are bounded", {"user": "a" * 300}),
    evasion("user an object", "names in records are strings", {"user": {}}),
    _messages("empty", []),
    _messages("an object", {"role": "user", "content": "a"}),
    _messages("a string", "hello"),
    _messages("of strings", ["hello"]),
    _messages("with content a number", [{"role": "user", "content": 1}]),
    _messages("with content an object", [{"role": "user", "content": {"type": "text"}}]),
    _messages("with parts that are strings", [{"role": "user", "content": ["a"]}]),
    _messages("with parts without a type", [{"role": "user", "content": [{"text": "a"}]}]),
    evasion("tools an object", _PROMPT, {"tools": {"type": "function"}}),
    evasion("tools without a name", _PROMPT, {"tools": [{"type": "function", "function": {}}]}),
    evasion("tools without a type", _PROMPT, {"tools": [{"function": {"name": "a"}}]}),
    _prompt("missing", None),
    _prompt("a number", 1),
    _prompt("an empty list", []),
    _prompt("of lists and strings", ["a", [1]]),
    _prompt("of booleans", [True, False]),
    _prompt("of floats", [1.0, 2.0]),
    _prompt("of empty lists", [[], []]),
    _prompt("of lists of strings", [["a"], ["b"]]),
    _prompt("of 3,000 prompts", ["a"] * 3_000),
    _prompt("of objects", [{"text": "a"}]),
    _prompt("with null", ["a", None]),
    evasion("top_logprobs huge", _WORK, {"logprobs": True, "top_logprobs": 10**9}),
    evasion("top_logprobs negative", _WORK, {"logprobs": True, "top_logprobs": -1}),
    evasion("top_logprobs a string", _WORK, {"logprobs": True, "top_logprobs": "5"}),
    completion("logprobs huge", _WORK, {"prompt": "a", "logprobs": 10**9}),
    evasion("body of 160,000 values", _MUCH, _with(b'"metadata":[' + b"0," * 160_000 + b"0]")),
    evasion("body of 60,000 fields", _MUCH, _with(b'"metadata":[' + b'{"a":0},' * 60_000 + b"0]")),
    evasion("body of 60,000 objects", _MUCH, _with(b'"metadata":[' + b"{}," * 60_000 + b"0]")),
    evasion("body of 700,000 quotes", _MUCH, _with(b'"metadata":[' + b'"",' * 350_000 + b"0]")),
    evasion(
        "100,000 keys that could collide",
        "a body has at most so many fields that are known",
        json.dumps({f"k{number}": 0 for number in range(100_000)}).encode(),
    ),
)
