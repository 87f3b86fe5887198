"""Heads and chunked bodies: what is ambiguous is refused, as a table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.sidecar.http1 import (
    MAX_CHUNKS,
    SMALL_CHUNKS,
    ChunkedBody,
    HttpError,
    parse_request_head,
    parse_response_head,
)
from tests.hostile.case import Case
from tests.hostile.cases import GROUPS

LINE = b"POST /v1/chat/completions HTTP/1.1\r\n"
HOST = b"Host: node\r\n"


def head(*lines: bytes, first: bytes = LINE, host: bytes = HOST) -> bytes:
    return first + host + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def test_a_usual_head() -> None:
    parsed = parse_request_head(
        head(
            b"Content-Type: application/json", b"Content-Length: 12", b"X-Odd:\t a b \t", b"Empty:"
        )
    )
    assert (parsed.method, parsed.path, parsed.length) == (b"POST", b"/v1/chat/completions", 12)
    assert parsed.headers[b"x-odd"] == b"a b"
    assert parsed.headers[b"empty"] == b""
    assert parsed.keep_alive


def test_repeated_harmless_headers_are_joined() -> None:
    assert (
        parse_request_head(head(b"Content-Length: 0", b"Accept: a", b"accept: b")).headers[
            b"accept"
        ]
        == b"a, b"
    )


def test_absolute_form_that_agrees_with_host_is_its_path() -> None:
    parsed = parse_request_head(head(first=b"GET http://node/metrics HTTP/1.1\r\n"))
    assert parsed.path == b"/metrics"


HOSTILE = [
    case
    for group in ("lengths", "heads", "targets", "fields")
    for case in GROUPS[group]
    if case.ends and case.status in (400, 411, 415, 417, 505)
]


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_an_ambiguous_head_is_refused(case: Case) -> None:
    end = case.raw.index(b"\r\n\r\n") + 4
    with pytest.raises(HttpError) as refused:
        parse_request_head(case.raw[:end])
    assert refused.value.status == case.status


def decode(data: bytes, *, limit: int = 1000) -> tuple[bytes, bytes]:
    body = ChunkedBody(limit=limit)
    rest = body.feed(data)
    assert rest is not None
    return body.body(), rest


def test_chunks_are_joined() -> None:
    assert decode(b"5\r\nhello\r\n1\r\n \r\nA\r\n0123456789\r\n0\r\n\r\nGET") == (
        b"hello 0123456789",
        b"GET",
    )


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.data())
def test_chunks_decode_the_same_however_they_are_split(
    parts: list[bytes], data: st.DataObject
) -> None:
    wire = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    body, left = ChunkedBody(limit=1000), wire
    while left:
        cut = data.draw(st.integers(1, len(left)))
        piece, left = left[:cut], left[cut:]
        rest = body.feed(piece)
        assert (rest is not None) == (not left)
    assert body.body() == b"".join(parts)


BAD_CHUNKS = [case for case in GROUPS["chunks"] if case.status == 400]


@pytest.mark.parametrize("case", BAD_CHUNKS, ids=lambda case: case.name)
def test_a_malformed_chunk_is_refused(case: Case) -> None:
    body = case.raw[case.raw.index(b"\r\n\r\n") + 4 :]
    with pytest.raises(HttpError) as refused:
        ChunkedBody(limit=1_000_000).feed(body)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("chunk", "most"),
    [(b"1\r\na\r\n", SMALL_CHUNKS), (b"40\r\n" + b"a" * 64 + b"\r\n", MAX_CHUNKS)],
)
def test_many_chunks_must_hold_something(chunk: bytes, most: int) -> None:
    body = ChunkedBody(limit=1 << 20)
    assert body.feed(chunk * most) is None
    with pytest.raises(HttpError, match="too many chunks"):
        body.feed(chunk)


def test_too_much_in_chunks_is_413() -> None:
    with pytest.raises(HttpError) as refused:
        ChunkedBody(limit=10).feed(b"B\r\nhello world\r\n0\r\n\r\n")
    assert refused.value.status == 413


def test_answers_say_their_length() -> None:
    whole = parse_response_head(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    assert (whole.status, whole.length, whole.chunked, whole.keep_alive) == (200, 5, False, True)
    chunked = parse_response_head(b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n")
    assert (chunked.length, chunked.chunked, chunked.keep_alive) == (None, True, True)
    open_end = parse_response_head(b"HTTP/1.1 200\r\n\r\n")
    assert (open_end.length, open_end.keep_alive) == (None, False)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n\r\n",
        b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 304 No\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\nY: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
    ],
)
def test_an_ambiguous_answer_is_refused(raw: bytes) -> None:
    with pytest.raises(HttpError):
        parse_response_head(raw)


def test_the_query_of_anthropics_clients_is_understood() -> None:
    head = b"POST /v1/messages?beta=true HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
    assert parse_request_head(head).path == b"/v1/messages"
