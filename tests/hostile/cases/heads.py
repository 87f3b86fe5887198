"""The grammar of heads: lines, names and values that are read in more than one way."""

from tests.hostile.case import CHAT, HOST, Case, head, post

_NAME = "RFC 9110 §5.1: a field name is a token"
_VALUE = "RFC 9110 §5.5: CR, LF, NUL and other controls in a value are dangerous"
_LINE = "RFC 9112 §2.2: lines end with CRLF; a bare LF or CR splits them for some"
_FOLD = "RFC 9112 §5.2: folded lines are refused"
_COLON = "RFC 9112 §5.1: no space between name and colon"
_START = "RFC 9112 §3: method SP target SP version CRLF"
_VERSION = "RFC 9112 §2.3: HTTP/1.0 and HTTP/1.1 are all there is here"


def _line(name: str, why: str, line: bytes) -> Case:
    return Case(f"head {name}", why, post(line))


def _start(name: str, first: bytes, why: str = _START) -> Case:
    return Case(f"start line {name}", why, head(first=first))


CASES = (
    _line("with NUL in a value", _VALUE, b"X: a\x00b"),
    _line("with a control in a value", _VALUE, b"X: a\x01b"),
    _line("with DEL in a value", _VALUE, b"X: a\x7fb"),
    _line("with ESC in a value", _VALUE, b"X: \x1b[31m"),
    _line("with a vertical tab in a value", _VALUE, b"X: a\x0bb"),
    _line("with a form feed in a value", _VALUE, b"X: a\x0cb"),
    _line("with a bare LF", _LINE, b"X: a\nY: b"),
    _line("with a bare CR", _LINE, b"X: a\rY: b"),
    _line("with CR CR LF", _LINE, b"X: a\r"),
    _line("with LF CR", _LINE, b"X: a\n\rY: b"),
    _line("folded with a space", _FOLD, b"X: a\r\n b"),
    _line("folded with a tab", _FOLD, b"X: a\r\n\tb"),
    _line("folded before a length", _FOLD, b"X:\r\n Content-Length: 0"),
    _line("with a space before the colon", _COLON, b"X : a"),
    _line("with a tab before the colon", _COLON, b"X\t: a"),
    _line("with a leading space", _FOLD, b" X: a"),
    _line("without a colon", _NAME, b"X"),
    _line("with only a colon", _NAME, b":"),
    _line("with an empty name", _NAME, b": a"),
    _line("with a space in a name", _NAME, b"X Y: a"),
    _line("with NUL in a name", _NAME, b"X\x00: a"),
    _line("with a control in a name", _NAME, b"X\x02: a"),
    _line("with a non-ASCII name", _NAME, "Ü: a".encode()),
    _line("with a parenthesis in a name", _NAME, b"X(: a"),
    _line("with a slash in a name", _NAME, b"X/Y: a"),
    _line("with quotes around a name", _NAME, b'"X": a'),
    _line("with braces in a name", _NAME, b"{X}: a"),
    _line("with a request in it", _NAME, b"GET /metrics HTTP/1.1"),
    Case(
        "head of 101 fields",
        "a head may have 100 fields",
        post(*[b"X-%d: a" % number for number in range(101)]),
    ),
    Case(
        "head above 32 KiB",
        "RFC 6585 §5: a head may have 32 KiB",
        post(b"X: " + b"a" * 33_000),
        status=431,
    ),
    Case(
        "head above 32 KiB without an end",
        "RFC 6585 §5: nothing is kept that has no end",
        head()[:-2] + b"X: " + b"a" * 40_000,
        status=431,
    ),
    Case("head with LF alone", _LINE, post().replace(b"\r\n", b"\n"), status=408, followed=False),
    Case("head with CR alone", _LINE, post().replace(b"\r\n", b"\r"), status=408, followed=False),
    Case("head behind an empty line", _START, b"\r\n" + post()),
    Case("head behind LF", _START, b"\n" + post()),
    Case("head behind a space", _START, b" " + post()),
    Case("head behind NUL", _START, b"\x00" + post()),
    Case("head behind a byte order mark", _START, b"\xef\xbb\xbf" + post()),
    Case("head with a space line first", _FOLD, b"GET / HTTP/1.1\r\n \r\n" + HOST + b"\r\n"),
    _start("with two spaces", b"POST  %b HTTP/1.1\r\n" % CHAT),
    _start("with a tab", b"POST\t%b HTTP/1.1\r\n" % CHAT),
    _start("with a trailing space", b"POST %b HTTP/1.1 \r\n" % CHAT),
    _start("with NUL", b"POST %b\x00 HTTP/1.1\r\n" % CHAT),
    _start("with LF", b"POST %b HTTP/1.1\n" % CHAT),
    _start("without a version", b"POST %b\r\n" % CHAT),
    _start("without a target", b"POST HTTP/1.1\r\n"),
    _start("with a lower-case method", b"post %b HTTP/1.1\r\n" % CHAT),
    _start("with a strange method", b"PO(ST %b HTTP/1.1\r\n" % CHAT),
    _start("with an empty method", b" %b HTTP/1.1\r\n" % CHAT),
    _start("with a method of 100 letters", b"P" * 100 + b" %b HTTP/1.1\r\n" % CHAT),
    _start("of HTTP/0.9", b"POST %b HTTP/0.9\r\n" % CHAT, _VERSION),
    _start("of HTTP/1.10", b"POST %b HTTP/1.10\r\n" % CHAT, _VERSION),
    _start("of HTTP/1.2", b"POST %b HTTP/1.2\r\n" % CHAT, _VERSION),
    _start("of HTTP/2.0", b"POST %b HTTP/2.0\r\n" % CHAT, _VERSION),
    _start("of HTTP/01.1", b"POST %b HTTP/01.1\r\n" % CHAT, _VERSION),
    _start("of HTTP/1,1", b"POST %b HTTP/1,1\r\n" % CHAT, _VERSION),
    _start("of http/1.1", b"POST %b http/1.1\r\n" % CHAT, _VERSION),
    _start("of HTTPS/1.1", b"POST %b HTTPS/1.1\r\n" % CHAT, _VERSION),
    _start("of HTTP/+1.1", b"POST %b HTTP/+1.1\r\n" % CHAT, _VERSION),
    Case("HTTP/0.9", "RFC 9112 §2.3: a request without head", b"GET /v1/models\r\n\r\n"),
    Case(
        "a call on HTTP/1.0",
        "RFC 9110 §15.6.6: streams need HTTP/1.1",
        post().replace(b"HTTP/1.1", b"HTTP/1.0"),
        status=505,
    ),
    Case(
        "the preface of HTTP/2",
        "RFC 9113 §3.4: it is made so that a server of HTTP/1.1 refuses it",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    ),
    Case(
        "the hello of TLS",
        "RFC 8446 §4.1.2: bytes of TLS are no head",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n",
    ),
)
