"""Turns of duties: who is woken for them, and who does them, once.

`claim_due` is the scan: rows are claimed with SKIP LOCKED, so any number of beats and scans wake
one worker for a turn. `take_turn` is the worker's side: an advisory lock of the database session
lets one of them in, and the due time tells whether the turn is over already. The lock dies with
its worker, so a turn that was killed begins anew as soon as somebody is woken.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import cast

from django.db import connection, transaction
from django.db.models import F

from controlplane.duties.domain import rules
from controlplane.duties.domain.letters import bury, recover
from controlplane.duties.domain.parcels import EMPTY, KILLED, words_of
from controlplane.duties.models import Duty

_LOCK_SPACE = 0x64757479  # "duty": keeps our advisory locks apart from others'
_LONG = "long"  # no task has a name without a dot


class Turn(StrEnum):
    """What became of being woken."""

    DONE = "done"
    NOT_DUE = "not due"  # done already: a duplicate, or a message that was late
    BUSY = "busy"  # somebody is at it, or at another long one
    GIVEN_UP = "given up"  # begun too often without an end


def database_now() -> datetime:
    """The one clock that decides what is due: those of workers differ."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        ((now,),) = cursor.fetchall()
    return cast("datetime", now)


def claim_due(schedule: Mapping[str, timedelta], *, now: datetime) -> list[str]:
    """The duties for which a worker is to be woken now, each told to one caller only."""
    with transaction.atomic():
        rows = _rows_to_send(schedule, now)
        if rows:
            Duty.objects.filter(pk__in=rows).update(sent_at=now)
    return rows


def _rows_to_send(schedule: Mapping[str, timedelta], now: datetime) -> list[str]:
    known = Duty.objects.filter(pk__in=schedule)
    rows = list(known.select_for_update(skip_locked=True).order_by("name"))
    if len(rows) < len(schedule):
        _make_missing(schedule, now)
    return [
        row.name
        for row in rows
        if rules.is_due(row.due_at, every=schedule[row.name], now=now)
        and not rules.is_on_its_way(row.sent_at, every=schedule[row.name], now=now)
    ]


def _make_missing(schedule: Mapping[str, timedelta], now: datetime) -> None:
    """Rows of new duties. Those that another scan holds exist, and stay as they are."""
    missing = set(schedule) - set(Duty.objects.filter(pk__in=schedule).values_list("pk", flat=True))
    Duty.objects.bulk_create(
        [
            Duty(name=name, due_at=rules.first_due(name, every=schedule[name], now=now))
            for name in sorted(missing)
        ],
        ignore_conflicts=True,
    )


def unsend(name: str) -> None:
    """The broker did not take the message: the next scan tries again."""
    Duty.objects.filter(pk=name).update(sent_at=None)


def take_turn(
    name: str, work: Callable[[], object], *, every: timedelta, now: datetime, is_long: bool = False
) -> Turn:
    """Do what is due, unless it is done or somebody is at it. Of long duties one is done at a time,
    so that they never hold every worker.

    Raises whatever `work` raises, after it was booked: it begins anew a little later.
    """
    with _alone(name, *((_LONG,) if is_long else ())) as alone:
        if not alone:
            return Turn.BUSY
        duty = Duty.objects.filter(pk=name).first()
        if duty is None or not rules.is_due(duty.due_at, every=every, now=now):
            return Turn.NOT_DUE
        if duty.attempts >= rules.MOST_ATTEMPTS:
            _give_up(duty, KILLED, every=every, now=now)
            return Turn.GIVEN_UP
        duty.attempts += 1
        Duty.objects.filter(pk=name).update(attempts=duty.attempts, started_at=now)
        _work(duty, work, every=every, now=now)
        return Turn.DONE


def _work(duty: Duty, work: Callable[[], object], *, every: timedelta, now: datetime) -> None:
    began = time.monotonic()
    try:
        work()
    except Exception as error:
        took = _since(began)
        _count(duty, took, failed=True)
        if duty.attempts >= rules.MOST_ATTEMPTS:
            _give_up(duty, words_of(error), every=every, now=now + took)
        else:
            later = rules.retry_at(duty.attempts, every=every, now=now + took)
            Duty.objects.filter(pk=duty.pk).update(due_at=later, sent_at=None)
        raise
    took = _since(began)
    _count(duty, took, failed=False)
    _end(duty, every=every, now=now + took)
    recover(duty.name, now=now + took)


def _since(began_s: float) -> timedelta:
    return timedelta(seconds=time.monotonic() - began_s)


def _count(duty: Duty, took: timedelta, *, failed: bool) -> None:
    took_ms = took // timedelta(milliseconds=1)
    Duty.objects.filter(pk=duty.pk).update(
        runs=F("runs") + 1,
        failures=F("failures") + int(failed),
        busy_ms=F("busy_ms") + took_ms,
        last_ms=took_ms,
    )


def _give_up(duty: Duty, error: str, *, every: timedelta, now: datetime) -> None:
    """Nothing more in this turn; people can read why."""
    bury(duty.name, EMPTY, error=error, attempts=duty.attempts, now=now)
    _end(duty, every=every, now=now)


def _end(duty: Duty, *, every: timedelta, now: datetime) -> None:
    """This turn is over; the next has its time."""
    Duty.objects.filter(pk=duty.pk).update(
        due_at=rules.next_due(duty.due_at, every=every, now=now), sent_at=None, attempts=0
    )


@contextlib.contextmanager
def _alone(*names: str) -> Iterator[bool]:
    """Hold these for this database session, which frees them however it ends."""
    with contextlib.ExitStack() as held:
        yield all(held.enter_context(_held(name)) for name in names)


@contextlib.contextmanager
def _held(name: str) -> Iterator[bool]:
    got = _ask("SELECT pg_try_advisory_lock(%s, hashtext(%s))", name)
    try:
        yield got
    finally:
        if got:
            _ask("SELECT pg_advisory_unlock(%s, hashtext(%s))", name)


def _ask(query: str, name: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(query, [_LOCK_SPACE, name])
        ((answer,),) = cursor.fetchall()
    return bool(answer)
