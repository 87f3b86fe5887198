"""What a hostile case is, and the few builders that cases are written with."""

import json
from typing import Any, NamedTuple

from tests.sidecar.stack import KEY

CHAT = b"/v1/chat/completions"
HOST = b"Host: node\r\n"
AUTHORIZATION = b"Authorization: Bearer %b\r\n" % KEY.encode()
JSON = b"Content-Type: application/json\r\n"
PLAIN = {"model": "toy", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
BODY = json.dumps(PLAIN, separators=(",", ":")).encode()
CLOSED = 0  # the status of a connection that is closed without a word


class Case(NamedTuple):
    """One request that must go no further.

    `ends`: how it is read is in doubt, so the connection must be closed behind the answer, and a
    proper request that is pipelined behind it must never be answered. `followed`: whether that
    request is sent; not where it would become part of an unfinished body.
    """

    name: str
    why: str
    raw: bytes
    status: int = 400
    ends: bool = True
    followed: bool = True


def head(*lines: bytes, first: bytes = b"POST %b HTTP/1.1\r\n" % CHAT, host: bytes = HOST) -> bytes:
    """A head of a call that would be served if these lines were not in it."""
    return b"%b%b%b%b%b\r\n" % (first, host, AUTHORIZATION, JSON, _joined(lines))


def post(*lines: bytes, body: bytes = BODY, host: bytes = HOST) -> bytes:
    """A call with a body whose length is said plainly."""
    return head(*lines, b"Content-Length: %d" % len(body), host=host) + body


def target(path: bytes, *lines: bytes, method: bytes = b"POST") -> bytes:
    """The usual call, to another target."""
    length = b"Content-Length: %d" % len(BODY)
    return head(*lines, length, first=b"%b %b HTTP/1.1\r\n" % (method, path)) + BODY


def chunked(data: bytes) -> bytes:
    """A call whose chunked body is written by hand."""
    return head(b"Transfer-Encoding: chunked") + data


def chunk(data: bytes = BODY) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def evasion(name: str, why: str, body: bytes | dict[str, Any], status: int = 400) -> Case:
    """A body that HTTP has nothing against, but a budget has."""
    text = body if isinstance(body, bytes) else json.dumps(PLAIN | body).encode()
    return Case(name, why, post(b"Connection: close", body=text), status, ends=False)


def completion(name: str, why: str, fields: dict[str, Any], status: int = 400) -> Case:
    """The same for `/v1/completions`."""
    text = json.dumps({"model": "toy", "max_tokens": 1} | fields).encode()
    lines = (b"Connection: close", b"Content-Length: %d" % len(text))
    raw = head(*lines, first=b"POST /v1/completions HTTP/1.1\r\n") + text
    return Case(name, why, raw, status, ends=False)


def _joined(lines: tuple[bytes, ...]) -> bytes:
    return b"".join(line + b"\r\n" for line in lines)


FOLLOWER = post(b"X-Follower: 1")
