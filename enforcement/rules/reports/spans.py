"""Spans of OpenTelemetry, out of OTLP's JSON; of each only what an account needs.

The encoding is that of `opentelemetry-proto` 1.x ("OTLP/HTTP, JSON Protobuf Encoding"): ids in
hex, 64-bit integers as text or numbers, names in lowerCamelCase, unknown fields skipped.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Struct, field

from enforcement.rules.reports.call import ReportError

Value = str | int | float | bool | tuple[str, ...]
MAX_ITEMS = 16  # of an attribute that is a list


class Span(Struct, frozen=True):
    """One span. Ids in lower-case hex; instants in nanoseconds since 1970."""

    trace_id: str
    span_id: str
    name: str
    started_ns: int
    ended_ns: int
    failed: bool
    attributes: dict[str, Value]
    resource: dict[str, Value]


class _Any(Struct, rename="camel"):
    string_value: str | None = None
    int_value: int | str | None = None
    double_value: float | str | None = None
    bool_value: bool | None = None
    array_value: msgspec.Raw = msgspec.Raw(b"")


class _Array(Struct):
    values: list[_Any] = field(default_factory=list)


class _Pair(Struct):
    key: str = ""
    value: _Any = field(default_factory=_Any)


class _Status(Struct):
    code: int | str = 0


class _Span(Struct, rename="camel"):
    trace_id: str = ""
    span_id: str = ""
    name: str = ""
    start_time_unix_nano: int | str = 0
    end_time_unix_nano: int | str = 0
    attributes: list[_Pair] = field(default_factory=list)
    status: _Status | None = None


class _Scope(Struct):
    spans: list[_Span] = field(default_factory=list)


class _Resource(Struct):
    attributes: list[_Pair] = field(default_factory=list)


class _ResourceSpans(Struct, rename="camel"):
    resource: _Resource | None = None
    scope_spans: list[_Scope] = field(default_factory=list)


class _Request(Struct, rename="camel"):
    resource_spans: list[_ResourceSpans] = field(default_factory=list)


_decode = msgspec.json.Decoder(_Request).decode
_decode_array = msgspec.json.Decoder(_Array).decode
_FAILED = (2, "2", "STATUS_CODE_ERROR")


def spans_of_json(body: bytes, *, wanted: Callable[[str], bool]) -> list[Span]:
    """The spans of an `ExportTraceServiceRequest`; of attributes those with a wanted name.

    Raises:
        ReportError: no JSON, or not of this shape.
    """
    try:
        request = _decode(body)
        return list(_spans(request, wanted))
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise ReportError(f"no OTLP: {error}") from error


def _spans(request: _Request, wanted: Callable[[str], bool]) -> Iterator[Span]:
    for group in request.resource_spans:
        shared = _attributes(group.resource.attributes if group.resource else (), wanted)
        for scope in group.scope_spans:
            for span in scope.spans:
                yield Span(
                    trace_id=span.trace_id.lower(),
                    span_id=span.span_id.lower(),
                    name=span.name,
                    started_ns=_nanoseconds(span.start_time_unix_nano),
                    ended_ns=_nanoseconds(span.end_time_unix_nano),
                    failed=span.status is not None and span.status.code in _FAILED,
                    attributes=_attributes(span.attributes, wanted),
                    resource=shared,
                )


def _attributes(pairs: Iterable[_Pair], wanted: Callable[[str], bool]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for pair in pairs:
        if wanted(pair.key) and (value := _value(pair.value)) is not None:
            found[pair.key] = value
    return found


def _value(given: _Any) -> Value | None:
    if given.string_value is not None:
        return given.string_value
    if given.bool_value is not None:
        return given.bool_value
    if given.int_value is not None:
        return _integer(given.int_value)
    if given.double_value is not None:
        return float(given.double_value)
    if bytes(given.array_value):
        items = _decode_array(given.array_value).values[:MAX_ITEMS]
        return tuple(item.string_value for item in items if item.string_value is not None)
    return None


def _integer(given: Any) -> int:
    if isinstance(given, str) and len(given) > 20:
        raise ValueError("an integer of more than 64 bits")
    return int(given)


def _nanoseconds(given: int | str) -> int:
    at_ns = _integer(given)
    return at_ns if 0 <= at_ns < 2**64 else 0
