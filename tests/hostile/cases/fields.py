"""Expectations, upgrades, hop-by-hop tricks, codings, and headers that are ours."""

import gzip
import zlib

from tests.hostile.case import (
    AUTHORIZATION,
    BODY,
    CHAT,
    FOLLOWER,
    HOST,
    JSON,
    Case,
    head,
    post,
)

_EXPECT = "RFC 9110 §10.1.1: 100-continue is the only expectation"
_UPGRADE = "RFC 9110 §7.8: bytes behind an upgrade would be metered by nobody"
_HOP = "RFC 9110 §7.6.1: who honours it drops a header that decides who pays"
_CODING = "RFC 9110 §8.4: what is compressed cannot be judged, and may be a bomb"
_MEDIA = "RFC 8259 §11: a call is application/json"
_OURS = "design: our own headers are said once and in their own form"
_KEY = "RFC 6750 §3.1: nobody pays"
_BOMB = gzip.compress(b"0" * 1_000_000)


def _field(name: str, why: str, *lines: bytes, status: int = 400) -> Case:
    return Case(name, why, post(*lines), status)


def _upgrade(name: str, *lines: bytes) -> Case:
    return _field(f"upgrade {name}", _UPGRADE, *lines)


def _hop(option: bytes) -> Case:
    line = b"Connection: close, " + option
    return _field(f"connection drops {option.decode()}", _HOP, line)


def _coding(name: str, value: bytes, body: bytes = BODY) -> Case:
    raw = post(b"Content-Encoding: " + value, body=body)
    return Case(f"content-encoding {name}", _CODING, raw, 415)


def _media(name: str, line: bytes) -> Case:
    lines = b"%bConnection: close\r\nContent-Length: %d\r\n" % (line, len(BODY))
    first = b"POST %b HTTP/1.1\r\n" % CHAT
    raw = first + HOST + AUTHORIZATION + lines + b"\r\n" + BODY
    return Case(f"content-type {name}", _MEDIA, raw, 415, ends=False)


def _own(name: str, line: bytes, status: int = 400) -> Case:
    return Case(name, _OURS, post(line, b"Connection: close"), status, ends=False)


def _key(name: str, line: bytes) -> Case:
    lines = b"%bConnection: close\r\nContent-Length: %d\r\n" % (line, len(BODY))
    first = b"POST %b HTTP/1.1\r\n" % CHAT
    return Case(f"key {name}", _KEY, first + HOST + JSON + lines + b"\r\n" + BODY, 401, ends=False)


CASES = (
    _field("expect another", _EXPECT, b"Expect: 200-ok", status=417),
    _field("expect with a suffix", _EXPECT, b"Expect: 100-continue; q=1", status=417),
    _field("expect a list", _EXPECT, b"Expect: 100-continue, 100-continue", status=417),
    _field("expect nothing", _EXPECT, b"Expect:", status=417),
    _field("expect twice", _EXPECT, b"Expect: 100-continue", b"Expect: 100-continue"),
    _field("expect quoted", _EXPECT, b'Expect: "100-continue"', status=417),
    Case(
        "expect for GET",
        "RFC 9110 §10.1.1: who expects to continue has a body, which GET has not",
        head(b"Expect: 100-continue", first=b"GET /healthz HTTP/1.1\r\n"),
    ),
    _upgrade("to websocket", b"Connection: Upgrade", b"Upgrade: websocket"),
    _upgrade(
        "to h2c", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: A"
    ),
    _upgrade("to h2c without settings", b"Connection: Upgrade", b"Upgrade: h2c"),
    _upgrade("to TLS", b"Connection: Upgrade", b"Upgrade: TLS/1.2"),
    _upgrade("without Connection", b"Upgrade: websocket"),
    _upgrade("twice", b"Upgrade: websocket", b"Upgrade: h2c"),
    Case(
        "upgrade of a GET",
        _UPGRADE,
        head(b"Connection: Upgrade", b"Upgrade: websocket", first=b"GET /v1/models HTTP/1.1\r\n"),
    ),
    _hop(b"authorization"),
    _hop(b"Content-Length"),
    _hop(b"Host"),
    _hop(b"Transfer-Encoding"),
    _hop(b"Content-Type"),
    _hop(b"Content-Encoding"),
    _hop(b"X-Api-Key"),
    _hop(b"X-Comptroller-Session"),
    _hop(b"x-comptroller-tags"),
    _hop(b"x-comptroller-delegation"),
    _hop(b"traceparent"),
    _hop(b"Expect"),
    _coding("gzip", b"gzip", gzip.compress(BODY)),
    _coding("deflate", b"deflate", zlib.compress(BODY)),
    _coding("br", b"br"),
    _coding("zstd", b"zstd"),
    _coding("x-gzip", b"x-gzip", gzip.compress(BODY)),
    _coding("of a list", b"identity, gzip", gzip.compress(BODY)),
    _coding("unknown", b"aes128gcm"),
    _coding("empty", b""),
    _coding("of a bomb", b"gzip", _BOMB),
    Case("content-encoding twice", _CODING, post(*[b"Content-Encoding: identity"] * 2)),
    _media("missing", b""),
    _media("empty", b"Content-Type:\r\n"),
    _media("text", b"Content-Type: text/plain\r\n"),
    _media("form", b"Content-Type: application/x-www-form-urlencoded\r\n"),
    _media("multipart", b"Content-Type: multipart/form-data; boundary=x\r\n"),
    _media("of a list", b"Content-Type: application/json, text/plain\r\n"),
    _media("that begins alike", b"Content-Type: application/json-seq\r\n"),
    Case("content-type twice", "RFC 9110 §5.3: it is no list", post(JSON[:-2])),
    Case("authorization twice", _KEY, post(b"Authorization: Bearer other")),
    Case("x-api-key twice", _KEY, post(b"X-Api-Key: a", b"X-Api-Key: b")),
    Case("session twice", _OURS, post(*[b"X-Comptroller-Session: a"] * 2)),
    Case("tags twice", _OURS, post(*[b"X-Comptroller-Tags: a=b"] * 2)),
    Case("delegation twice", _OURS, post(*[b"X-Comptroller-Delegation: a"] * 2)),
    Case("timeout twice", _OURS, post(*[b"X-Comptroller-Timeout-Ms: 1"] * 2)),
    Case(
        "traceparent twice",
        "W3C Trace Context §3.2: it is said once",
        post(*[b"Traceparent: a"] * 2),
    ),
    _own("session with a space", b"X-Comptroller-Session: a b"),
    _own("session of 200 letters", b"X-Comptroller-Session: " + b"a" * 200),
    _own("session outside of ASCII", "X-Comptroller-Session: ä".encode()),
    _own("tags without a value", b"X-Comptroller-Tags: team"),
    _own("tags with one twice", b"X-Comptroller-Tags: a=1, a=2"),
    _own("tags beyond 16", b"X-Comptroller-Tags: " + b",".join(b"t%d=1" % n for n in range(17))),
    _own("timeout of letters", b"X-Comptroller-Timeout-Ms: soon"),
    _own("timeout that is negative", b"X-Comptroller-Timeout-Ms: -1"),
    _own("delegation with spaces", b"X-Comptroller-Delegation: a b"),
    _own("delegation that nobody made", b"X-Comptroller-Delegation: Zm9yZ2Vk", 403),
    _key("missing", b""),
    _key("unknown", b"Authorization: Bearer cmp_live_agent2_secret\r\n"),
    _key("without a scheme", AUTHORIZATION.replace(b"Bearer ", b"")),
    _key("of another scheme", AUTHORIZATION.replace(b"Bearer", b"Basic")),
    _key("cut short", AUTHORIZATION.replace(b"secret", b"secre")),
    _key("with a case twin", AUTHORIZATION.replace(b"secret", b"SECRET")),
    _key("with a Unicode twin", AUTHORIZATION.replace(b"secret", "ѕecret".encode())),
    _key("as a list", AUTHORIZATION.replace(b"\r\n", b", x\r\n")),
    Case(
        "a large body of nobody",
        "nothing is kept for callers that nobody knows",
        b"POST %b HTTP/1.1\r\n%b%bContent-Length: 1000000\r\n\r\n" % (CHAT, HOST, JSON),
        401,
        followed=False,
    ),
    Case(
        "a body above the limit, said before",
        "RFC 9110 §15.5.14: said before it is read",
        head(b"Content-Length: 999999999") + FOLLOWER,
        413,
    ),
    Case(
        "a body above the limit, in chunks",
        "RFC 9110 §15.5.14: seen while it is read",
        head(b"Transfer-Encoding: chunked") + b"10000\r\n" + b"x" * 0x10000 + b"\r\nFFFFFF\r\n",
        413,
    ),
    Case(
        "a large body for a page",
        "RFC 9110 §15.5.14: pages take no body",
        head(b"Content-Length: 100000", first=b"POST /metrics HTTP/1.1\r\n"),
        413,
        followed=False,
    ),
)
