"""New identifiers for rows: where the clock and the random source meet the pure rule."""

import secrets
import time
from uuid import UUID

from enforcement.rules.ids import uuid7

_NS_PER_MS = 1_000_000
_FRACTION_BITS = 12
_RANDOM_BITS = 62


def new_id() -> UUID:
    """A UUIDv7 of now: the default of every primary key.

    The twelve bits behind the millisecond hold its fraction (RFC 9562 §6.2, method 3), so that
    ids that one process makes within a millisecond sort as they were made; lists are sorted by id.
    """
    now_ms, rest_ns = divmod(time.time_ns(), _NS_PER_MS)
    fraction = (rest_ns << _FRACTION_BITS) // _NS_PER_MS
    tail = fraction << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
    return uuid7(now_ms=now_ms, random_bytes=tail.to_bytes(10, "big"))
