"""Our own answers: refusals in the caller's dialect, and notes inside answers."""

import msgspec

from enforcement.rules.dialects import CHAT, Dialect
from enforcement.rules.frames import is_object
from enforcement.rules.verdicts import (
    INVALID,
    PERMISSION,
    QUOTA,
    RATE,
    UPSTREAM,
    Clamped,
    Cut,
    Refuse,
    clamp_note,
)
from enforcement.sidecar.front import ClientConnection

_encode = msgspec.json.Encoder().encode
MAX_ERROR_BYTES = 1024 * 1024
_OURS_ALONE = (401, 402, 403, 407)  # about our own key, not about the caller's
_CUT_BEFORE = {
    "tool_calls": (402, QUOTA),
    "request_timeout": (504, UPSTREAM),
    "budget_exhausted": (402, QUOTA),
    "budget_held": (429, RATE),
    "unpriced_model": (403, PERMISSION),
    "unbounded_request": (403, PERMISSION),
}
_CALLERS = (400, 404, 408, 409, 413, 422, 429, 503)


def send_refusal(
    connection: ClientConnection, refusal: Refuse, *, request_id: str, dialect: Dialect = CHAT
) -> None:
    """Answer with an error that explains itself, in the dialect of the call."""
    headers = b"x-request-id: %b\r\n" % request_id.encode("ascii")
    if refusal.retry_after_s:
        headers += b"retry-after: %d\r\n" % refusal.retry_after_s
    if refusal.status in (402, 403):
        headers += b"x-should-retry: false\r\n"
    body = bytes(_encode(dialect.refusal_body(refusal, request_id=request_id)))
    connection.respond(refusal.status, body, headers=headers)


def invalid(message: str, *, status: int = 400, code: str = "", param: str = "") -> Refuse:
    """A request that cannot be understood or served as it is."""
    return Refuse(
        status=status, type=INVALID, message=message, code=code or "invalid_request", param=param
    )


def upstream_failed(message: str, *, status: int, code: str) -> Refuse:
    return Refuse(status=status, type=UPSTREAM, message=message, code=code, reason=code)


def passed_status(status: int, body: bytes) -> int:
    """The status under which an engine's refusal is passed on; 0: it is none of the caller's."""
    if not 400 <= status < 600 or status in _OURS_ALONE:
        return 0
    if len(body) > MAX_ERROR_BYTES or not is_object(body):
        return 0
    if status in _CALLERS:
        return status
    return 502 if status >= 500 else 400


def refusal_of_cut(cut: Cut) -> Refuse:
    """What a caller is told whose call was stopped before its answer began."""
    found = (403, PERMISSION) if cut.order else _CUT_BEFORE.get(cut.reason, (502, UPSTREAM))
    status, kind = found
    return Refuse(
        status=status,
        type=kind,
        code=cut.reason,
        reason=cut.reason,
        message=cut.message,
        budget=cut.budget,
        limit=cut.budget.limit if cut.budget is not None else 0,
        retry_after_s=1 if status == 429 else 0,
    )


def note_of(clamped: Clamped, *, request_id: str) -> bytes:
    return bytes(_encode(clamp_note(clamped, request_id=request_id)))
