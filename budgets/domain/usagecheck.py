"""Which reported events can be true, and which of those columns can keep as they are.

Nearly all can, so the decoder looks first: it knows every bound, and tells in C what would take a
dozen comparisons of Python for each event.
"""

import re
from operator import attrgetter
from typing import Annotated, Any, cast
from uuid import UUID

import msgspec

from budgets.errors import UsageEventError
from enforcement.rules import wire

MAX_COUNT = 2**62
MAX_ATTEMPT = 2**31 - 1
LONG, SHORT, SHORTEST = 200, 64, 32  # lengths of columns, in characters
LENGTHS = {
    **dict.fromkeys(("session", "user", "model", "node", "skill", "upstream_id"), LONG),
    **dict.fromkeys(("provider", "endpoint", "finish_reason", "stopped_by"), SHORT),
    "service_tier": SHORTEST,
}
TAG_LENGTHS = (200, 1_000)  # of a name, of a value
COUNTS = (
    *("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens"),
    *("reasoning_tokens", "cache_write_long_tokens", "input_audio_tokens", "input_image_tokens"),
    *("output_audio_tokens", "gpu_ms", "tool_calls", "charge_nanos", "duration_ms"),
)
UUID_FORM = r"\A[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z"  # as it is compared
is_uuid = re.compile(UUID_FORM).match
_counts = attrgetter(*COUNTS)


def check_event(event: wire.UsageEvent) -> None:
    """Refuse what no sidecar of ours says, before the database must.

    Raises:
        UsageEventError: it cannot be true.
    """
    if not uuid_text(event.id) or not uuid_text(event.agent):
        raise UsageEventError(event.id, "ids must be UUIDs")
    counts = (*_counts(event), event.ttft_ms or 0, *[part.amount for part in event.parts])
    if min(counts) < 0 or max(counts) > MAX_COUNT:
        raise UsageEventError(event.id, "a count is negative or beyond 62 bits")
    if not 0 <= event.attempt <= MAX_ATTEMPT:
        raise UsageEventError(event.id, "no call is tried so often")


def uuid_text(said: str) -> str:
    """An id in the one form that is compared and stored; empty if it is none."""
    if is_uuid(said):
        return said
    try:
        return str(UUID(said))
    except ValueError:
        return ""


def read_event(document: bytes | msgspec.Raw) -> wire.UsageEvent:
    """An event as it was said: a `TidyEvent` if columns can keep it as it is, but for a NUL.

    Raises:
        msgspec.MsgspecError, UnicodeDecodeError, RecursionError: it cannot be read.
        UsageEventError: it cannot be true.
    """
    try:
        return _read_tidy(document)
    except msgspec.ValidationError:
        event = _read(document)
    check_event(event)
    return event


# ------------------------------------------------------------------------------ as it is decoded


_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
_Id = Annotated[str, msgspec.Meta(pattern=UUID_FORM)]


class _Part(wire.Part, frozen=True, gc=False):
    amount: _Count


def _text(length: int) -> Any:
    return Annotated[str, msgspec.Meta(max_length=length)]


_BOUNDS: dict[str, Any] = {
    **{name: _text(length) for name, length in LENGTHS.items()},
    **dict.fromkeys(COUNTS, _Count),
    **dict.fromkeys(("id", "agent"), _Id),
    "ttft_ms": _Count | None,
    "attempt": Annotated[int, msgspec.Meta(ge=0, le=MAX_ATTEMPT)],
    "tags": dict.__class_getitem__(tuple(map(_text, TAG_LENGTHS))),
    "parts": list[_Part],
}


def _bounded(field: msgspec.structs.FieldInfo) -> tuple[Any, ...]:
    bounds = _BOUNDS[field.name]
    if field.required:
        return field.name, bounds
    if field.default_factory is not msgspec.NODEFAULT:
        return field.name, bounds, msgspec.field(default_factory=field.default_factory)
    return field.name, bounds, field.default


TidyEvent = cast(
    "type[wire.UsageEvent]",
    msgspec.defstruct(
        "TidyEvent",
        [_bounded(one) for one in msgspec.structs.fields(wire.UsageEvent) if one.name in _BOUNDS],
        bases=(wire.UsageEvent,),
        frozen=True,
        gc=False,
        omit_defaults=True,
    ),
)
_read_tidy = msgspec.json.Decoder(TidyEvent).decode
_read = msgspec.json.Decoder(wire.UsageEvent).decode
