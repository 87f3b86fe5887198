"""W3C trace context and baggage: read strictly, written anew, never passed through.

Rules of this file:

1. What is malformed is dropped as a whole; it belongs to somebody else's tooling, so it is no
   reason to refuse a call.
2. What goes on is written from what was understood: `traceparent` as version 00, `tracestate`
   and `baggage` without spaces, within the limits of their specifications.
3. Baggage of our own (`comptroller.*`) ends here.

Sources: W3C Trace Context (Recommendation, 2021-11-23), W3C Baggage (Candidate Recommendation).
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

MAX_STATE_BYTES = 512
MAX_STATE_MEMBERS = 32
MAX_BAGGAGE_BYTES = 8192
MAX_BAGGAGE_MEMBERS = 64
OWN_PREFIX = b"comptroller."
TRACE_HEADERS = (b"traceparent", b"tracestate", b"baggage")

_KNOWN_FLAGS = 0x03  # sampled, random (level 2)
_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")
_STATE_KEY = rb"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
_STATE_VALUE = rb"[ -+\--<>-~]{0,255}[!-+\--<>-~]"
_STATE = re.compile(rb"(" + _STATE_KEY + rb")=(" + _STATE_VALUE + rb")")
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_OCTETS = rb"[!#-+\--:<-\[\]-~]*"
_MEMBER = re.compile(rb"(" + _TOKEN + rb")[ \t]*=[ \t]*(" + _OCTETS + rb")")
_PROPERTY = re.compile(rb"(" + _TOKEN + rb")(?:[ \t]*=[ \t]*(" + _OCTETS + rb"))?")


class TraceParent(NamedTuple):
    """Whose span a call belongs to. Ids in lower-case hex, as they stand in the header."""

    trace_id: str
    span_id: str
    flags: int = 1

    @property
    def sampled(self) -> bool:
        """Whether the caller records this trace."""
        return bool(self.flags & 1)

    def header(self) -> bytes:
        """The value of `traceparent`, version 00."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}".encode("ascii")


class BaggageMember(NamedTuple):
    """One pair of the baggage: `value` still percent-encoded, `properties` written anew."""

    key: bytes
    value: bytes
    properties: bytes = b""

    @property
    def text(self) -> str:
        """The decoded value; empty if it is no UTF-8."""
        try:
            return unquote_to_bytes(self.value).decode()
        except UnicodeDecodeError:
            return ""


def parse_traceparent(value: bytes) -> TraceParent | None:
    """Read a `traceparent`; None if it is malformed, or of the reserved version ff."""
    match = _PARENT.fullmatch(value)
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == b"ff" or (version == b"00" and rest is not None):
        return None
    if trace_id == b"0" * 32 or span_id == b"0" * 16:
        return None
    return TraceParent(trace_id.decode(), span_id.decode(), int(flags, 16) & _KNOWN_FLAGS)


def clean_tracestate(value: bytes) -> bytes:
    """A `tracestate` written anew; empty if it is malformed or too large."""
    members = [item.strip(b" \t") for item in value.split(b",", MAX_STATE_MEMBERS + 1)]
    members = [item for item in members if item]
    if len(members) > MAX_STATE_MEMBERS:
        return b""
    keys = set()
    for item in members:
        match = _STATE.fullmatch(item)
        if match is None or match[1] in keys:
            return b""
        keys.add(match[1])
    clean = b",".join(members)
    return clean if len(clean) <= MAX_STATE_BYTES else b""


def parse_baggage(value: bytes) -> list[BaggageMember]:
    """The members of a `baggage`, the first of each key; none if it is malformed or too large."""
    if len(value) > MAX_BAGGAGE_BYTES:
        return []
    found: dict[bytes, BaggageMember] = {}
    for item in value.split(b","):
        pair, *rest = (part.strip(b" \t") for part in item.split(b";"))
        match = _MEMBER.fullmatch(pair)
        properties = [_PROPERTY.fullmatch(part) for part in rest]
        if match is None or None in properties:
            return []
        written = b"".join(_property(each) for each in properties if each is not None)
        found.setdefault(match[1], BaggageMember(match[1], match[2], written))
    return list(found.values())[:MAX_BAGGAGE_MEMBERS]


def _property(match: re.Match[bytes]) -> bytes:
    key, value = match.groups()
    return b";" + key if value is None else b";%b=%b" % (key, value)


def baggage_header(members: Iterable[BaggageMember]) -> bytes:
    """The baggage for upstream, without what is ours; empty if nothing is left."""
    return b",".join(
        b"%b=%b%b" % member for member in members if not member.key.startswith(OWN_PREFIX)
    )


class Trace(NamedTuple):
    """What a request says of its trace. `parent` None: it says nothing that can be understood."""

    parent: TraceParent | None = None
    state: bytes = b""
    baggage: tuple[BaggageMember, ...] = ()

    def lines(self, own: TraceParent | None = None, *, abroad: bool = False) -> bytes:
        """The header lines for upstream. `own`: our own span, where we record one.

        `abroad`: it is somebody else's service, and baggage (users, sessions) is none of its
        business.
        """
        parent = own or self.parent
        lines = b""
        if parent is not None:
            lines += b"traceparent: %b\r\n" % parent.header()
            if self.state:
                lines += b"tracestate: %b\r\n" % self.state
        if self.baggage and not abroad and (baggage := baggage_header(self.baggage)):
            lines += b"baggage: %b\r\n" % baggage
        return lines


NO_TRACE = Trace()


def trace_of(headers: Mapping[bytes, bytes]) -> Trace:
    """The trace context and baggage of a request. `headers`: by lower-case name."""
    said = headers.get(b"traceparent")
    parent = None if said is None else parse_traceparent(said)
    state = headers.get(b"tracestate", b"") if parent is not None else b""
    baggage = headers.get(b"baggage")
    if parent is None and baggage is None:
        return NO_TRACE
    members = () if baggage is None else tuple(parse_baggage(baggage))
    return Trace(parent, clean_tracestate(state) if state else b"", members)
