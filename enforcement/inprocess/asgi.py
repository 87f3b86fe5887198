"""The types of ASGI, and a request's head out of a scope.

Source: the ASGI specification 3.0, HTTP & WebSocket message format 2.3.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from enforcement.sidecar.http1 import HttpError, RequestHead, parse_request_head

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_CACHED_HEADS = 256


class Heads:
    """Heads as strict as the sidecar's: written anew and parsed by the same parser.

    Clients repeat theirs byte for byte, so the last ones are kept.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, RequestHead] = {}

    def of(self, scope: Scope) -> RequestHead:
        """The head of a request.

        Raises:
            HttpError: it is malformed, ambiguous or not supported.
        """
        raw = _written(scope)
        head = self._known.get(raw)
        if head is None:
            head = parse_request_head(raw)
            if len(self._known) >= MAX_CACHED_HEADS:
                self._known.clear()
            self._known[raw] = head
        return head


def path_of(scope: Scope) -> str:
    """The path below the prefix under which the server is mounted."""
    path: str = scope["path"]
    prefix: str = scope.get("root_path") or ""
    return path[len(prefix) :] if prefix and path.startswith(prefix + "/") else path


def _written(scope: Scope) -> bytes:
    target: bytes = scope.get("raw_path") or scope["path"].encode()
    prefix = (scope.get("root_path") or "").encode()
    if prefix and target.startswith(prefix + b"/"):
        target = target[len(prefix) :]
    if scope.get("query_string"):
        target += b"?" + scope["query_string"]
    lines = [b"%b: %b" % (name, value) for name, value in scope["headers"]]
    if any(b"\r" in line or b"\n" in line for line in lines):
        raise HttpError("bare CR or LF in the head")
    return b"%b %b HTTP/1.1\r\n%b\r\n\r\n" % (
        scope["method"].encode(),
        target,
        b"\r\n".join(lines),
    )
