"""DSSE envelopes and strict JSON: what skill cards and OMS bundles have in common.

Rules of this file:

1. JSON is read by one reader that refuses duplicate keys, floats that stand for integers or
   anything else, NaN, lone surrogates and deep nesting. Two parsers can therefore never see
   two different documents in the same bytes.
2. Base64 is the standard alphabet, padded, with zero trailing bits: one text per value.
3. What is signed is the pre-authentication encoding of type and body, never the body alone.
4. Whatever the input, nothing but `DsseError` is raised.
"""

import base64
import binascii
import json
from typing import Any, Final, NoReturn, TypeVar

import msgspec
from msgspec import Struct

IN_TOTO_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"

_INTEGER_MAX = (1 << 53) - 1  # what RFC 8785 can write without loss

T = TypeVar("T")


class DsseError(Exception):
    """The bytes are not what they must be; `code` is stable, the sentence is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Signature(Struct, frozen=True, forbid_unknown_fields=True):
    sig: str
    keyid: str | None = None


class Envelope(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    payload: str
    payload_type: str
    signatures: list[Signature]


def load_json(text: str | bytes, *, what: str) -> Any:
    """Read strict JSON: no duplicate keys, no floats, no NaN, no lone surrogates.

    Raises:
        DsseError: `malformed` or `duplicate_key`.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_unique_pairs,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
            parse_int=_small_integer,
        )
        if not text.isascii() or "\\u" in text:  # only then can a lone surrogate hide in it
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
    except (ValueError, RecursionError) as error:
        raise DsseError("malformed", f"{what} is not strict JSON: {_first_line(error)}") from None


def parse_envelope(value: object, *, what: str) -> tuple[Envelope, bytes]:
    """Check an envelope's shape and return it with its decoded payload."""
    envelope = convert(value, Envelope, what=what)
    if envelope.payload_type != IN_TOTO_TYPE:
        raise DsseError("unsupported", f"{what} has payload type {envelope.payload_type!r}")
    return envelope, decode_base64(envelope.payload, what=f"payload of {what}")


def convert(value: object, type_: type[T], *, what: str) -> T:
    """Give untyped JSON its type; unknown fields are refused by name."""
    try:
        return msgspec.convert(value, type_)
    except (msgspec.ValidationError, RecursionError) as error:
        sentence = _first_line(error)
        code = "unknown_field" if "unknown field" in sentence else "malformed"
        raise DsseError(code, f"{what}: {sentence}") from None


def decode_base64(text: str, *, what: str) -> bytes:
    """Decode the one base64 text that stands for its bytes."""
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise DsseError("malformed", f"{what} is not base64") from None
    if base64.b64encode(raw).decode("ascii") != text:
        raise DsseError("malformed", f"{what} is base64 with stray bits")
    return raw


def pae(payload_type: str, body: bytes) -> bytes:
    """The bytes that a DSSE signature covers (pre-authentication encoding)."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body)


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise DsseError("duplicate_key", f"the JSON key {key!a} stands twice")
        found[key] = value
    return found


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"the number {text[:40]} is not an integer")


def _small_integer(text: str) -> int:
    number = int(text)
    if abs(number) > _INTEGER_MAX:
        raise ValueError("an integer is beyond 2^53")
    return number


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]
