"""Requests that are served, and whose trick must not reach the serving node."""

from tests.hostile.case import Case, post

_OURS = "what goes upstream is written anew: nothing of the caller's head is in it"
_TWIN = "RFC 9110 §5.1: another name; who maps it to a known one gets nothing to map"


def _passed(name: str, why: str, *lines: bytes) -> Case:
    return Case(name, why, post(*lines, b"Connection: close"), 200, ends=False)


CASES = (
    _passed("X-Forwarded-For", _OURS, b"X-Forwarded-For: 127.0.0.1"),
    _passed("X-Forwarded-Host", _OURS, b"X-Forwarded-Host: other"),
    _passed("X-Forwarded-Proto", _OURS, b"X-Forwarded-Proto: https"),
    _passed("Forwarded", _OURS, b"Forwarded: for=127.0.0.1;host=other"),
    _passed("X-Real-IP", _OURS, b"X-Real-IP: 127.0.0.1"),
    _passed("X-HTTP-Method-Override", _OURS, b"X-HTTP-Method-Override: DELETE"),
    _passed("X-Original-URL", _OURS, b"X-Original-URL: /metrics"),
    _passed("X-Rewrite-URL", _OURS, b"X-Rewrite-URL: /metrics"),
    _passed("Cookie", _OURS, b"Cookie: session=other"),
    _passed("Proxy-Authorization", _OURS, b"Proxy-Authorization: Basic b3RoZXI="),
    _passed("Proxy-Connection", _OURS, b"Proxy-Connection: keep-alive"),
    _passed("Accept-Encoding", _OURS, b"Accept-Encoding: gzip, br"),
    _passed("TE", _OURS, b"TE: trailers, gzip"),
    _passed("Trailer", _OURS, b"Trailer: X"),
    _passed("Keep-Alive", _OURS, b"Keep-Alive: timeout=9999"),
    _passed("Range", _OURS, b"Range: bytes=0-1"),
    _passed("Max-Forwards", _OURS, b"Max-Forwards: 0"),
    _passed("Content_Length", _TWIN, b"Content_Length: 0"),
    _passed("Transfer_Encoding", _TWIN, b"Transfer_Encoding: chunked"),
    _passed("X_Comptroller_Session", _TWIN, b"X_Comptroller_Session: other"),
    _passed("Content-Length-", _TWIN, b"Content-Length-: 0"),
    _passed("X-Comptroller-Agent", _OURS, b"X-Comptroller-Agent: another"),
    _passed("X-Comptroller-Budget", _OURS, b"X-Comptroller-Budget: another"),
    _passed("X-Comptroller-Price", _OURS, b"X-Comptroller-Price: 0"),
    _passed("OpenAI-Organization", _OURS, b"OpenAI-Organization: other"),
    _passed("a value of high bytes", _OURS, b"X: \xff\xfe"),
    _passed("a hundred of a name", _OURS, *[b"X: a"] * 80),
)
