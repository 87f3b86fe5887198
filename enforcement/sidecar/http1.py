"""HTTP/1.1 heads and bodies, parsed more strictly than RFC 9112 asks.

Rules of this file:

1. One reading or none: what two parsers could read differently is an error, never repaired.
2. A head is checked as a whole by one pattern before it is taken apart.
3. Length: exactly one `Content-Length` of plain digits, or exactly `Transfer-Encoding: chunked`
   on HTTP/1.1, never both. A POST says one of them; no other method has a body.
4. Names come back in lower case, as bytes; a header that must be single and is not is an error.
"""

import re
from typing import Any

from msgspec import Struct, field

MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 100
MAX_CHUNK_LINE = 256
MAX_CHUNKS = 4_096  # of a body: the usual client sends a few, of kilobytes
SMALL_CHUNKS, MEAN_CHUNK_BYTES = 512, 64  # after so many, chunks must hold so much on the average

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*"
_HEADERS = rb"((?:" + _TOKEN + rb":" + _VALUE + rb"\r\n){0,%d})\r\n" % MAX_HEADERS
_REQUEST = re.compile(
    rb"([A-Z]{3,16}) ([!-~]{1,8192}) HTTP/1\.([01])\r\n" + _HEADERS,
)
_RESPONSE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: " + _VALUE + rb")?\r\n" + _HEADERS)
_NAMED = re.compile(rb"[A-Z]{3,16} (?:https?://[^/ ]{1,300})?(/[A-Za-z0-9\-._/]{0,8191})")
_BETA = b"?beta=true"
_PATH = re.compile(rb"/[A-Za-z0-9\-._~!$&'()*+,=:@/]*")
_HOST = re.compile(rb"(?:[A-Za-z0-9\-._~]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?")
_LENGTH = re.compile(rb"[0-9]{1,15}")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}")

# Said twice, these could steer two readers apart; all others are joined with a comma.
_SINGLE = frozenset(
    b"host content-length transfer-encoding content-type content-encoding authorization"
    b" expect upgrade x-api-key x-comptroller-session x-comptroller-user x-comptroller-tags"
    b" x-comptroller-skill x-comptroller-timeout-ms x-comptroller-delegation x-comptroller-lane"
    b" traceparent".split()
)
# Names that a client could use to have our own, or the framing's, headers stripped.
_PROTECTED = _SINGLE - {b"upgrade"}


class HttpError(Exception):
    """A message that is refused. `status` answers it; the connection is closed behind it.

    `retry_in_ns`: from when on it might be read, for 429.
    """

    def __init__(self, reason: str, *, status: int = 400, retry_in_ns: int = 0) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_in_ns = retry_in_ns


class RequestHead(Struct, frozen=True):
    """A request's head. `length` is None for a chunked body.

    Heads are kept, for clients repeat them: `derived` is where who reads one keeps what follows
    from it, by a name of its own.
    """

    method: bytes
    path: bytes
    headers: dict[bytes, bytes]
    length: int | None
    keep_alive: bool
    expects_continue: bool = False
    derived: dict[str, Any] = field(default_factory=dict)


class ResponseHead(Struct, frozen=True, gc=False):
    """A response's head. `length` is None for chunked and close-delimited bodies."""

    status: int
    headers: dict[bytes, bytes]
    length: int | None
    chunked: bool
    keep_alive: bool


def parse_request_head(head: bytes) -> RequestHead:
    """Parse a head up to and including its empty line.

    Raises:
        HttpError: anything in it is malformed, ambiguous or not supported.
    """
    match = _REQUEST.fullmatch(head)
    if match is None:
        raise HttpError(_why_malformed(head))
    method, target, minor, block = match.groups()
    headers = _split(block)
    host = headers.get(b"host")
    if host is None:
        raise HttpError("Host is missing")
    _check_host(host)
    path = _path_of(target, host)
    length = _request_length(method, headers, minor)
    expects = headers.get(b"expect")
    if expects is not None and expects.lower() != b"100-continue":
        raise HttpError("unknown expectation", status=417)
    if expects is not None and length == 0:
        raise HttpError("a body is announced and none comes")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise HttpError("compressed request bodies are not accepted", status=415)
    if b"upgrade" in headers:
        raise HttpError("protocol upgrades are not accepted")
    if minor == b"0" and method != b"GET":
        raise HttpError("HTTP/1.1 is needed", status=505)
    return RequestHead(
        method=method,
        path=path,
        headers=headers,
        length=length,
        keep_alive=_keep_alive(headers, minor),
        expects_continue=expects is not None and minor == b"1",
    )


def path_named(start: bytes) -> bytes:
    """The path that a refused request seems to name; empty where none can be read.

    It chooses the words of the refusal, and nothing else.
    """
    match = _NAMED.match(start)
    return match[1] if match is not None else b""


def parse_response_head(head: bytes, *, to_head_request: bool = False) -> ResponseHead:
    """Parse the head of an upstream's answer.

    Raises:
        HttpError: it is malformed or its length is ambiguous.
    """
    match = _RESPONSE.fullmatch(head)
    if match is None:
        raise HttpError("malformed response head", status=502)
    minor, status_text, block = match.groups()
    return _response_of(minor, int(status_text), block, to_head_request=to_head_request)


def _response_of(minor: bytes, status: int, block: bytes, *, to_head_request: bool) -> ResponseHead:
    headers = _split(block)
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise HttpError("compressed answer, none was asked for", status=502)
    coding, length_text = headers.get(b"transfer-encoding"), headers.get(b"content-length")
    chunked = coding is not None
    if coding is not None and (coding.lower() != b"chunked" or length_text is not None):
        raise HttpError("ambiguous length of the answer", status=502)
    length = None
    if length_text is not None:
        if not _LENGTH.fullmatch(length_text):
            raise HttpError("malformed length of the answer", status=502)
        length = int(length_text)
    if status in (204, 304) or status < 200 or to_head_request:
        if chunked or length:
            raise HttpError("a body where none may be", status=502)
        length = 0
    return ResponseHead(
        status=status,
        headers=headers,
        length=length,
        chunked=chunked,
        keep_alive=_keep_alive(headers, minor) and (chunked or length is not None),
    )


def _split(block: bytes) -> dict[bytes, bytes]:
    headers: dict[bytes, bytes] = {}
    for line in block.split(b"\r\n"):
        if not line:
            break
        name, _, value = line.partition(b":")
        name = name.lower()
        value = value.strip(b" \t")
        if name in headers:
            if name in _SINGLE:
                raise HttpError(f"{name.decode()} is said twice")
            value = headers[name] + b", " + value
        headers[name] = value
    return headers


def _why_malformed(head: bytes) -> str:
    if b"\x00" in head:
        return "NUL in the head"
    if head.count(b"\r\n") > MAX_HEADERS + 2:
        return "too many headers"
    if b"\r\n " in head or b"\r\n\t" in head:
        return "folded header line"
    if head.replace(b"\r\n", b"").find(b"\n") >= 0 or head.replace(b"\r\n", b"").find(b"\r") >= 0:
        return "bare CR or LF in the head"
    return "malformed head"


def _check_host(host: bytes) -> None:
    match = _HOST.fullmatch(host)
    if match is None or (match[1] is not None and int(match[1]) > 65535):
        raise HttpError("malformed Host")


def _path_of(target: bytes, host: bytes) -> bytes:
    """The path of a request target: no query, no escapes, no dot segments, no empty segments.

    Anthropic's clients write `?beta=true` behind a path where they name betas in a header: that
    one is understood, since the header says all of it.
    """
    if target.endswith(_BETA) and b"/v1/messages" in target:
        target = target[: -len(_BETA)]
    if not target.startswith(b"/"):
        scheme, mark, rest = target.partition(b"://")
        authority, slash, path = rest.partition(b"/")
        if scheme not in (b"http", b"https") or not mark or authority != host:
            raise HttpError("the request target does not agree with Host")
        target = slash + path or b"/"
    if not _PATH.fullmatch(target) or b"//" in target:
        raise HttpError("malformed request target")
    if b"/." in target and any(segment in (b".", b"..") for segment in target.split(b"/")):
        raise HttpError("dot segments in the request target")
    return target


def _request_length(method: bytes, headers: dict[bytes, bytes], minor: bytes) -> int | None:
    coding = headers.get(b"transfer-encoding")
    said = headers.get(b"content-length")
    if coding is not None and (minor == b"0" or said is not None or coding != b"chunked"):
        raise HttpError("ambiguous length of the body")
    if said is not None and not _LENGTH.fullmatch(said):
        raise HttpError("malformed Content-Length")
    if method == b"POST" and coding is None and said is None:
        raise HttpError("the length of the body is missing", status=411)
    length = None if coding is not None else int(said or b"0")
    if method != b"POST" and length != 0:
        raise HttpError("a body where none may be")
    return length


def _keep_alive(headers: dict[bytes, bytes], minor: bytes) -> bool:
    said = headers.get(b"connection")
    if said is None:
        return minor == b"1"
    options = [option.strip() for option in said.lower().split(b",")]
    if not _PROTECTED.isdisjoint(options):
        raise HttpError("Connection names a header that must arrive")
    if b"close" in options:
        return False
    return minor == b"1" or b"keep-alive" in options


class ChunkedBody:
    """Decodes a chunked body strictly: no extensions, no trailers, hex digits, exact CRLF."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._left = 0  # of the chunk that is being read, with its CRLF
        self._line = bytearray()
        self._body = bytearray()
        self._size = 0
        self._chunks = 0
        self._state = "size"

    def feed(self, data: bytes) -> bytes | None:
        """Take bytes in. None while more is needed, else what follows the body.

        Raises:
            HttpError: malformed, or larger than the limit (413).
        """
        position = 0
        while position < len(data):
            if self._state == "data":
                take = data[position : position + self._left]
                self._body += take
                position += len(take)
                self._left -= len(take)
                if not self._left:
                    self._state = "data_end"
                continue
            position = self._feed_line(data, position)
            if self._state == "done":
                return data[position:]
        return None

    def body(self) -> bytearray:
        """What has come of it."""
        return self._body

    def _feed_line(self, data: bytes, position: int) -> int:
        end = data.find(b"\n", position, position + MAX_CHUNK_LINE)
        stop = end + 1 if end >= 0 else min(len(data), position + MAX_CHUNK_LINE)
        self._line += data[position:stop]
        limit = MAX_CHUNK_LINE if self._state == "size" else 1
        if end < 0 and (
            len(self._line) > limit or bytes(self._line[limit - 1 :]) not in (b"", b"\r")
        ):
            raise HttpError("malformed chunk")
        if end >= 0:
            line = bytes(self._line)
            self._line.clear()
            if not line.endswith(b"\r\n"):
                raise HttpError("malformed chunk")
            self._end_line(line[:-2])
        return stop

    def _end_line(self, line: bytes) -> None:
        if self._state == "size":
            if not _CHUNK_SIZE.fullmatch(line):
                raise HttpError("malformed chunk size")
            self._left = int(line, 16)
            self._size += self._left
            self._chunks += 1
            tiny = self._chunks > SMALL_CHUNKS and self._size < self._chunks * MEAN_CHUNK_BYTES
            if tiny or self._chunks > MAX_CHUNKS:
                raise HttpError("the body comes in too many chunks")
            if self._size > self._limit:
                raise HttpError("the body is too large", status=413)
            self._state = "data" if self._left else "last"
        elif line:
            raise HttpError("trailers or stray bytes behind a chunk")
        else:
            self._state = "done" if self._state == "last" else "size"
