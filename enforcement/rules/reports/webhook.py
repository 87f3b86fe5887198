"""Usage out of JSON of any shape: which field stands where is said by JSON pointers (RFC 6901).

Without a mapping a document has the names of `FIELDS` itself. `items` points to the list of calls
in a body; without it a body is one call, or a list of them.

Instants are RFC 3339 texts or Unix times; a number above 10¹¹ is taken as milliseconds.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from math import isfinite
from typing import Any

import msgspec

from enforcement.rules.reports.call import (
    MAX_DURATION_MS,
    MAX_NAME,
    MAX_TAGS,
    ReportedCall,
    ReportError,
    Source,
    address_of,
    count_of,
    provider_of,
    text_of,
    token_usage,
)
from enforcement.rules.wire import Outcome

ITEMS = "items"
FIELDS = (
    "id",
    "agent",
    "model",
    "provider",
    "started_at",
    "duration_ms",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "service_tier",
    "session",
    "user",
    "node",
    "endpoint",
    "response_id",
    "url",
    "finish_reason",
    "failed",
    "sidecar_event",
    "tags",
)
MAX_POINTER = 500
MAX_STEPS = 32
_SECONDS_END = 10**11  # the year 5138 as seconds, March 1973 as milliseconds


class Mapped:
    """Where each field of a call stands in a document."""

    def __init__(self, pointers: Mapping[str, str]) -> None:
        """Raises ReportError: an unknown field, or no JSON pointer."""
        unknown = sorted(set(pointers) - {ITEMS, *FIELDS})
        if unknown:
            raise ReportError(f"unknown field {unknown[0][:MAX_NAME]!r}")
        self._steps = {name: _steps(name, pointer) for name, pointer in pointers.items()}

    def documents(self, body: bytes) -> list[Any]:
        """The calls of a body.

        Raises:
            ReportError: no JSON, or no list where `items` points.
        """
        try:
            whole = msgspec.json.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ReportError(f"no JSON: {error}") from error
        if ITEMS not in self._steps:
            return whole if isinstance(whole, list) else [whole]
        found = _walk(whole, self._steps[ITEMS])
        if not isinstance(found, list):
            raise ReportError("there is no list where `items` points")
        return found

    def call(self, document: Any) -> ReportedCall | None:
        """The call that a document tells of; None if it tells of no tokens.

        Raises:
            ReportError: it names no call or model, or tells of what cannot be true.
        """
        counts = {name: self._find(document, name) for name in FIELDS if name.endswith("_tokens")}
        if all(value is None for value in counts.values()):
            return None
        tokens = {name: count_of(value or 0, name) for name, value in counts.items()}
        text = {name: text_of(self._find(document, name)) for name in FIELDS if name != "tags"}
        if not text["id"] or not text["model"]:
            raise ReportError("a document with tokens names no id, or no model")
        return ReportedCall(
            source=Source.WEBHOOK,
            key=text["id"],
            model=text["model"],
            started_at_ms=_instant_ms(self._find(document, "started_at")),
            usage=token_usage(
                input_tokens=tokens["input_tokens"],
                output_tokens=tokens["output_tokens"],
                cached=tokens["cached_input_tokens"],
                written=tokens["cache_write_tokens"],
                reasoning=tokens["reasoning_tokens"],
                tier=text["service_tier"],
            ),
            agents=(text["agent"],) if text["agent"] else (),
            provider=provider_of(text["provider"]),
            endpoint=text["endpoint"][:64],
            session=text["session"],
            user=text["user"],
            node=text["node"],
            outcome=(
                Outcome.UPSTREAM_FAILED
                if self._find(document, "failed") is True
                else Outcome.COMPLETED
            ),
            duration_ms=_duration_ms(self._find(document, "duration_ms")),
            finish_reason=text["finish_reason"][:64],
            response_id=text["response_id"],
            address=address_of(text["url"]),
            sidecar_event=text["sidecar_event"],
            tags=_tags(self._find(document, "tags")),
        )

    def _find(self, document: Any, name: str) -> Any:
        return _walk(document, self._steps.get(name, (name,)))


def _steps(name: str, pointer: str) -> tuple[str, ...]:
    if len(pointer) > MAX_POINTER or (pointer and not pointer.startswith("/")):
        raise ReportError(f"{name}: no JSON pointer")
    steps = pointer.split("/")[1:]
    if len(steps) > MAX_STEPS:
        raise ReportError(f"{name}: more than {MAX_STEPS} steps deep")
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in steps)


def _walk(document: Any, steps: tuple[str, ...]) -> Any:
    for step in steps:
        if isinstance(document, dict):
            document = document.get(step)
        elif isinstance(document, list) and step.isascii() and step.isdigit() and len(step) < 6:
            place = int(step)
            document = document[place] if place < len(document) else None
        else:
            return None
    return document


def _instant_ms(given: Any) -> int:
    """Unix milliseconds; 0 where nothing is said.

    Raises:
        ReportError: it is no instant.
    """
    if given is None:
        return 0
    if isinstance(given, str):
        try:
            at = datetime.fromisoformat(given)
        except ValueError:
            raise ReportError("started_at is no RFC 3339 instant") from None
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        try:
            return max(0, int(at.timestamp() * 1000))
        except (OverflowError, ValueError):
            return 0
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not isfinite(given):
        raise ReportError("started_at is no instant")
    if not 0 <= given < 2**53:
        return 0
    return int(given * 1000) if given < _SECONDS_END else int(given)


def _duration_ms(given: Any) -> int:
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not isfinite(given):
        return 0
    return int(given) if 0 <= given <= MAX_DURATION_MS else 0


def _tags(given: Any) -> dict[str, str]:
    if not isinstance(given, dict):
        return {}
    pairs = [(str(name)[:MAX_NAME], text_of(value)) for name, value in given.items()]
    return dict(pairs[:MAX_TAGS])
