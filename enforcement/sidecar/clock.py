"""The clocks at the sidecar's edge. Everything below takes `now` as an argument."""

import os
import time
from functools import partial

from enforcement.rules.ids import uuid7_text

_RANDOM_BYTES = 10
_STOCK_BYTES = 4_000  # one call of the system gives bytes for so many

# Counts on while the machine sleeps, so that a lease does not outlive a suspend (L3).
_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

# The book's own clock: never set, never compared with another machine's.
now_ns = partial(time.clock_gettime_ns, _BOOTTIME)


def now_ms() -> int:
    """Wall time, for records and expiry dates only."""
    return time.time_ns() // 1_000_000


class _Stock:
    """Random bytes for ids: unique, not secret."""

    def __init__(self) -> None:
        self.left = b""
        self.at = 0

    def take(self) -> bytes:
        at = self.at
        if at >= len(self.left):
            self.left, at = os.urandom(_STOCK_BYTES), 0
        self.at = at + _RANDOM_BYTES
        return self.left[at : at + _RANDOM_BYTES]

    def drop(self) -> None:
        self.left, self.at = b"", 0


_stock = _Stock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_stock.drop)  # two processes must not make the same ids


def new_id() -> str:
    """A fresh UUIDv7."""
    return uuid7_text(now_ms=now_ms(), random_bytes=_stock.take())
