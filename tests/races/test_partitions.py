"""Partitions come and go while calls are booked: nobody waits for ever, nothing is lost."""

from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Event

import pytest
from django.db import transaction

from budgets.domain.archive import archive_day
from budgets.domain.rollups import fold_usage
from budgets.domain.usage import Booked, book_usage
from budgets.domain.usagestore import make_partitions, prepare_partitions
from budgets.domain.verify import verify
from budgets.errors import ArchiveBusyError
from budgets.models import UsageArchive, UsageEvent
from enforcement.rules.policy import Mode
from tests.budgets.world import World, amounts, call, make_budget, ms
from tests.races.crowd import PATIENCE_S, apart, at_once

CROWD = 12
# Partitions outlive a test here: each test has days of its own.
DAY, NEXT, THIRD, LAST = (datetime(year, 5, 6, 12, tzinfo=UTC) for year in (2041, 2043, 2045, 2047))
WAIT = timedelta(days=40)


def book(world: World, *starts: datetime, now: datetime) -> Booked:
    events = [call(world, started_at_ms=ms(start)) for start in starts]
    return book_usage(organization_id=world.id, sidecar_id=None, events=events, now=now)


def test_days_made_by_many_bookings_at_once_never_deadlock(world: World) -> None:
    """Each batch needs the same new days, in another order; the daily task makes them, too."""
    budget = make_budget(world, mode=Mode.SOFT, now=DAY - timedelta(days=9))
    days = [DAY + timedelta(days=number) for number in range(8)]
    batches = [days[number:] + days[:number] for number in range(8)] + [days[::-1]] * 4
    bookings = [partial(book, world, *batch, now=DAY + WAIT) for batch in batches]
    makers = [partial(prepare_partitions, now=day) for day in days[:4]]
    results = at_once([*bookings, *makers])
    assert results[: len(bookings)] == [Booked(8, 0)] * CROWD
    assert UsageEvent.objects.count() == 8 * CROWD
    assert amounts(budget) == (1_500 * 8 * CROWD, 0, 0, 0)
    assert verify().holds


def test_a_day_is_made_while_a_booking_has_written_another(world: World) -> None:
    """The booking holds the table while the task attaches to it; then it needs a day itself."""
    written, made = Event(), Event()
    make_partitions([NEXT.date()])

    def hold_a_booking() -> Booked:
        with transaction.atomic():
            book(world, NEXT, now=NEXT + WAIT)
            written.set()
            assert made.wait(PATIENCE_S)
            return book(world, NEXT + timedelta(days=3), now=NEXT + WAIT)

    booking = apart(hold_a_booking)
    assert written.wait(PATIENCE_S)
    days = [(NEXT + timedelta(days=number)).date() for number in (1, 2)]
    assert make_partitions(days) == 2  # without waiting for the booking
    made.set()
    assert booking() == Booked(1, 0)
    assert UsageEvent.objects.count() == 2


def archive(day: date, folder: Path, *, now: datetime) -> UsageArchive | None:
    try:
        return archive_day(day, folder=folder, now=now)
    except ArchiveBusyError:
        return None


def test_an_archive_waits_for_its_turn_while_calls_are_booked(world: World, tmp_path: Path) -> None:
    """A booking has the table, and then wants the day that is being archived: the archive yields."""
    later = THIRD + WAIT
    book(world, THIRD, now=THIRD)
    fold_usage(now=later)
    written, tried = Event(), Event()

    def hold_a_booking() -> Booked:
        with transaction.atomic():
            book(world, later, now=later)
            written.set()
            assert tried.wait(PATIENCE_S)
            return book(world, THIRD, now=later)

    booking = apart(hold_a_booking)
    assert written.wait(PATIENCE_S)
    with pytest.raises(ArchiveBusyError, match="the table is in use"):
        archive_day(THIRD.date(), folder=tmp_path, now=later)
    tried.set()
    assert booking() == Booked(1, 0)
    assert UsageEvent.objects.count() == 3
    fold_usage(now=later + timedelta(minutes=20))
    assert archive_day(THIRD.date(), folder=tmp_path, now=later).events == 2
    assert UsageEvent.objects.count() == 1


def test_late_events_during_an_archive_are_in_one_place(world: World, tmp_path: Path) -> None:
    later = LAST + WAIT
    budget = make_budget(world, mode=Mode.SOFT, now=LAST - timedelta(days=9))
    book(world, LAST, now=LAST)
    fold_usage(now=later)
    bookings = [
        partial(book, world, LAST + timedelta(seconds=number), now=later) for number in range(CROWD)
    ]
    results = at_once(
        [
            *bookings,
            partial(archive, LAST.date(), tmp_path, now=later),
            partial(archive, LAST.date(), tmp_path, now=later),
        ]
    )
    assert results[:CROWD] == [Booked(1, 0)] * CROWD
    fold_usage(now=later + timedelta(minutes=20))
    left = archive(LAST.date(), tmp_path, now=later)
    archived = UsageArchive.objects.get()
    assert left is None or left == archived
    assert archived.events + UsageEvent.objects.count() == CROWD + 1
    assert amounts(budget) == (1_500 * (CROWD + 1), 0, 0, 0)
