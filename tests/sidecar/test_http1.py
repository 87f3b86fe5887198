"""Heads and chunked bodies: what is ambiguous is refused, as a table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.sidecar.http1 import (
    ChunkedBody,
    HttpError,
    parse_request_head,
    parse_response_head,
)

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
    assert parse_request_head(head(b"Accept: a", b"accept: b")).headers[b"accept"] == b"a, b"


def test_absolute_form_that_agrees_with_host_is_its_path() -> None:
    parsed = parse_request_head(head(first=b"GET http://node/metrics HTTP/1.1\r\n"))
    assert parsed.path == b"/metrics"


HOSTILE = {
    "cl.te": head(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    "te.cl": head(b"Transfer-Encoding: chunked", b"Content-Length: 5"),
    "te twice": head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    "te list": head(b"Transfer-Encoding: chunked, chunked"),
    "te comma": head(b"Transfer-Encoding: ,chunked"),
    "te identity": head(b"Transfer-Encoding: identity"),
    "te gzip": head(b"Transfer-Encoding: gzip, chunked"),
    "te x": head(b"Transfer-Encoding: xchunked"),
    "te quoted": head(b'Transfer-Encoding: "chunked"'),
    "te vertical tab": head(b"Transfer-Encoding: \x0bchunked"),
    "te form feed": head(b"Transfer-Encoding: \x0cchunked"),
    "te upper": head(b"Transfer-Encoding: Chunked"),
    "te empty": head(b"Transfer-Encoding:"),
    "te space before colon": head(b"Transfer-Encoding : chunked"),
    "te nul": head(b"Transfer-Encoding: chunked\x00"),
    "te on 1.0": head(b"Transfer-Encoding: chunked", first=b"POST /x HTTP/1.0\r\n"),
    "cl plus": head(b"Content-Length: +5"),
    "cl minus": head(b"Content-Length: -5"),
    "cl hex": head(b"Content-Length: 0x5"),
    "cl underscore": head(b"Content-Length: 1_0"),
    "cl empty": head(b"Content-Length:"),
    "cl list": head(b"Content-Length: 5, 5"),
    "cl two": head(b"Content-Length: 5", b"Content-Length: 5"),
    "cl differ": head(b"Content-Length: 5", b"Content-Length: 6"),
    "cl huge": head(b"Content-Length: 99999999999999999999"),
    "cl inner space": head(b"Content-Length: 1 0"),
    "cl dot": head(b"Content-Length: 5.0"),
    "cl unicode digit": head("Content-Length: ٥".encode()),
    "host missing": head(host=b""),
    "host twice": head(b"Host: node"),
    "host empty": head(host=b"Host:\r\n"),
    "host userinfo": head(host=b"Host: a@node\r\n"),
    "host path": head(host=b"Host: node/x\r\n"),
    "host port": head(host=b"Host: node:99999\r\n"),
    "host list": head(host=b"Host: a, b\r\n"),
    "auth twice": head(b"Authorization: Bearer a", b"Authorization: Bearer b"),
    "session twice": head(b"X-Comptroller-Session: a", b"x-comptroller-session: b"),
    "absolute differs": head(first=b"GET http://other/metrics HTTP/1.1\r\n"),
    "absolute userinfo": head(first=b"GET http://u@node/metrics HTTP/1.1\r\n"),
    "authority": head(first=b"CONNECT node:80 HTTP/1.1\r\n"),
    "asterisk": head(first=b"OPTIONS * HTTP/1.1\r\n"),
    "double slash": head(first=b"POST //v1/chat HTTP/1.1\r\n"),
    "dot dot": head(first=b"POST /v1/../v1/models HTTP/1.1\r\n"),
    "dot": head(first=b"POST /v1/./models HTTP/1.1\r\n"),
    "escaped": head(first=b"POST /v1/%2e%2e/models HTTP/1.1\r\n"),
    "parameter": head(first=b"POST /v1;a/models HTTP/1.1\r\n"),
    "query": head(first=b"POST /v1/models?x=1 HTTP/1.1\r\n"),
    "fragment": head(first=b"POST /v1/models#x HTTP/1.1\r\n"),
    "backslash": head(first=b"POST /v1\\models HTTP/1.1\r\n"),
    "http/0.9": b"GET /\r\n\r\n",
    "http/1.10": head(first=b"POST /x HTTP/1.10\r\n"),
    "http/1.2": head(first=b"POST /x HTTP/1.2\r\n"),
    "http/2": b"PRI * HTTP/2.0\r\n\r\n",
    "lower version": head(first=b"POST /x http/1.1\r\n"),
    "lower method": head(first=b"post /x HTTP/1.1\r\n"),
    "two spaces": head(first=b"POST  /x HTTP/1.1\r\n"),
    "tab": head(first=b"POST\t/x HTTP/1.1\r\n"),
    "leading line": b"\r\n" + head(),
    "leading space": b" " + head(),
    "obs-fold": head(b"X: a\r\n b"),
    "obs-fold tab": head(b"X: a\r\n\tb"),
    "leading space in name": head(b" X: a"),
    "bare lf": head(b"X: a\nY: b"),
    "bare cr": head(b"X: a\rY: b"),
    "nul in value": head(b"X: a\x00b"),
    "nul in name": head(b"X\x00: a"),
    "control in value": head(b"X: a\x01b"),
    "delete in value": head(b"X: a\x7fb"),
    "no colon": head(b"X"),
    "empty name": head(b": a"),
    "space in name": head(b"X Y: a"),
    "non-ascii name": head("Ü: a".encode()),
    "parenthesis in name": head(b"X(: a"),
    "lf line ends": head().replace(b"\r\n", b"\n"),
    "101 headers": head(*[b"X-%d: a" % n for n in range(101)]),
    "connection authorization": head(b"Connection: authorization"),
    "connection length": head(b"Connection: close, Content-Length", b"Content-Length: 1"),
    "expectation": head(b"Expect: 200-ok"),
    "compressed": head(b"Content-Encoding: gzip"),
    "h2c": head(b"Upgrade: h2c", b"HTTP2-Settings: AAA"),
    "target control": head(first=b"POST /\x01 HTTP/1.1\r\n"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_ambiguous_head_is_refused(name: str) -> None:
    with pytest.raises(HttpError):
        parse_request_head(HOSTILE[name])


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


BAD_CHUNKS = {
    "extension": b"5;a=b\r\nhello\r\n0\r\n\r\n",
    "0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "minus": b"-5\r\nhello\r\n0\r\n\r\n",
    "underscore": b"1_0\r\n0123456789012345\r\n0\r\n\r\n",
    "empty size": b"\r\nhello\r\n0\r\n\r\n",
    "space": b" 5\r\nhello\r\n0\r\n\r\n",
    "overflow": b"FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
    "any two bytes behind data": b"5\r\nhelloXX0\r\n\r\n",
    "lf size": b"5\nhello\r\n0\r\n\r\n",
    "lf data": b"5\r\nhello\n0\r\n\r\n",
    "longer than said": b"4\r\nhello\r\n0\r\n\r\n",
    "trailer": b"5\r\nhello\r\n0\r\nX: a\r\n\r\n",
    "endless size": b"0" * 300,
}


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_a_malformed_chunk_is_refused(name: str) -> None:
    with pytest.raises(HttpError) as refused:
        ChunkedBody(limit=1000).feed(BAD_CHUNKS[name])
    assert refused.value.status == 400


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
