"""Old days become Parquet files; a day is in the table or in its archive, never in none."""

import hashlib
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from budgets.domain import archive as archiving
from budgets.domain.archive import _Stream, archive_day, due_days, find_event, read_event
from budgets.domain.rollups import fold_usage
from budgets.domain.usage import Booked, book_usage
from budgets.domain.usagestore import ARCHIVED_AFTER_DAYS, make_partitions
from budgets.errors import ArchiveBusyError, ArchiveError
from budgets.models import UsageArchive, UsageEvent, UsageReceipt, UsageRollup
from enforcement.rules.wire import Part
from enforcement.rules.wire import UsageEvent as WireEvent
from tests.budgets.constraints.attack import refused_by
from tests.budgets.world import World, amounts, call, make_budget, make_world, ms

DAY = date(2031, 5, 6)
NOON = datetime(2031, 5, 6, 12, 0, 0, 123_000, tzinfo=UTC)
LATER = NOON + timedelta(days=40)


def book(world: World, *events: WireEvent, now: datetime = NOON) -> Booked:
    return book_usage(organization_id=world.id, sidecar_id=None, events=events, now=now)


def partitions() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits"
            " WHERE inhparent = 'budgets_usageevent'::regclass"
        )
        return {name for (name,) in cursor.fetchall()}


@pytest.fixture
def events(world: World) -> list[WireEvent]:
    """Two calls of the day: one plain, one with all that CSV could stumble over; and the next day's."""
    odd = call(
        world,
        started_at_ms=ms(NOON),
        session='a"b,c\n\r\\N\ttab; NULL',
        user="",
        tags={"q": 'x"y\\z', "ü": "€ \u2028"},
        parts=[Part("b", "v", "l", 2**62)],
        charge_nanos=2**62,
        ttft_ms=None,
        stream=True,
    )
    plain = call(world, started_at_ms=ms(NOON) - 5, charge_nanos=5, ttft_ms=0)
    tomorrow = call(world, started_at_ms=ms(NOON + timedelta(days=1)))
    book(world, odd, plain)
    book(world, tomorrow, now=NOON + timedelta(days=2))
    fold_usage(now=LATER)
    return [odd, plain, tomorrow]


def test_what_is_due_is_older_than_what_is_kept() -> None:
    assert ARCHIVED_AFTER_DAYS == 35
    with pytest.raises(ArchiveError, match="at least 35 days must be kept, not 34"):
        due_days(keep_days=34, now=NOON)


@pytest.mark.usefixtures("world")
def test_days_are_due_oldest_first() -> None:
    make_partitions([DAY + timedelta(days=1), DAY, DAY + timedelta(days=2)])
    at = NOON + timedelta(days=37)

    def due(keep_days: int) -> list[date]:
        return [day for day in due_days(keep_days=keep_days, now=at) if day >= DAY]

    assert due(35) == [DAY, DAY + timedelta(days=1)]
    assert due(36) == [DAY]
    assert due(37) == []


def test_a_file_says_what_the_table_said(
    world: World, events: list[WireEvent], tmp_path: Path
) -> None:
    stored = list(UsageEvent.objects.filter(started_at__lt=NOON + timedelta(hours=12)).values())
    noted = archive_day(DAY, folder=tmp_path / "new", now=LATER)
    path = tmp_path / "new" / "usage-20310506.parquet"
    content = path.read_bytes()
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert (noted.file, noted.events, noted.size_bytes) == (path.name, 2, len(content))
    assert noted.digest == hashlib.sha256(content).digest()
    rows = parquet.read_table(path).to_pylist()
    assert [row["id"] for row in rows] == [events[1].id, events[0].id]
    for row in rows:
        (said,) = [one for one in stored if str(one["id"]) == row["id"]]
        assert row.keys() == said.keys()
        for name, value in said.items():
            kept = row[name]
            if name in ("tags", "parts"):
                assert json.loads(kept) == value
            elif value is None or isinstance(value, (int, str, datetime)):
                assert kept == value
            else:
                assert kept == str(value)


def test_the_table_lets_go_of_the_day_alone(
    world: World, events: list[WireEvent], tmp_path: Path
) -> None:
    archive_day(DAY, folder=tmp_path, now=LATER)
    assert "budgets_usageevent_20310506" not in partitions()
    assert [str(row.id) for row in UsageEvent.objects.all()] == [events[2].id]
    assert UsageReceipt.objects.count() == 3
    fold_usage(now=LATER + timedelta(minutes=5))
    assert sorted(UsageRollup.objects.values_list("calls", flat=True)) == [1, 2]


def test_an_archived_event_is_found_by_its_id(
    world: World, events: list[WireEvent], tmp_path: Path
) -> None:
    noted = archive_day(DAY, folder=tmp_path, now=LATER)
    odd, _, tomorrow = events
    found = find_event(UsageReceipt.objects.get(id=odd.id).id, organization_id=world.id)
    assert found is not None
    assert (found.archive, found.started_at) == (noted, NOON)
    row = read_event(found, folder=tmp_path)
    assert row is not None
    assert (row["id"], row["session"], row["charge_nanos"]) == (odd.id, odd.session, 2**62)
    there = find_event(UsageReceipt.objects.get(id=tomorrow.id).id, organization_id=world.id)
    assert there is not None
    assert there.archive is None
    assert find_event(found.event_id, organization_id=make_world("other").id) is None
    with pytest.raises(ArchiveError, match=r"elsewhere/usage-20310506\.parquet is not there"):
        read_event(found, folder=tmp_path / "elsewhere")


def test_a_repeat_of_an_archived_event_is_a_duplicate(
    world: World, events: list[WireEvent], tmp_path: Path
) -> None:
    archive_day(DAY, folder=tmp_path, now=LATER)
    assert book(world, events[0], now=LATER) == Booked(0, 1)
    assert UsageEvent.objects.count() == 1


@pytest.mark.usefixtures("events")
def test_a_late_event_of_an_archived_day_counts_when_it_comes(world: World, tmp_path: Path) -> None:
    archive_day(DAY, folder=tmp_path, now=LATER)
    budget = make_budget(world, now=LATER, mode="soft")
    assert book(world, call(world, started_at_ms=ms(NOON)), now=LATER) == Booked(1, 0)
    assert UsageEvent.objects.order_by("-started_at")[0].started_at == LATER
    assert amounts(budget) == (1_500, 0, 0, 0)
    with refused_by("usage_day_archived"):
        make_partitions([DAY])


def test_a_day_that_is_not_folded_stays(
    world: World, events: list[WireEvent], tmp_path: Path
) -> None:
    assert book(world, call(world, started_at_ms=ms(NOON) + 5), now=LATER) == Booked(1, 0)
    with pytest.raises(ArchiveBusyError, match="the rollups do not hold all of 2031-05-06 yet"):
        archive_day(DAY, folder=tmp_path, now=LATER)
    assert UsageEvent.objects.count() == len(events) + 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("events")
def test_a_file_that_differs_drops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that lies: what is read back is another, well-formed file."""
    truth = archiving._write

    def lying(day: date, path: Path) -> int:
        events = truth(day, path)
        table = parquet.read_table(path)
        wrong = table.set_column(
            table.column_names.index("charge_nanos"),
            table.schema.field("charge_nanos"),
            [[7] * table.num_rows],
        )
        parquet.write_table(wrong, path)
        return events

    monkeypatch.setattr(archiving, "_write", lying)
    with pytest.raises(ArchiveError, match="differs from the table"):
        archive_day(DAY, folder=tmp_path, now=LATER)
    assert UsageEvent.objects.count() == 3
    assert not UsageArchive.objects.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("events")
def test_where_no_file_can_be_written_nothing_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchiveError, match="2031-05-06 was not archived"):
        archive_day(DAY, folder=tmp_path / "file", now=LATER)
    assert UsageEvent.objects.count() == 3


def test_a_day_is_archived_once(world: World, events: list[WireEvent], tmp_path: Path) -> None:
    archive_day(DAY, folder=tmp_path, now=LATER)
    with pytest.raises(ArchiveError, match="no events of 2031-05-06 are in the table"):
        archive_day(DAY, folder=tmp_path, now=LATER)


@pytest.mark.usefixtures("world")
def test_an_empty_day_has_an_empty_file(tmp_path: Path) -> None:
    make_partitions([DAY])
    assert archive_day(DAY, folder=tmp_path, now=LATER).events == 0
    assert parquet.read_table(tmp_path / "usage-20310506.parquet").num_rows == 0


class Rows:
    """What psycopg gives: a row at each reading, then nothing."""

    def __init__(self, rows: list[bytes]) -> None:
        self._rows = rows

    def read(self) -> memoryview:
        return memoryview(self._rows.pop(0) if self._rows else b"")


@given(rows=st.lists(st.binary(min_size=1, max_size=9)), sizes=st.lists(st.integers(1, 20)))
def test_blocks_are_cut_anywhere_and_lose_nothing(rows: list[bytes], sizes: list[int]) -> None:
    stream, whole = _Stream(Rows(list(rows))), b"".join(rows)
    at = 0
    for size in sizes:
        assert stream.read(size) == whole[at : at + size]
        at = min(at + size, len(whole))
    assert stream.read() == whole[at:]
