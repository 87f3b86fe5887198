"""Who calls, in which session, with which tags: read from headers, claims never trusted as keys.

The agent comes from its key alone. A client can name its session, not another agent.
"""

import re
from typing import NamedTuple

from enforcement.sidecar.http1 import HttpError

MAX_TAGS = 16

_SESSION = re.compile(rb"[!-~]{1,128}")
_TAG = re.compile(rb"([A-Za-z0-9_.-]{1,64})=([ -+\--~]{0,128})")
_SKILL = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
_TIMEOUT = re.compile(rb"[0-9]{1,6}")
_DELEGATION = re.compile(rb"[A-Za-z0-9_-]{1,6000}")
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")
_NO_TRACE = b"0" * 32

# How well-known agents and gateways name their sessions; the first that is present wins. A
# subagent of Claude Code is a session of its own.
_SESSION_HEADERS = (
    b"x-dynamo-session-id",
    b"x-claude-code-agent-id",
    b"x-claude-code-session-id",
    b"x-litellm-session-id",
    b"session-id",
    b"x-session-id",
)


class Caller(NamedTuple):
    """What headers say. `timeout_ms`: how long the caller lets its call run, if it says."""

    session: str
    tags: dict[str, str]
    skill: str = ""
    timeout_ms: int | None = None
    delegation: str = ""  # the token of a child session


_NOBODY = Caller("", {})


def caller_of(headers: dict[bytes, bytes]) -> Caller:
    """Session, tags, skill and deadline of a request.

    Raises:
        HttpError: one of our own headers is malformed.
    """
    tags_text = headers.get(b"x-comptroller-tags")
    session = _session_of(headers)
    skill = _own(headers, b"x-comptroller-skill", _SKILL)
    timeout = _own(headers, b"x-comptroller-timeout-ms", _TIMEOUT)
    delegation = _own(headers, b"x-comptroller-delegation", _DELEGATION)
    if tags_text is None and not skill and not timeout and not delegation:
        return Caller(session, {}) if session else _NOBODY
    tags = {} if tags_text is None else _tags_of(tags_text)
    timeout_ms = max(int(timeout), 1) if timeout else None
    return Caller(session, tags, skill, timeout_ms, delegation)


def bearer_of(headers: dict[bytes, bytes]) -> bytes:
    """The agent key as sent; empty if there is none."""
    said = headers.get(b"authorization")
    if said is not None:
        scheme, _, token = said.partition(b" ")
        return token.strip() if scheme.lower() == b"bearer" else b""
    return headers.get(b"x-api-key", b"")


def _own(headers: dict[bytes, bytes], name: bytes, form: re.Pattern[bytes]) -> str:
    """One of our own headers, empty if it is not there."""
    said = headers.get(name)
    if said is None:
        return ""
    if not form.fullmatch(said):
        raise HttpError(f"malformed {name.decode()}")
    return said.decode("ascii")


def _session_of(headers: dict[bytes, bytes]) -> str:
    ours = _own(headers, b"x-comptroller-session", _SESSION)
    if ours:
        return ours
    for name in _SESSION_HEADERS:
        value = headers.get(name)
        if value is not None and _SESSION.fullmatch(value):
            return value.decode("ascii")
    trace = headers.get(b"traceparent")
    if trace is not None:
        match = _TRACEPARENT.fullmatch(trace)
        if match is not None and match[1] != _NO_TRACE:
            return match[1].decode("ascii")
    return ""


def _tags_of(text: bytes) -> dict[str, str]:
    tags: dict[str, str] = {}
    for item in text.split(b","):
        match = _TAG.fullmatch(item.strip(b" "))
        if match is None:
            raise HttpError("malformed x-comptroller-tags: k=v, separated by commas")
        name = match[1].decode("ascii")
        if name in tags:
            raise HttpError(f"x-comptroller-tags: {name} is said twice")
        tags[name] = match[2].decode("ascii")
    if len(tags) > MAX_TAGS:
        raise HttpError(f"x-comptroller-tags: more than {MAX_TAGS}")
    return tags
