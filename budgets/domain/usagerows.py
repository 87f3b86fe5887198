"""Reported events as rows: their text cut to the columns, their clock in reason.

Written for tens of thousands a second: ids stay the text that they came as, no model is built, and
an event that needs no mending, as nearly all, is passed on as it is.
"""

import re
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from enforcement.rules import wire
from enforcement.rules.windows import EPOCH

OLDEST = timedelta(days=366)  # an event that claims to be older has a broken clock behind it
LONG, SHORT, SHORTEST = 200, 64, 32  # lengths of columns, in characters
LENGTHS = {
    **dict.fromkeys(("session", "user", "model", "node", "skill", "upstream_id"), LONG),
    **dict.fromkeys(("provider", "endpoint", "finish_reason", "stopped_by"), SHORT),
    "service_tier": SHORTEST,
}
TAG_LENGTHS = (200, 1_000)  # of a name, of a value
_IS_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch
_FIELDS = wire.UsageEvent.__struct_fields__
_NAMES = {"agent": "agent_id", "started_at_ms": "started_at", "price_version": "price_version_id"}
# The columns of a row, in the order of `columns_of`.
COLUMNS = (
    *("organization_id", "team_id", "project_id", "sidecar", "source", "received_at"),
    *(_NAMES.get(name, name) for name in _FIELDS),
)
_STARTED, _OUTCOME, _TAGS, _PRICE, _PARTS = map(
    COLUMNS.index, ("started_at", "outcome", "tags", "price_version_id", "parts")
)
_long, _short = (
    attrgetter(*[name for name in LENGTHS if LENGTHS[name] == length]) for length in (LONG, SHORT)
)
_encode = msgspec.json.Encoder().encode
_encode_in_order = msgspec.json.Encoder(order="deterministic").encode


class Owner(NamedTuple):
    """Whose call it was: the agent's place when the call is booked."""

    organization_id: str
    team_id: str | None = None
    project_id: str | None = None


class Entry(NamedTuple):
    """An event that is to be booked, mended, with the start that it is booked under."""

    event: wire.UsageEvent
    owner: Owner
    started_at: datetime


def canonical(event: wire.UsageEvent) -> bytes:
    """What an event says as one JSON, whichever way it was written when it came."""
    return _encode_in_order(event)


def mended(event: wire.UsageEvent, document: bytes) -> wire.UsageEvent:
    """A checked event as columns can keep it; `document`: its canonical JSON.

    PostgreSQL has no NUL, which JSON writes as an escape; an id has one form.
    """
    if (
        b"\\u0000" not in document
        and _IS_UUID(event.id)
        and _IS_UUID(event.agent)
        and max(map(len, _long(event))) <= LONG
        and max(map(len, _short(event))) <= SHORT
        and len(event.service_tier) <= SHORTEST
        and (not event.tags or _fit(event.tags))
    ):
        return event
    cut = {name: text(getattr(event, name), length) for name, length in LENGTHS.items()}
    tags = {text(k, TAG_LENGTHS[0]): text(v, TAG_LENGTHS[1]) for k, v in event.tags.items()}
    ids = {"id": uuid_text(event.id), "agent": uuid_text(event.agent)}
    return msgspec.structs.replace(event, **ids, **cut, tags=tags)


def _fit(tags: dict[str, str]) -> bool:
    return max(map(len, tags)) <= TAG_LENGTHS[0] and max(map(len, tags.values())) <= TAG_LENGTHS[1]


def columns_of(entry: Entry, *, sidecar: str | None, source: str, received_at: str) -> list[Any]:
    """The values of `COLUMNS`; JSON and instants as text."""
    event = entry.event
    values = [*entry.owner, sidecar, source, received_at, *msgspec.structs.astuple(event)]
    values[_STARTED] = str(entry.started_at)
    values[_OUTCOME] = event.outcome.value
    values[_TAGS] = _encode(event.tags).decode()
    values[_PRICE] = uuid_text(event.price_version) or None if event.price_version else None
    values[_PARTS] = _encode(event.parts).decode()
    return values


def text(value: str, length: int) -> str:
    """Text as a column can keep it: PostgreSQL has no NUL."""
    return value.replace("\x00", "\ufffd")[:length]


def instant_of(at_ms: int, *, now: datetime) -> datetime:
    """A sidecar's wall clock, kept within reason: not after its receipt, not from another age."""
    try:
        at = EPOCH + timedelta(milliseconds=at_ms)
    except OverflowError:
        return now
    return at if now - OLDEST <= at <= now else now


def uuid_text(said: str) -> str:
    """An id in the one form that is compared and stored; empty if it is none."""
    if _IS_UUID(said):
        return said
    try:
        return str(UUID(said))
    except ValueError:
        return ""
