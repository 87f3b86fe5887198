"""A reported event becomes a row: mended only where it must be."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from django.db.models import CharField
from hypothesis import given
from hypothesis import strategies as st

from budgets.domain.usagecheck import LENGTHS, read_event, uuid_text
from budgets.domain.usagerows import COLUMNS, OLDEST, canonical, instant_of, mended
from budgets.models import UsageEvent
from enforcement.rules import wire
from enforcement.rules.windows import EPOCH
from enforcement.rules.wire import Outcome

NOW = datetime(2031, 5, 6, 10, 0, tzinfo=UTC)
ID, AGENT = "0198a000-0000-7000-8000-00000000000a", "0198a000-0000-7000-8000-00000000000b"
FIELDS = {field.attname: field for field in UsageEvent._meta.concrete_fields}


def event(**changes: object) -> wire.UsageEvent:
    said = {"id": ID, "agent": AGENT, "model": "m", "started_at_ms": 0, "outcome": "completed"}
    read: wire.UsageEvent = msgspec.convert(said | changes, wire.UsageEvent)
    return read


def test_a_row_has_every_column_of_the_table_once() -> None:
    assert sorted(COLUMNS) == sorted(FIELDS)


def test_text_is_cut_to_the_columns() -> None:
    kept = {name for name, field in FIELDS.items() if isinstance(field, CharField)} - {
        "outcome",
        "source",
    }
    assert {name: FIELDS[name].max_length for name in kept} == LENGTHS
    said = event(**dict.fromkeys(LENGTHS, "x" * 300))
    row = mended(said, plain=True)
    assert {name: len(getattr(row, name)) for name in LENGTHS} == LENGTHS


def test_what_needs_no_mending_is_passed_on() -> None:
    said = event(
        session="x" * 200, provider="y" * 64, service_tier="z" * 32, tags={"a": "b" * 1000}
    )
    read = read_event(canonical(said))
    assert mended(read, plain=True) is read


@pytest.mark.parametrize(
    ("changes", "name", "kept"),
    [
        ({"model": "a\x00b"}, "model", "a\ufffdb"),
        ({"model": "a\\u0000b"}, "model", "a\\u0000b"),  # six characters, no NUL
        ({"tags": {"k" * 201: "v" * 1001}}, "tags", {"k" * 200: "v" * 1000}),
        ({"tags": {"k": "\x00"}}, "tags", {"k": "\ufffd"}),
        ({"id": ID.upper()}, "id", ID),
        ({"agent": AGENT.replace("-", "")}, "agent", AGENT),
    ],
)
def test_the_rest_is_mended(changes: dict[str, object], name: str, kept: object) -> None:
    said = event(**changes)
    row = mended(said, plain=b"\\" not in canonical(said))
    assert getattr(row, name) == kept
    assert row.outcome is Outcome.COMPLETED


def test_one_id_has_one_form() -> None:
    assert uuid_text(f"{{{ID.upper()}}}") == ID
    assert uuid_text("x") == ""
    assert uuid_text("") == ""


@pytest.mark.parametrize("at_ms", [-(10**30), -1, 10**15, 10**30])
def test_an_absurd_clock_is_replaced(at_ms: int) -> None:
    assert instant_of(at_ms, now=NOW) == NOW


@given(ago=st.timedeltas(min_value=timedelta(0), max_value=OLDEST))
def test_a_millisecond_is_kept(ago: timedelta) -> None:
    at_ms = (NOW - ago - EPOCH) // timedelta(milliseconds=1)
    at = EPOCH + timedelta(milliseconds=at_ms)
    assert instant_of(at_ms, now=NOW) == (at if at >= NOW - OLDEST else NOW)
