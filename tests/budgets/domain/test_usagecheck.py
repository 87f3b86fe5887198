"""The decoder knows the bounds of every column, and what it lets through is said as it was."""

import msgspec
import pytest

from budgets.domain.usagecheck import (
    COUNTS,
    LENGTHS,
    MAX_ATTEMPT,
    MAX_COUNT,
    TAG_LENGTHS,
    TidyEvent,
    check_event,
    read_event,
)
from budgets.domain.usagerows import canonical
from budgets.errors import UsageEventError
from enforcement.rules import wire

ID, AGENT = "0198a000-0000-7000-8000-00000000000a", "0198a000-0000-7000-8000-00000000000b"
NAME, VALUE = TAG_LENGTHS
PART = {"budget": "b", "value": "", "lease": "l"}
COUNTED = (*COUNTS, "ttft_ms")


def document(**changes: object) -> bytes:
    said = {"id": ID, "agent": AGENT, "model": "m", "started_at_ms": 0, "outcome": "completed"}
    return msgspec.json.encode(said | changes)


@pytest.mark.parametrize(
    "changes",
    [
        *({name: "é" * length} for name, length in LENGTHS.items()),
        *({name: count} for name in COUNTED for count in (0, MAX_COUNT)),
        {"ttft_ms": None},
        {"attempt": MAX_ATTEMPT},
        {"tags": {"n" * NAME: "v" * VALUE, "é": ""}},
        {"parts": [PART | {"amount": MAX_COUNT}]},
    ],
)
def test_what_fits_is_tidy_and_says_what_it_said(changes: dict[str, object]) -> None:
    read = read_event(document(**changes))
    assert isinstance(read, TidyEvent)
    plain = msgspec.json.decode(document(**changes), type=wire.UsageEvent)
    assert canonical(read) == canonical(plain)
    check_event(read)


@pytest.mark.parametrize(
    "changes",
    [
        *({name: "x" * (length + 1)} for name, length in LENGTHS.items()),
        {"id": ID.upper()},
        {"agent": f"{{{AGENT}}}"},
        {"tags": {"n" * (NAME + 1): "v"}},
        {"tags": {"n": "v" * (VALUE + 1)}},
    ],
)
def test_what_must_be_mended_is_read_and_not_tidy(changes: dict[str, object]) -> None:
    read = read_event(document(**changes))
    assert not isinstance(read, TidyEvent)
    assert msgspec.to_builtins(read).items() >= changes.items()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        *(({name: count}, "62 bits") for name in COUNTED for count in (-1, MAX_COUNT + 1)),
        ({"parts": [PART | {"amount": -1}]}, "62 bits"),
        ({"attempt": -1}, "so often"),
        ({"attempt": MAX_ATTEMPT + 1}, "so often"),
        ({"id": ID + "\n"}, "must be UUIDs"),
        ({"agent": "a"}, "must be UUIDs"),
    ],
)
def test_what_cannot_be_true_is_refused(changes: dict[str, object], why: str) -> None:
    with pytest.raises(UsageEventError, match=why):
        read_event(document(**changes))
