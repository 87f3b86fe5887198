"""How long is the body? Every way to make two readers disagree about it."""

from tests.hostile.case import AUTHORIZATION, BODY, FOLLOWER, HOST, Case, chunk, head, post

_LAST = b"0\r\n\r\n"
_LENGTH = b"Content-Length: %d" % len(BODY)
_CHUNKED = b"Transfer-Encoding: chunked"
_BOTH = "RFC 9112 §6.1: both lengths at once; an intermediary may be fooled by either"
_CODING = "RFC 9112 §6.1: a coding that is not exactly `chunked` is read by some as chunked"
_DIGITS = "RFC 9110 §8.6: Content-Length = 1*DIGIT"
_SEVERAL = "RFC 9112 §6.3: several lengths cannot be believed"


def _coding(name: str, value: bytes, *, line: bytes = b"Transfer-Encoding: ") -> Case:
    return Case(f"te {name}", _CODING, head(line + value) + chunk() + _LAST)


def _length(name: str, value: bytes) -> Case:
    return Case(f"cl {name}", _DIGITS, head(b"Content-Length:" + value) + BODY)


CASES = (
    Case("cl.te", _BOTH, head(_LENGTH, _CHUNKED) + BODY),
    Case("te.cl", _BOTH, head(_CHUNKED, _LENGTH) + chunk() + _LAST),
    Case("cl.te with a hidden call", _BOTH, head(b"Content-Length: 5", _CHUNKED) + _LAST),
    Case(
        "te.cl with a hidden call",
        _BOTH,
        head(_CHUNKED, b"Content-Length: 3") + chunk(FOLLOWER) + _LAST,
    ),
    Case("cl.te with length zero", _BOTH, head(b"Content-Length: 0", _CHUNKED) + chunk() + _LAST),
    Case(
        "cl.te on HTTP/1.0",
        "RFC 9112 §6.1: 1.0 knows no coding; the framing is faulty",
        head(_LENGTH, _CHUNKED, first=b"POST /v1/chat/completions HTTP/1.0\r\n") + BODY,
    ),
    Case(
        "te on HTTP/1.0",
        "RFC 9112 §6.1: 1.0 knows no coding; the framing is faulty",
        head(_CHUNKED, first=b"POST /v1/chat/completions HTTP/1.0\r\n") + chunk() + _LAST,
    ),
    Case("te twice", _CODING, head(_CHUNKED, _CHUNKED) + chunk() + _LAST),
    Case("te then identity", _CODING, head(_CHUNKED, b"Transfer-Encoding: identity") + _LAST),
    Case("te behind identity", _CODING, head(b"Transfer-Encoding: identity", _CHUNKED) + _LAST),
    Case("te twice, one misspelt", _CODING, head(_CHUNKED, b"Transfer-encoding: cow") + _LAST),
    _coding("doubled", b"chunked, chunked"),
    _coding("behind a comma", b",chunked"),
    _coding("before a comma", b"chunked,"),
    _coding("identity", b"identity"),
    _coding("identity, chunked", b"identity, chunked"),
    _coding("chunked, identity", b"chunked, identity"),
    _coding("gzip, chunked", b"gzip, chunked"),
    _coding("chunked, gzip", b"chunked, gzip"),
    _coding("xchunked", b"xchunked"),
    _coding("chunkedx", b"chunkedx"),
    _coding("chunk", b"chunk"),
    _coding("quoted", b'"chunked"'),
    _coding("single-quoted", b"'chunked'"),
    _coding("with a parameter", b"chunked;q=1"),
    _coding("in capitals", b"CHUNKED"),
    _coding("of mixed case", b"Chunked"),
    _coding("empty", b""),
    _coding("behind a vertical tab", b"\x0bchunked"),
    _coding("behind a form feed", b"\x0cchunked"),
    _coding("before a vertical tab", b"chunked\x0b"),
    _coding("with NUL", b"chunked\x00"),
    _coding("behind a no-break space", b"\xa0chunked"),
    _coding("with a high bit", b"chunke\xe4"),
    _coding("behind a line feed", b"\nchunked"),
    _coding("on a folded line", b"\r\n chunked"),
    _coding("with a space before the colon", b"chunked", line=b"Transfer-Encoding : "),
    _coding("with a tab before the colon", b"chunked", line=b"Transfer-Encoding\t: "),
    _coding("behind a leading space", b"chunked", line=b" Transfer-Encoding: "),
    _coding("hidden behind a bare CR", b"chunked", line=b"X: a\rTransfer-Encoding: "),
    _coding("hidden behind a bare LF", b"chunked", line=b"X: a\nTransfer-Encoding: "),
    _coding("with NUL in the name", b"chunked", line=b"Transfer\x00-Encoding: "),
    _length("with a plus", b" +%d" % len(BODY)),
    _length("negative", b" -1"),
    _length("in hexadecimal", b" 0x5"),
    _length("with an underscore", b" 1_0"),
    _length("empty", b""),
    _length("of a space", b" \t "),
    _length("with a space inside", b" 1 0"),
    _length("with a comma", b" 5,"),
    _length("with a dot", b" 5.0"),
    _length("with an exponent", b" 1e1"),
    _length("in quotes", b' "5"'),
    _length("in Arabic digits", " ٥".encode()),
    _length("in superscript", " ²".encode("latin-1")),
    _length("beyond 64 bits", b" 18446744073709551621"),
    _length("of a thousand digits", b" " + b"9" * 1000),
    _length("of a thousand zeros", b" " + b"0" * 1000 + b"5"),
    _length("with NUL", b" 5\x00"),
    _length("with a vertical tab", b"\x0b5"),
    _length("with a letter behind", b" 5a"),
    Case("cl list of equals", _SEVERAL, head(b"Content-Length: 5, 5") + b"hello"),
    Case("cl list of others", _SEVERAL, head(b"Content-Length: 5, 6") + b"hello!"),
    Case("cl twice, equal", _SEVERAL, head(_LENGTH, _LENGTH) + BODY),
    Case("cl twice, different", _SEVERAL, head(_LENGTH, b"Content-Length: 0") + BODY),
    Case("cl twice, one in capitals", _SEVERAL, head(_LENGTH, b"CONTENT-LENGTH: 1") + BODY),
    Case("cl with a space before the colon", _DIGITS, head(b"Content-Length : 0") + BODY),
    Case(
        "cl.0: a length for GET",
        "RFC 9110 §9.3.1: content of GET has no meaning; who ignores it reads it as a request",
        head(b"Content-Length: %d" % len(FOLLOWER), first=b"GET /healthz HTTP/1.1\r\n") + FOLLOWER,
    ),
    Case(
        "te.0: chunks for GET",
        "RFC 9110 §9.3.1: content of GET has no meaning; who ignores it reads it as a request",
        head(_CHUNKED, first=b"GET /healthz HTTP/1.1\r\n") + chunk(FOLLOWER) + _LAST,
    ),
    Case(
        "0.cl: a call that says no length",
        "RFC 9112 §6.3: its body would be read as the next request",
        head() + BODY,
        status=411,
    ),
    Case(
        "0.cl: a length under another name",
        "RFC 9112 §6.3: Content_Length is not Content-Length, though some map one to the other",
        head(b"Content_Length: %d" % len(BODY)) + BODY,
        status=411,
    ),
    Case(
        "cl above what comes",
        "RFC 9112 §6.3: an incomplete message is not served",
        post()[:-1],
        status=408,
        followed=False,
    ),
    Case(
        "a length for DELETE",
        "RFC 9110 §9.3.5: content of DELETE has no meaning",
        b"DELETE /v1/models HTTP/1.1\r\n%b%bContent-Length: 5\r\n\r\nhello" % (HOST, AUTHORIZATION),
    ),
)
