"""What workers have written into the diary, and waiting for it."""

import time
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from django.db import connection

from tests.controlplane.duties.conftest import Company

NAME = "tests.diary"  # the duty that writes it, in the app of the workers alone
WITHIN_S = 60
QUEUES = ("critical", "comptroller", "scrape")


class Line(NamedTuple):
    pid: int
    began_at: datetime
    ended_at: datetime | None


def lines() -> list[Line]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pid, began_at, ended_at FROM tests_diary ORDER BY id")
        return [Line(*row) for row in cursor.fetchall()]


def ended() -> list[Line]:
    return [line for line in lines() if line.ended_at is not None]


def wait_for(condition: Callable[[], bool], company: Company) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, company.logs()
        time.sleep(0.1)


def no_two_at_once(seen: list[Line]) -> bool:
    return all(a.ended_at is None or a.ended_at <= b.began_at for a, b in pairwise(seen))
