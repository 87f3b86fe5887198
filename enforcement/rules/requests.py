"""Request bodies as every dialect reads them: parsed strictly, rebuilt with a limit always set.

Rules of this file:

1. What is ambiguous is refused: duplicate keys at any depth, fields that we do not know, both
   spellings of the output limit. A field that we do not know could change what a request costs.
2. The body that goes upstream is written from what was understood here, never passed through, so
   no engine can read it differently.
3. `unseen` marks a request whose prompt the engine takes from elsewhere (images, audio, files,
   earlier answers): its own bytes say nothing about its size, the context window bounds it.
4. `hosted` marks one that makes the provider work in rounds of its own (hosted tools): nothing
   bounds it.

What the fields of each dialect are called is the business of `enforcement.rules.dialects`.
"""

import json
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Never

import msgspec

MAX_DEPTH = 48
MAX_SEQUENCES = 128
MAX_PROMPTS = 2048
MAX_NAME = 256
MAX_OUTPUT_TOKENS = 10_000_000
MAX_VALUES = 150_000  # of a body: a prompt of 128 Ki token ids, and some more
MAX_FIELDS = 50_000  # of all its objects

_SLICE = 64 * 1024

Body = bytes | bytearray  # an array where it came in pieces

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Endpoint(StrEnum):
    """A route that spends. The value names it in usage events and metrics."""

    CHAT = "chat/completions"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    MESSAGES = "messages"
    COUNT_TOKENS = "messages/count_tokens"
    OLLAMA_CHAT = "api/chat"
    OLLAMA_GENERATE = "api/generate"
    OLLAMA_EMBED = "api/embed"
    COMPLETION = "completion"
    PASSED = "passed"

    __hash__ = str.__hash__  # looked up for every call, and the enum's own is Python


class RequestError(ValueError):
    """A body that is refused with 400. `param` names the field, `code` is stable."""

    def __init__(self, message: str, *, param: str = "", code: str = "invalid_request") -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class ParsedRequest(msgspec.Struct, gc=False):
    """What a decision needs to know about a request."""

    endpoint: Endpoint
    model: str
    fields: dict[str, Any]
    encoded: bytes  # the body as we would write it, without any addition
    stream: bool = False
    wants_usage: bool = False
    wants_running_usage: bool = False
    wants_timings: bool = False
    prompts: int = 1
    sequences: int = 1  # answers that the engine generates for each prompt
    output_limit: int | None = None
    limit_field: str = "max_tokens"
    prompt_tokens: int | None = None  # known exactly: the prompt came as token ids
    tools: tuple[str, ...] = ()
    parallel_tools: bool = True
    unseen: bool = False
    hosted: bool = False
    opaque: bool = False  # passed on without being understood
    user: str = ""


def check_work(body: Body) -> None:
    """Refuse a body whose values, not its bytes, would keep everybody else waiting.

    Raises:
        RequestError: it has more values or fields than a body may have.
    """
    if len(body) <= MAX_FIELDS or not _too_much(body):
        return
    # A value has at most two strings, of two quotes each: with so many there are too many values.
    if _more_than(4 * MAX_VALUES, b'"', _unescaped(body)) or _too_much(_outside_strings(body)):
        raise RequestError(
            f"The body has more than {MAX_VALUES} values or {MAX_FIELDS} fields",
            code="too_many_values",
        )


def _unescaped(body: Body) -> Body:
    """A JSON text in which every quote begins or ends a string."""
    if b"\\" not in body:
        return body
    return body.replace(b"\\\\", b"").replace(b'\\"', b"")


def _outside_strings(body: Body) -> bytes:
    return b"".join(_unescaped(body).split(b'"')[::2])


def _fields_in(body: Body) -> int:
    return _outside_strings(body).count(b":")


def _too_much(text: Body) -> bool:
    """Whether there are too many marks that begin a value or a field, inside of strings too."""
    return _more_than(MAX_VALUES, b"{[,", text) or _more_than(MAX_FIELDS, b"{:", text)


def _more_than(most: int, marks: bytes, text: Body) -> bool:
    """Whether there are more marks than that; where they are dense it is soon known."""
    found = 0
    for at in range(0, len(text), _SLICE):
        found += sum(text.count(mark, at, at + _SLICE) for mark in marks)
        if found > most:
            return True
    return False


def object_of(body: Body) -> tuple[dict[str, Any], bytes]:
    """The JSON object of a body, and the same in our own compact form.

    Raises:
        RequestError: it is none, names a key twice, nests too deeply, or holds too much.
    """
    check_work(body)
    try:
        value = _decode(body)
        encoded = bytes(_encode(value))
        # Of keys that are named twice one is lost. Which it was, a slower parser tells.
        if encoded != body and _fields_in(body) != _fields_in(encoded):
            json.loads(body, object_pairs_hook=_refuse_duplicates)
    except RequestError:
        raise
    except (msgspec.MsgspecError, ValueError, RecursionError, UnicodeError) as error:
        raise RequestError(f"The body is not valid JSON: {error}", code="invalid_json") from error
    if not isinstance(value, dict):
        raise RequestError("The body must be a JSON object", code="invalid_json")
    # Fewer brackets than the limit cannot nest deeper than it: the usual body is not walked.
    if encoded.count(b"[") + encoded.count(b"{") > MAX_DEPTH and _too_deep(value):
        raise RequestError(f"The body nests deeper than {MAX_DEPTH} levels", code="too_deep")
    return value, encoded


def rerouted(parsed: ParsedRequest, model: str) -> ParsedRequest:
    """The same request for another model."""
    fields = parsed.fields | {"model": model}
    encoded = bytes(_encode(fields))
    return msgspec.structs.replace(parsed, model=model, fields=fields, encoded=encoded)


def changed(parsed: ParsedRequest, name: str, value: object) -> ParsedRequest:
    """The same request with another value of a field; None: without it."""
    fields = parsed.fields | {name: value}
    if value is None:
        del fields[name]
    return msgspec.structs.replace(parsed, fields=fields, encoded=bytes(_encode(fields)))


def rewritten(
    parsed: ParsedRequest, changes: dict[str, Any], *, dropped: Iterable[str] = ()
) -> bytes:
    """The body for upstream: as parsed, with changes written over it and names left out."""
    fields = parsed.fields
    changes = {name: value for name, value in changes.items() if fields.get(name) != value}
    stale = [name for name in dropped if name in fields]
    if not changes and not stale:
        return parsed.encoded
    if not stale and not (changes.keys() & fields.keys()):  # append: no second encoding
        return parsed.encoded[:-1] + b"," + bytes(_encode(changes))[1:]
    merged = {name: value for name, value in fields.items() if name not in stale} | changes
    return bytes(_encode(merged))


def words(text: str) -> frozenset[str]:
    """A set of names, written as one text."""
    return frozenset(text.split())


def check_known(fields: dict[str, Any], known: frozenset[str], *, inside: str = "") -> None:
    """Refuse a field that we do not know. `inside`: the name of the object that holds them."""
    unknown = fields.keys() - known
    if unknown:
        name = f"{inside}.{min(unknown)}" if inside else min(unknown)
        raise RequestError(f"Unknown field: {name!r}", param=name, code="unknown_field")


def bad(param: str, problem: str) -> Never:
    """Refuse a field for what it holds."""
    raise RequestError(f"{param!r} {problem}", param=param)


def name_of(fields: dict[str, Any], name: str) -> str:
    """A short printable text; empty if it is not there."""
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MAX_NAME or not value.isprintable():
        bad(name, f"must be a printable string of at most {MAX_NAME} characters")
    return value


def flag_of(fields: dict[str, Any], name: str, *, default: bool = False) -> bool:
    """A truth value."""
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        bad(name, "must be true or false")
    return value


def count_of(fields: dict[str, Any], name: str, *, most: int) -> int | None:
    """A count of at least one; None if it is not there."""
    value = fields.get(name)
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= most:
        bad(name, f"must be an integer from 1 to {most}")
    return value


def object_in(fields: dict[str, Any], name: str) -> dict[str, Any]:
    """An object inside a body; empty if it is not there."""
    value = fields.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        bad(name, "must be an object")
    return value


def objects_in(fields: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A list of objects; empty if it is not there."""
    value = fields.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        bad(name, "must be a list")
    if not all(isinstance(item, dict) for item in value):
        bad(name, "must hold objects")
    return value


def one_limit(parsed: ParsedRequest, names: Iterable[str]) -> None:
    """Read the output limit, which has several spellings: one of them at most."""
    limits = {
        name: limit
        for name in names
        if (limit := count_of(parsed.fields, name, most=MAX_OUTPUT_TOKENS)) is not None
    }
    if len(limits) > 1:
        first, second, *_ = sorted(limits, key=len)
        raise RequestError(
            f"{first!r} and {second!r} exclude each other", param=first, code="conflicting_fields"
        )
    for name, limit in limits.items():
        parsed.limit_field, parsed.output_limit = name, limit


def tool_name(described: object, field: str) -> str:
    """The name of an offered function."""
    name = described.get("name") if isinstance(described, dict) else None
    if not isinstance(name, str) or not name or len(name) > MAX_NAME:
        bad(field, "must name every function")
    return name


def read_prompt(parsed: ParsedRequest, field: str) -> None:
    """Count the prompts of a field that holds text, texts, token ids, or lists of these."""
    prompt = parsed.fields.get(field)
    if isinstance(prompt, str):
        return
    if not isinstance(prompt, list) or not prompt:
        bad(field, "must be a string or a list of strings or token ids")
    if all(type(item) is int for item in prompt):
        parsed.prompt_tokens = len(prompt)
        return
    if len(prompt) > MAX_PROMPTS:
        bad(field, f"must hold at most {MAX_PROMPTS} prompts")
    parsed.prompts = len(prompt)
    if all(isinstance(item, str) for item in prompt):
        return
    if not all(_is_token_list(item) for item in prompt):
        bad(field, "must hold only strings, or only lists of token ids")
    parsed.prompt_tokens = sum(len(item) for item in prompt)


def _is_token_list(item: object) -> bool:
    return isinstance(item, list) and bool(item) and all(type(token) is int for token in item)


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise RequestError(
                    f"Duplicate key: {name[:64]!r}", param=name[:64], code="duplicate_key"
                )
            seen.add(name)
    return found


def _too_deep(value: object) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        if not below:
            return False
        level = below
    return True
