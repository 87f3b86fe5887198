"""Reported events as rows: their text cut to the columns, their clock in reason.

Written for tens of thousands a second: ids stay the text that they came as, no model is built, and
an event that needs no mending, as nearly all, is passed on as it is. Rows are told to PostgreSQL as
CSV that is written as JSON, whose encoder is many times faster than any loop over columns.
"""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from budgets.domain.usagecheck import LENGTHS, TAG_LENGTHS, TidyEvent, uuid_text
from enforcement.rules import wire

OLDEST = timedelta(days=366)  # an event that claims to be older has a broken clock behind it
_NAMES = {"agent": "agent_id", "started_at_ms": "started_at", "price_version": "price_version_id"}
_TOLD_APART = ("started_at_ms", "tags", "parts", "price_version")
_AS_THEY_ARE = tuple(name for name in wire.UsageEvent.__struct_fields__ if name not in _TOLD_APART)
# The columns of a row, in the order of `_values`.
COLUMNS = (
    *("organization_id", "team_id", "project_id", "sidecar", "source", "received_at"),
    *(_NAMES.get(name, name) for name in (*_TOLD_APART, *_AS_THEY_ARE)),
)
# How `csv_of` writes: nothing is `null`, and text that is not nothing stands in quotes.
CSV = r"FORMAT csv, NULL 'null', ESCAPE '\'"
AT_ONCE = 64  # lines: what is in the processor's cache is written several times as fast
_as_they_are = attrgetter(*_AS_THEY_ARE)
_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines
_encode_in_order = msgspec.json.Encoder(order="deterministic").encode


class Owner(NamedTuple):
    """Whose call it was: the agent's place when the call is booked."""

    organization_id: str
    team_id: str | None = None
    project_id: str | None = None


def owner_of(organization_id: UUID, team_id: UUID | None, project_id: UUID | None) -> Owner:
    """An owner by ids as models have them."""
    team, project = (str(one) if one else None for one in (team_id, project_id))
    return Owner(str(organization_id), team, project)


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An event that is to be booked, mended, and the start that it is booked under."""

    event: wire.UsageEvent
    owner: Owner
    started_at: datetime
    start: str  # the same as text
    digest: str  # SHA-256 of what it says, in hex
    plain: bool  # its JSON has no backslash: no text of it has a quote or a line's end


def canonical(event: wire.UsageEvent) -> bytes:
    """What an event says as one JSON, whichever way it was written when it came."""
    return _encode_in_order(event)


def digest_of(document: bytes) -> str:
    """SHA-256 of what an event says, in hex."""
    return hashlib.sha256(document).hexdigest()


def mended(event: wire.UsageEvent, *, plain: bool) -> wire.UsageEvent:
    """A checked event as columns can keep it; `plain`: its JSON has no backslash.

    PostgreSQL has no NUL, which JSON writes as an escape; an id has one form.
    """
    if plain and isinstance(event, TidyEvent):
        return event
    cut = {name: text(getattr(event, name), length) for name, length in LENGTHS.items()}
    tags = {text(k, TAG_LENGTHS[0]): text(v, TAG_LENGTHS[1]) for k, v in event.tags.items()}
    ids = {"id": uuid_text(event.id), "agent": uuid_text(event.agent)}
    return msgspec.structs.replace(event, **ids, **cut, tags=tags)


def csv_of(
    entries: Sequence[Entry], *, sidecar: str | None, source: str, received_at: str
) -> Iterable[bytes]:
    """Lines of `COLUMNS` for `COPY … WITH (CSV)`, many in each piece.

    A JSON array is such a line but for its brackets, and for escapes that CSV does not know.
    """
    said = (sidecar, source, received_at)
    for first in range(0, len(entries), AT_ONCE):
        some = entries[first : first + AT_ONCE]
        plain = _encode_lines([_values(entry, said) for entry in some if entry.plain])
        if plain:
            yield plain[1:-2].replace(b"]\n[", b"\n") + b"\n"
        for entry in some:
            if not entry.plain:
                yield ",".join(map(_field, _values(entry, said))).encode() + b"\n"


def _values(entry: Entry, said: tuple[str | None, ...]) -> tuple[Any, ...]:
    """The values of `COLUMNS`; JSON and instants as text."""
    event = entry.event
    return (
        *entry.owner,
        *said,
        entry.start,
        _encode(event.tags).decode() if event.tags else "{}",
        _encode(event.parts).decode() if event.parts else "[]",
        (uuid_text(event.price_version) or None) if event.price_version else None,
        *_as_they_are(event),
    )


def _field(value: str | int | None) -> str:
    """One field of a line, whatever stands in its text."""
    if not isinstance(value, str):
        return _encode(value).decode()
    return '"{}"'.format(value.replace("\\", "\\\\").replace('"', '\\"'))


def text(value: str, length: int) -> str:
    """Text as a column can keep it: PostgreSQL has no NUL."""
    return value.replace("\x00", "\ufffd")[:length]


def instant_of(at_ms: int, *, now: datetime) -> datetime:
    """A sidecar's wall clock, kept within reason: not after its receipt, not from another age."""
    try:
        at = datetime.fromtimestamp(at_ms / 1000, tz=UTC)  # a float is exact to microseconds
    except (OverflowError, ValueError, OSError):
        return now
    return at if now - OLDEST <= at <= now else now
