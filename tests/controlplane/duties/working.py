"""The program's own Celery app with one more duty, whose begins and ends stand in a table.

`celery -A tests.controlplane.duties.working:app worker|beat`. `DIARY_WORK_S` is how long a turn
takes, `DIARY_EVERY_S` how often it is due.
"""

import os
import time
from datetime import timedelta

from controlplane.celery import DUTIES, app

NAME = "tests.diary"
DUTIES.clear()
DUTIES[NAME] = timedelta(seconds=float(os.environ.get("DIARY_EVERY_S", "2")))


@app.task(name=NAME, ignore_result=True, soft_time_limit=20, time_limit=30)  # type: ignore[untyped-decorator]
def diary() -> None:
    """One turn: a row when it begins; its end is written when it is over."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO tests_diary (pid) VALUES (%s) RETURNING id", [os.getpid()])
        (row,) = cursor.fetchone()
        time.sleep(float(os.environ.get("DIARY_WORK_S", "0.2")))
        cursor.execute("UPDATE tests_diary SET ended_at = clock_timestamp() WHERE id = %s", [row])
