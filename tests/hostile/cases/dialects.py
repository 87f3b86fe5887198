"""Bodies of the other dialects that would cost what nobody has seen, or is written twice."""

import json
from typing import Any

from tests.hostile.case import Case, head

_UNKNOWN = "a field that nobody here knows could change what a call costs"
_LIMIT = "the output limit is a whole number of at least one, said once"
_TWICE = "RFC 8259 §4: of a key said twice engines read the first or the last"
_MORE = "it makes more than its limit, or costs more than its rates"
_HOSTED = "the provider runs it in rounds of its own, which nothing bounds"
_UNMETERED = "it can be neither metered nor ended"
_SHAPE = "what is read in two ways is priced in one"
_ELSEWHERE = "a route that nobody here meters"

_ASKED = [{"role": "user", "content": "hello"}]
_BODIES: dict[str, dict[str, Any]] = {
    "/v1/responses": {"model": "toy", "input": "hello"},
    "/v1/messages": {"model": "toy", "messages": _ASKED, "max_tokens": 1},
    "/v1/messages/count_tokens": {"model": "toy", "messages": _ASKED},
    "/api/chat": {"model": "toy", "messages": _ASKED},
    "/api/generate": {"model": "toy", "prompt": "hello"},
    "/api/embed": {"model": "toy", "input": "hello"},
    "/completion": {"model": "toy", "prompt": "hello"},
}


def _sent(path: str, name: str, why: str, text: bytes, status: int) -> Case:
    lines = (b"Connection: close", b"Content-Length: %d" % len(text))
    raw = head(*lines, first=b"POST %b HTTP/1.1\r\n" % path.encode()) + text
    return Case(f"{path}: {name}", why, raw, status, ends=False)


def _fields(path: str, name: str, why: str, status: int = 400, **fields: Any) -> Case:
    return _sent(path, name, why, json.dumps(_BODIES[path] | fields).encode(), status)


def _twice(path: str, more: str) -> Case:
    text = json.dumps(_BODIES[path])[:-1] + "," + more + "}"
    return _sent(path, f"twice {more}", _TWICE, text.encode(), 400)


def _options(name: str, why: str, **options: Any) -> Case:
    return _fields("/api/chat", name, why, options=options)


_LIMITS = {
    "/v1/responses": "max_output_tokens",
    "/v1/messages": "max_tokens",
    "/completion": "n_predict",
}
_BAD_LIMITS: tuple[Any, ...] = (0, -7, 1.5, "9", True, [9], 10**15)

CASES = (
    *(_fields(path, "an unknown field", _UNKNOWN, surprise=1) for path in _BODIES),
    *(_twice(path, '"model":"other"') for path in _BODIES),
    *(_fields(path, "no model at all", _SHAPE, model=7) for path in _BODIES),
    *(
        _fields(path, f"a limit of {json.dumps(limit)}", _LIMIT, **{field: limit})
        for path, field in _LIMITS.items()
        for limit in _BAD_LIMITS
    ),
    *(
        _options(f"a limit of {json.dumps(limit)}", _LIMIT, num_predict=limit)
        for limit in _BAD_LIMITS
    ),
    _twice("/v1/responses", '"max_output_tokens":1,"max_output_tokens":9'),
    _twice("/v1/messages", '"max_tokens":9'),
    _twice("/completion", '"n_predict":1,"n_predict":9'),
    _twice("/api/chat", '"options":{"num_predict":1,"num_predict":9}'),
    _fields("/completion", "two names for a limit", _LIMIT, n_predict=1, max_tokens=9),
    _fields("/completion", "fields that hide the counts", _UNKNOWN, response_fields=["content"]),
    _fields("/completion", "best of several", _UNKNOWN, best_of=5),
    _fields("/completion", "more answers than any need", _SHAPE, n_cmpl=100_000),
    _fields("/v1/responses", "the limit's other name", _UNKNOWN, max_tokens=9),
    _fields("/v1/responses", "several answers", _UNKNOWN, n=5),
    _fields("/v1/responses", "in the background", _UNMETERED, background=True),
    _fields("/v1/responses", "compaction", _MORE, context_management=[{"type": "compaction"}]),
    _fields("/v1/responses", "moderation by another model", _MORE, moderation={"model": "x"}),
    _fields("/v1/responses", "a hosted search", _HOSTED, 403, tools=[{"type": "web_search"}]),
    _fields("/v1/responses", "a hosted server", _HOSTED, 403, tools=[{"type": "mcp"}]),
    _fields("/v1/responses", "tools that are no list", _SHAPE, tools={"type": "function"}),
    _fields("/v1/responses", "an input that is none", _SHAPE, input=5),
    _fields("/v1/messages", "several answers", _UNKNOWN, n=5),
    _fields("/v1/messages", "fast mode", _MORE, speed="fast"),
    _fields("/v1/messages", "a dearer region", _MORE, inference_geo="us"),
    _fields("/v1/messages", "another tier", _MORE, service_tier="batch"),
    _fields("/v1/messages", "compaction", _MORE, compaction={"type": "auto"}),
    _fields(
        "/v1/messages",
        "compaction as an edit",
        _MORE,
        context_management={"edits": [{"type": "compact_20260112"}]},
    ),
    _fields("/v1/messages", "a container", _HOSTED, container="c"),
    _fields("/v1/messages", "remote servers", _HOSTED, mcp_servers=[{"url": "http://x"}]),
    _fields("/v1/messages", "fallback to other models", _MORE, fallbacks=[{"model": "dear"}]),
    _fields(
        "/v1/messages",
        "a hosted search",
        _HOSTED,
        403,
        tools=[{"type": "web_search_20250305", "name": "web_search"}],
    ),
    _fields("/v1/messages", "no thinking at all", _SHAPE, thinking={"budget_tokens": -1}),
    _fields("/v1/messages", "content that is no text", _SHAPE, messages=[{"content": 5}]),
    _options("an unknown option", _UNKNOWN, surprise=1),
    _options("a window beyond all", _SHAPE, num_ctx=10**15),
    _fields("/api/chat", "a limit outside of the options", _UNKNOWN, num_predict=9),
    _fields("/api/chat", "options that are none", _SHAPE, options=[1]),
    _fields("/api/chat", "tools without names", _SHAPE, tools=[{"type": "function"}]),
    _fields("/api/generate", "images to be made", _UNKNOWN, width=4096, height=4096, steps=50),
    *(
        _sent(path, "not metered", _ELSEWHERE, b'{"model":"toy"}', 404)
        for path in (
            "/api/pull",
            "/api/delete",
            "/api/copy",
            "/api/embeddings",
            "/v1/responses/compact",
            "/v1/messages/batches",
            "/v1/batches",
            "/v1/files",
            "/v1/images/generations",
            "/v1/audio/speech",
            "/infill",
            "/slots/0",
        )
    ),
)
