"""Bytes of our own answers: refusals, the last event of a cut stream, notes inside answers."""

from typing import Any

import msgspec

from enforcement.rules.requests import Endpoint
from enforcement.rules.verdicts import (
    INVALID,
    UPSTREAM,
    Clamped,
    Cut,
    Refuse,
    clamp_note,
    cut_note,
    refusal_body,
)
from enforcement.sidecar.front import ClientConnection

_encode = msgspec.json.Encoder().encode
DONE = b"data: [DONE]\n\n"


def send_refusal(connection: ClientConnection, refusal: Refuse, *, request_id: str) -> None:
    """Answer with an error that explains itself."""
    headers = b"x-request-id: %b\r\n" % request_id.encode("ascii")
    if refusal.retry_after_s:
        headers += b"retry-after: %d\r\n" % refusal.retry_after_s
    if refusal.status in (402, 403):
        headers += b"x-should-retry: false\r\n"
    body = bytes(_encode(refusal_body(refusal, request_id=request_id)))
    connection.respond(refusal.status, body, headers=headers)


def invalid(message: str, *, status: int = 400, code: str = "", param: str = "") -> Refuse:
    """A request that cannot be understood or served as it is."""
    return Refuse(
        status=status, type=INVALID, message=message, code=code or "invalid_request", param=param
    )


def upstream_failed(message: str, *, status: int, code: str) -> Refuse:
    return Refuse(status=status, type=UPSTREAM, message=message, code=code, reason=code)


def cut_events(
    cut: Cut,
    *,
    endpoint: Endpoint,
    named: tuple[str, str, int],
    request_id: str,
    output_tokens: int,
    usage: dict[str, int] | None,
) -> bytes:
    """The end of a stream that is cut: a well-formed last event, then `[DONE]`."""
    answer_id, model, created = named
    chat = endpoint is Endpoint.CHAT
    choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
    if chat:
        choice["delta"] = {}
    else:
        choice |= {"text": "", "logprobs": None}
    event: dict[str, Any] = {
        "id": answer_id or f"chatcmpl-{request_id}",
        "object": "chat.completion.chunk" if chat else "text_completion",
        "created": created,
        "model": model,
        "choices": [choice],
        "comptroller": cut_note(cut, request_id=request_id, output_tokens=output_tokens),
    }
    if usage is not None:
        event["usage"] = usage
    return b"data: %b\n\n%b" % (_encode(event), DONE)


def error_events(refusal: Refuse, *, request_id: str) -> bytes:
    """The end of a stream whose upstream failed: an error event, then `[DONE]`."""
    return b"data: %b\n\n%b" % (_encode(refusal_body(refusal, request_id=request_id)), DONE)


def note_of(clamped: Clamped, *, request_id: str) -> bytes:
    return bytes(_encode(clamp_note(clamped, request_id=request_id)))


def with_note(body: bytes, note: bytes) -> bytes:
    """A JSON object with a `comptroller` field behind its own."""
    end = body.rstrip()
    return b'%b,"comptroller":%b}' % (end[:-1], note) if end.endswith(b"}") else body
