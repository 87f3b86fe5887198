"""Strict JSON, one base64, and the bytes that a signature covers."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.rules.dsse import (
    DsseError,
    convert,
    decode_base64,
    load_json,
    pae,
    parse_envelope,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a":[1,"b",null,true]}', {"a": [1, "b", None, True]}),
        (b'{"a":"\xc3\xa9"}', {"a": "é"}),
        ('"\\ud83d\\ude00"', "😀"),
        ("9007199254740991", 9007199254740991),
    ],
)
def test_strict_json(text: str | bytes, value: object) -> None:
    assert load_json(text, what="x") == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{} {}",
        "1.0",
        "1e3",
        "NaN",
        "-Infinity",
        "9007199254740992",
        "1" * 5000,
        '"\\ud800"',
        '["\\udfff"]',
        "\ud800",
        b"\xff",
        "[" * 100_000,
    ],
    ids=lambda text: ascii(text[:12]),
)
def test_what_is_not_strict_json(text: str | bytes) -> None:
    with pytest.raises(DsseError) as caught:
        load_json(text, what="x")
    assert caught.value.code == "malformed"


@pytest.mark.parametrize("text", ['{"a":1,"a":1}', '[{"b":{"a":1,"\\u0061":2}}]'])
def test_keys_that_stand_twice(text: str) -> None:
    with pytest.raises(DsseError, match="stands twice") as caught:
        load_json(text, what="x")
    assert caught.value.code == "duplicate_key"


@given(raw=st.binary())
def test_base64_round_trip(raw: bytes) -> None:
    import base64

    assert decode_base64(base64.b64encode(raw).decode(), what="x") == raw


@pytest.mark.parametrize("text", ["A", "AA", "AA=", "AB==", "AA==\n", "A A=", "-_==", "é"])
def test_base64_has_one_text_for_each_value(text: str) -> None:
    with pytest.raises(DsseError):
        decode_base64(text, what="x")


def test_pre_authentication_encoding_of_the_specification() -> None:
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


class _Shape(msgspec.Struct, forbid_unknown_fields=True):
    a: int


@pytest.mark.parametrize(
    ("value", "code"),
    [({"a": 1, "b": 2}, "unknown_field"), ({"a": "1"}, "malformed"), ({}, "malformed")],
)
def test_conversion_names_the_cause(value: object, code: str) -> None:
    with pytest.raises(DsseError) as caught:
        convert(value, _Shape, what="x")
    assert caught.value.code == code


def test_envelope_of_another_type_is_unsupported() -> None:
    value = {"payload": "", "payloadType": "text/plain", "signatures": []}

    with pytest.raises(DsseError) as caught:
        parse_envelope(value, what="x")
    assert caught.value.code == "unsupported"
