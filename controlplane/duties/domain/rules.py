"""When a duty is due, when a worker is woken for it again, and when it is given up. Pure.

A turn is one execution that is due. It begins anew until it succeeds, at most `MOST_ATTEMPTS`
times; then the next turn comes at its own time.
"""

import hashlib
from datetime import datetime, timedelta

MOST_ATTEMPTS = 5
TICK = timedelta(seconds=1)  # between two scans
SLACK = TICK / 2  # a scan that comes a little early finds what is due now
SOONEST_AGAIN = timedelta(seconds=5)
LATEST_AGAIN = timedelta(seconds=60)
FIRST_WITHIN = timedelta(seconds=10)
# A message says by its sender's clock when it is worth nothing, and the worker looks at its own.
CLOCKS_APART = timedelta(seconds=60)


def first_due(name: str, *, every: timedelta, now: datetime) -> datetime:
    """The first turn of a new duty: soon, and not all of them at once."""
    share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    return now + min(every, FIRST_WITHIN) * share // 2**32


def is_due(due_at: datetime, *, every: timedelta, now: datetime) -> bool:
    """Also if it seems far too early: then the clock was set back."""
    return due_at <= now + SLACK or due_at > now + every + TICK


def again_after(every: timedelta) -> timedelta:
    """How long a worker has before another is woken for the same turn."""
    return min(LATEST_AGAIN, max(SOONEST_AGAIN, every))


def keep_message(every: timedelta) -> timedelta:
    """How long the message that wakes a worker may wait. One that comes too late does nothing."""
    return again_after(every) + CLOCKS_APART


def is_on_its_way(sent_at: datetime | None, *, every: timedelta, now: datetime) -> bool:
    """A worker was woken, and may still come."""
    return sent_at is not None and -TICK < now - sent_at < again_after(every)


def next_due(due_at: datetime, *, every: timedelta, now: datetime) -> datetime:
    """The turn after one that is over. What was missed is not made up for."""
    planned = due_at + every
    return planned if now < planned <= now + every else now + every


def retry_at(attempts: int, *, every: timedelta, now: datetime) -> datetime:
    """After an attempt that failed: later each time, never later than the next turn."""
    return now + min(every, timedelta(seconds=2**attempts))
