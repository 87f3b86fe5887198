"""The clocks at the sidecar's edge. Everything below takes `now` as an argument."""

import os
import time

from enforcement.rules.ids import uuid7

# Counts on while the machine sleeps, so that a lease does not outlive a suspend (L3).
_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now_ns() -> int:
    """The book's own clock: never set, never compared with another machine's."""
    return time.clock_gettime_ns(_BOOTTIME)


def now_ms() -> int:
    """Wall time, for records and expiry dates only."""
    return time.time_ns() // 1_000_000


def new_id() -> str:
    """A fresh UUIDv7."""
    return str(uuid7(now_ms=now_ms(), random_bytes=os.urandom(10)))
