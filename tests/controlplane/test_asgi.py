"""The web process. Its lease protocol is tested over real HTTP in tests/enforcement."""

import asyncio
from typing import Any


def ask(path: str) -> tuple[int, dict[str, str]]:
    from controlplane.asgi import application

    sent: list[Any] = []
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"testserver")],
        "client": ("192.0.2.1", 1),
        "server": ("testserver", 80),
    }
    arrived = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Any:
        try:
            return next(arrived)
        except StopIteration:
            await asyncio.sleep(60)  # the client waits for its answer

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(application(scope, receive, send))
    headers = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers


def test_pages_and_api_are_djangos() -> None:
    status, headers = ask("/healthz")
    assert status == 200
    assert "content-security-policy" in headers
