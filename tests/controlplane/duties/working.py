"""The program's own Celery app with one more duty, whose begins and ends stand in a table, and
tasks that end badly.

`celery -A tests.controlplane.duties.working:app worker|beat`. `DIARY_WORK_S` is how long a turn
takes, `DIARY_EVERY_S` how often it is due, `DIARY_DIES` that it kills its process;
`VISIBILITY_TIMEOUT_S` when Valkey gives a message to somebody else.
"""

import contextlib
import os
import signal
import time
from datetime import timedelta

from celery.exceptions import SoftTimeLimitExceeded

from controlplane.celery import CRITICAL_QUEUE, DUTIES, QUEUE_OF, app
from tests.controlplane.duties.diary import NAME

DUTIES.clear()
DUTIES[NAME] = timedelta(seconds=float(os.environ.get("DIARY_EVERY_S", "2")))
QUEUE_OF[NAME] = CRITICAL_QUEUE
if "VISIBILITY_TIMEOUT_S" in os.environ:
    app.conf.broker_transport_options = {
        "visibility_timeout": float(os.environ["VISIBILITY_TIMEOUT_S"]),
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    }


@app.task(name=NAME, ignore_result=True, soft_time_limit=20, time_limit=30)  # type: ignore[untyped-decorator]
def diary() -> None:
    """One turn: a row when it begins; its end is written when it is over."""
    _write_and_work()
    if "DIARY_DIES" in os.environ:
        die()


@app.task(name="tests.note", ignore_result=True)  # type: ignore[untyped-decorator]
def note() -> None:
    """The same, and nobody's duty: it is done as often as it is delivered."""
    _write_and_work()


@app.task(name="tests.die", ignore_result=True)  # type: ignore[untyped-decorator]
def die() -> None:
    """As the kernel ends what has too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="tests.hang", ignore_result=True, soft_time_limit=1, time_limit=2)  # type: ignore[untyped-decorator]
def hang() -> None:
    """Deaf to the soft limit, as code that waits inside a library is."""
    with contextlib.suppress(SoftTimeLimitExceeded):
        time.sleep(60)
    time.sleep(60)


@app.task(name="tests.scrape", ignore_result=True)  # type: ignore[untyped-decorator]
def scrape() -> None:
    """A serving node that accepts and says nothing."""
    time.sleep(40)


def _write_and_work() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO tests_diary (pid) VALUES (%s) RETURNING id", [os.getpid()])
        (row,) = cursor.fetchone()
        time.sleep(float(os.environ.get("DIARY_WORK_S", "0.2")))
        cursor.execute("UPDATE tests_diary SET ended_at = clock_timestamp() WHERE id = %s", [row])
