"""Turns in the database: claimed once, done once, given up after five attempts."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from controlplane.celery import app
from controlplane.duties import tasks
from controlplane.duties.domain.rules import MOST_ATTEMPTS
from controlplane.duties.domain.turns import Turn, claim_due, database_now, take_turn, unsend
from controlplane.duties.models import Duty

NOW = datetime(2026, 5, 13, 10, 30, tzinfo=UTC)
S = timedelta(seconds=1)
EVERY = 10 * S
SCHEDULE = {"sweep": EVERY}


@pytest.fixture
def duty(db: None) -> Duty:
    return Duty.objects.create(name="sweep", due_at=NOW)


def take(work: list[int], *, at: datetime = NOW) -> Turn:
    return take_turn("sweep", lambda: work.append(1), every=EVERY, now=at)


@pytest.mark.django_db
def test_the_first_scan_makes_the_rows_and_later_ones_leave_them() -> None:
    assert claim_due(SCHEDULE, now=NOW) == []
    first = Duty.objects.get()
    assert NOW <= first.due_at < NOW + 10 * S
    claim_due(SCHEDULE, now=NOW)
    assert Duty.objects.get().due_at == first.due_at


def test_a_turn_is_claimed_by_one_scan_until_its_worker_does_not_come(duty: Duty) -> None:
    assert claim_due(SCHEDULE, now=NOW - S) == []
    assert claim_due(SCHEDULE, now=NOW) == ["sweep"]
    assert claim_due(SCHEDULE, now=NOW + 9 * S) == []
    assert claim_due(SCHEDULE, now=NOW + 10 * S) == ["sweep"]


def test_what_the_broker_did_not_take_is_sent_again(duty: Duty) -> None:
    claim_due(SCHEDULE, now=NOW)
    unsend("sweep")
    assert claim_due(SCHEDULE, now=NOW) == ["sweep"]


def test_duties_that_nobody_has_any_more_are_not_claimed(duty: Duty) -> None:
    Duty.objects.create(name="of an older version", due_at=NOW)
    assert claim_due(SCHEDULE, now=NOW) == ["sweep"]


def test_a_turn_is_done_once_however_often_somebody_is_woken(duty: Duty) -> None:
    done: list[int] = []
    turns = [take(done) for _ in range(3)]
    assert (turns, len(done)) == ([Turn.DONE, Turn.NOT_DUE, Turn.NOT_DUE], 1)
    duty.refresh_from_db()
    assert (duty.runs, duty.failures, duty.attempts, duty.sent_at) == (1, 0, 0, None)
    assert duty.due_at == NOW + EVERY
    assert take(done, at=NOW + EVERY) is Turn.DONE


@pytest.mark.parametrize("ahead", [timedelta(hours=-1), timedelta(hours=1)])
def test_a_worker_whose_clock_is_wrong_does_each_turn_at_its_time(
    db: None, monkeypatch: pytest.MonkeyPatch, ahead: timedelta
) -> None:
    app.loader.import_default_modules()
    right = database_now()
    monkeypatch.setattr(timezone, "now", lambda: right + ahead)
    due = Duty.objects.create(name="identity.beat", due_at=right)
    early = Duty.objects.create(name="identity.sweep", due_at=right + 60 * S)
    for name in ("identity.beat", "identity.beat", "identity.sweep"):
        tasks.perform(duty=name)
    due.refresh_from_db()
    early.refresh_from_db()
    assert (due.runs, early.runs) == (1, 0)
    assert right + 9 * S < due.due_at < right + 20 * S


def test_of_long_duties_one_is_done_at_a_time_and_short_ones_beside_it(
    transactional_db: None,
) -> None:
    for name in ("audit", "report", "sweep"):
        Duty.objects.create(name=name, due_at=NOW)
    turns: list[Turn] = []

    def elsewhere() -> None:
        """Another worker, with a database session of its own."""
        turns.append(take_turn("report", list, every=EVERY, now=NOW, is_long=True))
        turns.append(take_turn("sweep", list, every=EVERY, now=NOW))
        connection.close()

    def audit() -> None:
        other = threading.Thread(target=elsewhere)
        other.start()
        other.join()

    take_turn("audit", audit, every=EVERY, now=NOW, is_long=True)
    assert turns == [Turn.BUSY, Turn.DONE]
    assert take_turn("report", list, every=EVERY, now=NOW, is_long=True) is Turn.DONE


def test_of_a_duty_without_a_row_nothing_is_done(db: None) -> None:
    done: list[int] = []
    assert (take(done), done) == (Turn.NOT_DUE, [])


def test_a_failure_is_booked_told_and_begins_anew(duty: Duty) -> None:
    with pytest.raises(ZeroDivisionError):
        take_turn("sweep", lambda: 1 // 0, every=EVERY, now=NOW)
    duty.refresh_from_db()
    assert (duty.runs, duty.failures, duty.attempts, duty.sent_at) == (1, 1, 1, None)
    assert NOW + 2 * S <= duty.due_at < NOW + 3 * S
    done: list[int] = []
    assert take(done, at=duty.due_at) is Turn.DONE
    duty.refresh_from_db()
    assert (duty.runs, duty.failures, duty.attempts) == (2, 1, 0)


def test_the_fifth_failure_ends_the_turn_and_the_next_has_its_time(duty: Duty) -> None:
    at = NOW
    for _ in range(MOST_ATTEMPTS):
        with pytest.raises(ZeroDivisionError):
            take_turn("sweep", lambda: 1 // 0, every=EVERY, now=at)
        duty.refresh_from_db()
        last, at = at, duty.due_at
    assert duty.attempts == 0
    assert last < duty.due_at <= last + EVERY + S


def test_a_turn_that_kills_each_worker_is_given_up(duty: Duty) -> None:
    """Nobody could book those ends: only the attempts are counted, before each begin."""
    Duty.objects.update(attempts=MOST_ATTEMPTS)
    done: list[int] = []
    assert (take(done), done) == (Turn.GIVEN_UP, [])
    duty.refresh_from_db()
    assert (duty.attempts, duty.due_at) == (0, NOW + EVERY)


@pytest.fixture
def busy(transactional_db: None) -> Iterator[threading.Event]:
    """Another session is at the duty until the event is set."""
    Duty.objects.create(name="sweep", due_at=NOW)
    began, end = threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        assert end.wait(20)

    def other() -> None:
        try:
            take_turn("sweep", work, every=EVERY, now=NOW)
        finally:
            connection.close()

    thread = threading.Thread(target=other)
    thread.start()
    assert began.wait(20)
    yield end
    end.set()
    thread.join(20)


def test_while_one_is_at_it_others_leave(busy: threading.Event) -> None:
    done: list[int] = []
    assert (take(done), done) == (Turn.BUSY, [])
    assert claim_due({"another": EVERY}, now=NOW) == []  # its rows are not locked


@pytest.mark.parametrize(
    "change",
    ["name = ''", "attempts = -1", "failures = 1", "busy_ms = -1", "last_ms = -1"],
)
def test_the_database_refuses_what_cannot_be(duty: Duty, change: str) -> None:
    with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE duties_duty SET {change}")
