"""The grammar of chunks: what one reader skips, another takes for the next request."""

from tests.hostile.case import BODY, FOLLOWER, Case, chunk, chunked

_LAST = b"0\r\n\r\n"
_SIZE = "RFC 9112 §7.1: chunk-size = 1*HEXDIG"
_EXTENSION = "RFC 9112 §7.1.1: extensions are read differently; nobody here needs them"
_LINE = "RFC 9112 §7.1: lines of a chunked body end with CRLF, nothing else"
_TRAILER = "RFC 9110 §6.5.1: a trailer must not change framing, routing or identity"
_N = b"%x" % len(BODY)


def _size(name: str, text: bytes) -> Case:
    raw = chunked(text + b"\r\n" + BODY + b"\r\n" + _LAST)
    return Case(f"chunk size {name}", _SIZE, raw)


def _line(name: str, raw: bytes) -> Case:
    return Case(f"chunk {name}", _LINE, chunked(raw))


def _extension(name: str, text: bytes) -> Case:
    raw = chunked(_N + text + b"\r\n" + BODY + b"\r\n" + _LAST)
    return Case(f"chunk extension {name}", _EXTENSION, raw)


def _trailer(name: str, line: bytes) -> Case:
    raw = chunked(chunk() + b"0\r\n" + line + b"\r\n\r\n")
    return Case(f"trailer {name}", _TRAILER, raw)


CASES = (
    _size("with 0x", b"0x" + _N),
    _size("with a plus", b"+" + _N),
    _size("with a minus", b"-" + _N),
    _size("with an underscore", _N[:1] + b"_" + _N[1:]),
    _size("empty", b""),
    _size("of spaces", b"  "),
    _size("behind a space", b" " + _N),
    _size("before a space", _N + b" "),
    _size("before a tab", _N + b"\t"),
    _size("behind a vertical tab", b"\x0b" + _N),
    _size("with NUL", _N + b"\x00"),
    _size("that overflows 32 bits", b"100000000" + _N),
    _size("that overflows 64 bits", b"FFFFFFFFFFFFFFFFF"),
    _size("behind many zeros", b"0" * 40 + _N),
    _size("without an end", b"0" * 300),
    _size("of no hexadecimal digit", b"xyz"),
    _size("with a dot", _N + b".0"),
    _size("in full-width digits", "５".encode()),
    _size("with a comma", _N + b",0"),
    _line("size that ends with LF", _N + b"\n" + BODY + b"\r\n" + _LAST),
    _line("size that ends with CR", _N + b"\r" + BODY + b"\r\n" + _LAST),
    _line("size that ends with CR CR LF", _N + b"\r\r\n" + BODY + b"\r\n" + _LAST),
    _line("data that ends with LF", _N + b"\r\n" + BODY + b"\n" + _LAST),
    _line("data that ends with CR", _N + b"\r\n" + BODY + b"\r" + _LAST),
    _line("data that ends with any two bytes", _N + b"\r\n" + BODY + b"XX" + _LAST),
    _line("data without an end", _N + b"\r\n" + BODY + _LAST),
    _line("data longer than said", b"1\r\n" + BODY + b"\r\n" + _LAST),
    _line("spilled: the rest is a request", b"1\r\n{}" + FOLLOWER),
    _line("last that ends with LF", chunk() + b"0\n\n"),
    _line("last line that ends with LF", chunk() + b"0\r\n\n"),
    _line("last line that ends with CR", chunk() + b"0\r\n\rX"),
    _line("behind an empty line", b"\r\n" + chunk() + _LAST),
    _extension("plain", b";a=b"),
    _extension("quoted", b';a="b"'),
    _extension("without a name", b";"),
    _extension("behind a space", b" ;a"),
    _extension("with LF (TERM.EXT)", b";a\n" + FOLLOWER),
    _extension("with CR (EXT.TERM)", b";a\rb"),
    _extension("with a quoted CRLF", b';a="\r\n"'),
    _extension("with NUL", b";a=\x00"),
    _extension("of 100 kB", b";" + b"a" * 100_000),
    _trailer("Content-Length", b"Content-Length: 5"),
    _trailer("Transfer-Encoding", b"Transfer-Encoding: chunked"),
    _trailer("Host", b"Host: other"),
    _trailer("Authorization", b"Authorization: Bearer other"),
    _trailer("x-comptroller-session", b"x-comptroller-session: other"),
    _trailer("harmless", b"X: a"),
    _trailer("without a name", b": a"),
    _trailer("of spaces", b" "),
    Case(
        "chunked body of 5,000 chunks",
        "RFC 9112 §7.1: what a body costs beside its bytes is bounded",
        chunked(b"1\r\na\r\n" * 5_000),
    ),
    Case(
        "chunked body that stops",
        "RFC 9112 §8: an incomplete message is not served",
        chunked(chunk()),
        status=408,
        followed=False,
    ),
    Case(
        "chunked body that stops inside a chunk",
        "RFC 9112 §8: an incomplete message is not served",
        chunked(chunk()[:-5]),
        status=408,
        followed=False,
    ),
)
