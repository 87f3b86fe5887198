"""New identifiers for rows: where the clock and the random source meet the pure rule."""

import secrets
import time
from uuid import UUID

from enforcement.rules.ids import uuid7


def new_id() -> UUID:
    """A UUIDv7 of now: the default of every primary key."""
    return uuid7(now_ms=time.time_ns() // 1_000_000, random_bytes=secrets.token_bytes(10))
