"""Where to? Hosts, targets, routes and methods that go around what is metered."""

from tests.hostile.case import BODY, CHAT, HOST, Case, head, post, target

_HOST = "RFC 9112 §3.2: exactly one valid Host"
_TARGET = "RFC 9112 §3.2: a target that is not plainly one path is another path to somebody"
_ROUTE = "nothing is passed on that is not metered"
_METHOD = "RFC 9110 §15.5.6: a method means what it means there"
_OVERRIDE = "headers that replace the target are not followed: the real one decides"


def _host(name: str, line: bytes) -> Case:
    return Case(f"host {name}", _HOST, post(host=line))


def _target(name: str, path: bytes) -> Case:
    return Case(f"target {name}", _TARGET, target(path))


def _route(path: bytes, method: bytes = b"POST", status: int = 404) -> Case:
    raw = target(path, b"Connection: close", method=method)
    return Case(f"route {method.decode()} {path.decode()}", _ROUTE, raw, status, ends=False)


def _method(method: bytes, path: bytes, status: int = 405) -> Case:
    lines = (b"Connection: close", b"Content-Length: 0")
    raw = head(*lines, first=b"%b %b HTTP/1.1\r\n" % (method, path))
    return Case(f"method {method.decode()} {path.decode()}", _METHOD, raw, status, ends=False)


def _override(line: bytes) -> Case:
    raw = target(b"/v1/files", line, b"Connection: close")
    name = line.partition(b":")[0].decode()
    return Case(f"override by {name}", _OVERRIDE, raw, 404, ends=False)


CASES = (
    _host("missing", b""),
    _host("empty", b"Host:\r\n"),
    _host("twice, equal", HOST * 2),
    _host("twice, different", HOST + b"Host: other\r\n"),
    _host("twice, one in capitals", HOST + b"HOST: node\r\n"),
    _host("with credentials", b"Host: a@node\r\n"),
    _host("with a path", b"Host: node/x\r\n"),
    _host("with a query", b"Host: node?x\r\n"),
    _host("with a fragment", b"Host: node#x\r\n"),
    _host("with a backslash", b"Host: node\\x\r\n"),
    _host("with a scheme", b"Host: http://node\r\n"),
    _host("that is a list", b"Host: a, b\r\n"),
    _host("with a space", b"Host: no de\r\n"),
    _host("with a port above 65535", b"Host: node:99999\r\n"),
    _host("with a port of letters", b"Host: node:http\r\n"),
    _host("with an empty port", b"Host: node:\r\n"),
    _host("with two ports", b"Host: node:80:80\r\n"),
    _host("with a negative port", b"Host: node:-1\r\n"),
    _host("with an open bracket", b"Host: [::1\r\n"),
    _host("with a zone", b"Host: [fe80::1%25eth0]\r\n"),
    _host("with an escape", b"Host: no%64e\r\n"),
    _host("with a quote", b"Host: node'\r\n"),
    _host("outside of ASCII", "Host: nöde\r\n".encode()),
    _host("of 300 letters", b"Host: " + b"a" * 300 + b"\r\n"),
    _host("with a space before the colon", b"Host : node\r\n"),
    _target("absolute, another host", b"http://other" + CHAT),
    _target("absolute, another port", b"http://node:81" + CHAT),
    _target("absolute, with credentials", b"http://u@node" + CHAT),
    _target("absolute, of another scheme", b"file://node" + CHAT),
    _target("absolute, without a host", b"http://" + CHAT),
    _target("absolute, scheme in capitals", b"HTTP://node" + CHAT),
    _target("without a slash", b"v1/chat/completions"),
    _target("of an authority", b"node:80"),
    _target("of an asterisk", b"*"),
    _target("with two slashes", b"/" + CHAT),
    _target("with two slashes inside", b"/v1//chat/completions"),
    _target("with a dot segment", b"/v1/./chat/completions"),
    _target("with a double dot", b"/v1/files/../chat/completions"),
    _target("with a double dot last", CHAT + b"/.."),
    _target("with an escaped dot", b"/v1/files/%2e%2e/chat/completions"),
    _target("with an escaped slash", b"/v1/files/..%2fchat/completions"),
    _target("with a doubly escaped slash", b"/v1/files/..%252fchat/completions"),
    _target("with an overlong escape", b"/v1/files/%c0%ae%c0%ae/chat/completions"),
    _target("with an escaped letter", b"/v1/chat/%63ompletions"),
    _target("with an escaped NUL", CHAT + b"%00"),
    _target("with an escaped CRLF", CHAT + b"%0d%0aX:%20a"),
    _target("with a parameter", b"/v1;a=b/chat/completions"),
    _target("with a parameter last", CHAT + b";a"),
    _target("with a double dot and a parameter", b"/v1/files/..;/chat/completions"),
    _target("with a query", CHAT + b"?model=other"),
    _target("with an empty query", CHAT + b"?"),
    _target("with Anthropic's query on another route", CHAT + b"?beta=true"),
    _target("with more than Anthropic's query", b"/v1/messages?beta=true&model=other"),
    _target("with Anthropic's query twice", b"/v1/messages?beta=true?beta=true"),
    _target("with another value of Anthropic's query", b"/v1/messages?beta=1"),
    _target("with a fragment", CHAT + b"#x"),
    _target("with a backslash", b"/v1\\chat\\completions"),
    _target("with a backslash first", b"\\v1/chat/completions"),
    _target("with a control", b"/v1/\x01"),
    _target("with DEL", CHAT + b"\x7f"),
    _target("outside of ASCII", "/v1/chät".encode()),
    _target("of 9,000 bytes", b"/" + b"a" * 9_000),
    _target("with a space", b"/v1/chat completions"),
    _route(CHAT + b"/"),
    _route(b"/V1/CHAT/COMPLETIONS"),
    _route(b"/v1/chat/Completions"),
    _route(CHAT + b".json"),
    _route(b"/chat/completions"),
    _route(b"/api/v1/chat/completions"),
    _route(b"/v1/files"),
    _route(b"/v1/batches"),
    _route(b"/v1/realtime"),
    _route(b"/v1/realtime/sessions"),
    _route(b"/v1/fine_tuning/jobs"),
    _route(b"/v1/images/generations"),
    _route(b"/v1/audio/speech"),
    _route(b"/v1/assistants"),
    _route(b"/v1/load_lora_adapter"),
    _route(b"/v1/chat/completions/input_tokens"),
    _route(b"/inference/v1/generate"),
    _route(b"/invocations"),
    _route(b"/sleep"),
    _route(b"/slots/0"),
    _route(b"/lora-adapters"),
    _route(b"/api/pull"),
    _route(b"/api/delete"),
    _route(b"/sidecar/v1/sync"),
    _route(b"/admin"),
    _method(b"GET", CHAT),
    _method(b"HEAD", CHAT),
    _method(b"PUT", CHAT),
    _method(b"PATCH", CHAT),
    _method(b"DELETE", CHAT),
    _method(b"OPTIONS", CHAT),
    _method(b"TRACE", CHAT),
    _method(b"PROPFIND", CHAT),
    _method(b"POST", b"/v1/models"),
    _method(b"POST", b"/metrics"),
    _method(b"DELETE", b"/v1/models"),
    Case(
        "method CONNECT",
        "RFC 9110 §9.3.6: no tunnels",
        b"CONNECT node:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    ),
    Case(
        "method override",
        "a method is not replaced by a header",
        head(
            b"X-HTTP-Method-Override: POST",
            b"Content-Length: %d" % len(BODY),
            first=b"GET %b HTTP/1.1\r\n" % CHAT,
        )
        + BODY,
    ),
    _override(b"X-Original-URL: /v1/chat/completions"),
    _override(b"X-Rewrite-URL: /v1/chat/completions"),
    _override(b"X-Forwarded-Path: /v1/chat/completions"),
    _override(b"X-Forwarded-Prefix: /v1/chat/completions"),
)
