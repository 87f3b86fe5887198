"""Who calls, for whom, in which session, with which tags: claims, never trusted as keys.

The agent comes from its key alone. A client can name its session, not another agent. Our own
headers come first and must be well-formed; then what `enforcement.rules.claims` finds in the
headers of well-known agents, in baggage and in the body; the id of the trace is the last resort.
"""

import re
from typing import NamedTuple

from enforcement.rules.claims import (
    CLAIMING,
    CLIENT_TAG,
    MAX_TAGS,
    add_tags,
    body_claims,
    header_claims,
    program_of,
)
from enforcement.rules.modelroutes import Lane
from enforcement.rules.requests import ParsedRequest
from enforcement.rules.tracecontext import NO_TRACE, TRACE_HEADERS, Trace, trace_of
from enforcement.sidecar.http1 import HttpError, RequestHead

_TAG = re.compile(rb"([A-Za-z0-9_.-]{1,64})=([ -+\--~]{0,128})")
_SESSION = re.compile(rb"[!-~]{1,128}")
_USER = re.compile(rb"[ -~]{1,200}")
_SKILL = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
_TIMEOUT = re.compile(rb"[0-9]{1,6}")
_LANE = re.compile(rb"interactive|batch")
_DELEGATION = re.compile(rb"[A-Za-z0-9_-]{1,6000}")
_OWN = frozenset(
    b"x-comptroller-session x-comptroller-user x-comptroller-tags x-comptroller-skill"
    b" x-comptroller-timeout-ms x-comptroller-delegation x-comptroller-lane".split()
)
_SPEAKING = CLAIMING.union(_OWN, TRACE_HEADERS)


class Caller(NamedTuple):
    """What a request says of itself. `timeout_ms`: how long the caller lets its call run.

    `by_trace`: the session is only the id of the trace, so the body may still name a better one.
    """

    session: str
    tags: dict[str, str]
    skill: str = ""
    timeout_ms: int | None = None
    delegation: str = ""  # the token of a child session
    user: str = ""
    own_user: bool = False  # `user` comes from our own header, so it stands before the body's
    by_trace: bool = False
    trace: Trace = NO_TRACE
    lane: Lane = Lane.INTERACTIVE


_NOBODY = Caller("", {})


def caller_of(headers: dict[bytes, bytes]) -> Caller:
    """What the headers of a request say of it.

    Raises:
        HttpError: one of our own headers is malformed.
    """
    program = program_of(headers[b"user-agent"]) if b"user-agent" in headers else ""
    if _SPEAKING.isdisjoint(headers):
        return Caller("", {CLIENT_TAG: program}) if program else _NOBODY
    trace = trace_of(headers)
    claims = header_claims(headers, trace)
    session, tags = claims.session, dict(claims.tags)
    if program:
        add_tags(tags, [(CLIENT_TAG, program)])
    by_trace = not session and trace.parent is not None
    if trace.parent is not None and by_trace:
        session = trace.parent.trace_id
    caller = Caller(session, tags, user=claims.user, by_trace=by_trace, trace=trace)
    return caller if _OWN.isdisjoint(headers) else _with_own(caller, headers)


def _with_own(caller: Caller, headers: dict[bytes, bytes]) -> Caller:
    """The caller with what our own headers say: they stand before all others."""
    timeout = _own(headers, b"x-comptroller-timeout-ms", _TIMEOUT)
    said_tags = headers.get(b"x-comptroller-tags")
    tags = {} if said_tags is None else _tags_of(said_tags)
    add_tags(tags, caller.tags.items())
    session = _own(headers, b"x-comptroller-session", _SESSION)
    user = _own(headers, b"x-comptroller-user", _USER)
    return caller._replace(
        session=session or caller.session,
        tags=tags,
        skill=_own(headers, b"x-comptroller-skill", _SKILL),
        timeout_ms=max(int(timeout), 1) if timeout else None,
        delegation=_own(headers, b"x-comptroller-delegation", _DELEGATION),
        user=user or caller.user,
        own_user=bool(user),
        by_trace=caller.by_trace and not session,
        lane=Lane(_own(headers, b"x-comptroller-lane", _LANE) or Lane.INTERACTIVE),
    )


class Said(NamedTuple):
    """What the head of a call says: whose key it brings, who calls, whether its body is JSON."""

    key: bytes
    caller: Caller
    json: bool


def said_by(head: RequestHead) -> Said:
    """Read a head, once.

    Raises:
        HttpError: one of our own headers is malformed.
    """
    known: Said | None = head.derived.get("said")
    if known is None:
        headers = head.headers
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        known = Said(bearer_of(headers), caller_of(headers), kind == b"application/json")
        head.derived["said"] = known
    return known


def with_body(caller: Caller, parsed: ParsedRequest) -> Caller:
    """The caller with what its body says as well; `parsed.user` becomes the one that counts."""
    fields = parsed.fields
    if "metadata" not in fields and "safety_identifier" not in fields:
        if caller.user:
            parsed.user = caller.user if caller.own_user else parsed.user or caller.user
        return caller
    claims = body_claims(fields, user=parsed.user)
    parsed.user = caller.user if caller.own_user else claims.user or caller.user
    tags = dict(caller.tags)
    add_tags(tags, claims.tags.items())
    session = caller.session
    if claims.session and (caller.by_trace or not session):
        session = claims.session
    return caller._replace(session=session, tags=tags)


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
