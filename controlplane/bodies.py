"""How large a request may be: an ASGI shell around Django, which would put any body on disk first.

What is declared too large is refused before a byte of it is read; what turns out to be so, as soon
as it does.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from controlplane.problems import API_PREFIX, CONTENT_TYPE, problem_document

MIB = 1024 * 1024
MOST_FORM_BYTES = 64 * MIB  # with files: an archive of a skill has up to 50 MiB
MOST_BYTES = 16 * MIB  # all else is read into memory

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


async def bounded(application: Application, scope: Scope, receive: Receive, send: Send) -> None:
    """Let the application answer, unless the body is too large: then 413."""
    headers = dict(scope["headers"])
    is_form = headers.get(b"content-type", b"").startswith(b"multipart/form-data")
    most = MOST_FORM_BYTES if is_form else MOST_BYTES
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > most:
        await _refuse(scope, send, most)
        return
    read = 0

    async def counted() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        return {"type": "http.disconnect"} if read > most else message

    await application(scope, counted, send)
    if read > most:
        await _refuse(scope, send, most)


async def _refuse(scope: Scope, send: Send, most: int) -> None:
    words = f"The request has more than {most // MIB} MiB."
    kind, body = "text/plain; charset=utf-8", words
    if scope["path"].startswith(API_PREFIX):
        kind, body = CONTENT_TYPE, json.dumps(problem_document(413, "too-large", words))
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})
