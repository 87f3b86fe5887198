"""Bodies of reports: unpacked within bounds, and OTLP's protobuf as spans.

Small bodies can hold very much: gzip packs a thousand to one, and two bytes of protobuf or three of
JSON become an object of a hundred. So what is counted is what has to be built.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from enforcement.errors import ReportFormatError, ReportTooLargeError, UnreadableReportError
from enforcement.receivers.protobuf import spans_within
from enforcement.rules.reports.spans import MAX_ITEMS, Span, Value

MAX_BODY_BYTES = 8 * 1024 * 1024  # as it comes
MAX_JSON_BYTES = 32 * 1024 * 1024  # unpacked; of `MAX_VALUES` at most
MAX_PROTOBUF_BYTES = 8 * 1024 * 1024  # unpacked; decoded they are up to 35 times as much
MAX_CALLS = 10_000  # spans or documents of a body
MAX_VALUES = 1_000_000  # JSON values, or attributes of spans
_GZIP = 16 + zlib.MAX_WBITS


def unpacked(body: bytes, *, encoding: str, most: int) -> bytes:
    """A body without its `Content-Encoding`; never more than `most` bytes are unpacked.

    Raises:
        ReportTooLargeError: it is more.
        ReportFormatError: an encoding that is not read here.
        UnreadableReportError: no whole gzip stream.
    """
    if len(body) > MAX_BODY_BYTES:
        raise ReportTooLargeError(f"at most {MAX_BODY_BYTES:,} bytes")
    plain = body if encoding in ("", "identity") else _gunzip(body, encoding, most)
    if len(plain) > most:
        raise ReportTooLargeError(f"at most {most:,} bytes when unpacked")
    return plain


def _gunzip(body: bytes, encoding: str, most: int) -> bytes:
    if encoding != "gzip":
        raise ReportFormatError("Content-Encoding: gzip, or none")
    stream = zlib.decompressobj(_GZIP)
    try:
        plain = stream.decompress(body, most + 1)
    except zlib.error as error:
        raise UnreadableReportError(f"no gzip: {error}") from error
    if len(plain) <= most and (not stream.eof or stream.unused_data):
        raise UnreadableReportError("no whole gzip stream, or something behind it")
    return plain


def check_values(body: bytes) -> None:
    """Raises ReportTooLargeError: the JSON may have too many values to build them all."""
    if sum(map(body.count, (b",", b"{", b"["))) > MAX_VALUES:
        raise ReportTooLargeError(f"at most {MAX_VALUES:,} values at once")


def spans_of_protobuf(body: bytes, *, wanted: Callable[[str], bool]) -> list[Span]:
    """The spans of an `ExportTraceServiceRequest`; of attributes those with a wanted name.

    Raises:
        UnreadableReportError: it is none.
        ReportTooLargeError: more spans, or attributes, than are taken at once.
    """
    if not spans_within(body, most=3 * MAX_CALLS):  # a scope and an address beside each
        raise ReportTooLargeError(f"at most {MAX_CALLS:,} spans at once")
    try:
        request = ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise UnreadableReportError(f"no OTLP: {error}") from error
    _check_attributes(request)
    return list(_spans(request, wanted))


def _check_attributes(request: ExportTraceServiceRequest) -> None:
    spans = (
        span
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    )
    count = sum(len(group.resource.attributes) for group in request.resource_spans)
    if count + sum(len(span.attributes) for span in spans) > MAX_VALUES:
        raise ReportTooLargeError(f"at most {MAX_VALUES:,} attributes at once")


def _spans(request: ExportTraceServiceRequest, wanted: Callable[[str], bool]) -> Iterator[Span]:
    for group in request.resource_spans:
        shared = _attributes(group.resource.attributes, wanted)
        for scope in group.scope_spans:
            for span in scope.spans:
                yield Span(
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    name=span.name,
                    started_ns=span.start_time_unix_nano,
                    ended_ns=span.end_time_unix_nano,
                    failed=span.status.code == Status.STATUS_CODE_ERROR,
                    attributes=_attributes(span.attributes, wanted),
                    resource=shared,
                )


def _attributes(pairs: Iterable[KeyValue], wanted: Callable[[str], bool]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for pair in pairs:
        if wanted(pair.key) and (value := _value(pair.value)) is not None:
            found[pair.key] = value
    return found


def _value(given: AnyValue) -> Value | None:
    kind = given.WhichOneof("value")
    if kind == "array_value":
        items = given.array_value.values[:MAX_ITEMS]
        return tuple(item.string_value for item in items if item.HasField("string_value"))
    if kind in ("string_value", "bool_value", "int_value", "double_value"):
        value: Value = getattr(given, kind)
        return value
    return None


def otlp_answer(rejected: int, message: str) -> bytes:
    """An `ExportTraceServiceResponse` in protobuf; empty where everything was taken."""
    answer = ExportTraceServiceResponse()
    if rejected:
        answer.partial_success.rejected_spans = rejected
        answer.partial_success.error_message = message
    return bytes(answer.SerializeToString())
