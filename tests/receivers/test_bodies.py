"""Bodies that are small and hold much, or are none: refused before they are built."""

import gzip
import zlib

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from enforcement.errors import ReportFormatError, ReportTooLargeError, UnreadableReportError
from enforcement.receivers import bodies
from enforcement.receivers.protobuf import spans_within
from enforcement.rules.reports import genai

MOST = 1_000_000


def request_of(*, groups: int, spans: int) -> bytes:
    request = ExportTraceServiceRequest()
    for number in range(groups):
        scope = request.resource_spans.add().scope_spans.add()
        scope.schema_url = "https://example.org/1.0"
        for _ in range(spans):
            span = scope.spans.add(name="chat", start_time_unix_nano=number)
            span.attributes.add(key="gen_ai.usage.input_tokens").value.int_value = 2**40
    return bytes(request.SerializeToString())


def framed(field: int, body: bytes) -> bytes:
    length, size = b"", len(body)
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([field << 3 | 2]) + length + bytes([size]) + body


def test_a_body_is_what_was_packed() -> None:
    assert bodies.unpacked(b"plain", encoding="", most=MOST) == b"plain"
    assert bodies.unpacked(gzip.compress(b"packed"), encoding="gzip", most=MOST) == b"packed"


@pytest.mark.parametrize("size", [MOST + 1, 50_000_000])
def test_no_more_is_unpacked_than_is_taken(size: int) -> None:
    bomb = gzip.compress(bytes(size))
    assert len(bomb) < 60_000
    with pytest.raises(ReportTooLargeError, match="1,000,000 bytes when unpacked"):
        bodies.unpacked(bomb, encoding="gzip", most=MOST)
    with pytest.raises(ReportTooLargeError, match="8,388,608 bytes"):
        bodies.unpacked(bytes(bodies.MAX_BODY_BYTES + 1), encoding="gzip", most=MOST)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"plain",
        gzip.compress(b"cut")[:-1],
        gzip.compress(b"one") + b"behind",
        gzip.compress(b"one") + gzip.compress(b"two"),
        zlib.compress(b"deflate"),
    ],
)
def test_what_is_no_whole_gzip_stream_is_refused(body: bytes) -> None:
    with pytest.raises(UnreadableReportError):
        bodies.unpacked(body, encoding="gzip", most=MOST)


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "zstd"])
def test_other_encodings_are_named_as_unread(encoding: str) -> None:
    with pytest.raises(ReportFormatError, match="Content-Encoding: gzip, or none"):
        bodies.unpacked(b"", encoding=encoding, most=MOST)


def test_values_of_json_are_counted_before_they_are_built() -> None:
    bodies.check_values(b"[" + b"0," * 900_000 + b"0]")
    with pytest.raises(ReportTooLargeError, match="1,000,000 values"):
        bodies.check_values(b"[" + b"{}," * 600_000 + b"0]")


@pytest.mark.parametrize(("groups", "spans"), [(0, 0), (1, 7), (7, 1), (30, 30)])
def test_spans_of_a_body_are_counted_without_building_them(groups: int, spans: int) -> None:
    body = request_of(groups=groups, spans=spans)
    fields = max(groups * (spans + 1), 0)  # the address of the schema stands beside the spans
    assert spans_within(body, most=fields)
    assert fields == 0 or not spans_within(body, most=fields - 1)
    assert len(bodies.spans_of_protobuf(body, wanted=genai.wanted)) == groups * spans


EMPTY = {
    "groups": framed(1, b"") * 40_000,
    "scopes": framed(1, framed(2, b"") * 40_000),
    "spans": framed(1, framed(2, framed(2, b"") * 40_000)),
    "behind a group": b"\x1b\x1c" + framed(1, framed(2, b"\x1b\x1c" + framed(2, b"") * 40_000)),
    "unknown numbers": b"\x20\x00" * 40_000,
    "unknown words": b"\x25" + bytes(4) + b"\x21" + bytes(8) + framed(1, b"") * 40_000,
}


@pytest.mark.parametrize("name", EMPTY)
def test_more_spans_than_are_taken_are_not_built(name: str) -> None:
    with pytest.raises(ReportTooLargeError, match="10,000 spans"):
        bodies.spans_of_protobuf(EMPTY[name], wanted=genai.wanted)


def test_more_attributes_than_are_taken_are_not_read() -> None:
    span = framed(9, b"") * (bodies.MAX_VALUES + 1)
    body = framed(1, framed(2, framed(2, span)))
    with pytest.raises(ReportTooLargeError, match="1,000,000 attributes"):
        bodies.spans_of_protobuf(body, wanted=genai.wanted)


@pytest.mark.parametrize("body", [b"\x0a\x05", b"\xff" * 40, b"\x0a", b"{}", b"\x0f\x00"])
def test_what_is_no_protobuf_is_refused(body: bytes) -> None:
    with pytest.raises(UnreadableReportError, match="no OTLP"):
        bodies.spans_of_protobuf(body, wanted=genai.wanted)
