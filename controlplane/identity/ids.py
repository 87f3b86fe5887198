"""New identifiers for rows: where the clock and the random source meet the pure rule."""

import os
import time
from uuid import UUID

from enforcement.rules.ids import uuid7, uuid7_text

_NS_PER_MS = 1_000_000
_FRACTION_BITS = 12
_RANDOM_BITS = 62
_RANDOM_BYTES = 8
_STOCK = 512

_stock: list[bytes] = []  # of random bytes: the kernel is asked once for many ids
os.register_at_fork(after_in_child=_stock.clear)


def _random_bits() -> int:
    """Bits that nobody else is given: taking from the end of a list is one step for all threads."""
    while True:
        try:
            return int.from_bytes(_stock.pop(), "big") >> (_RANDOM_BYTES * 8 - _RANDOM_BITS)
        except IndexError:
            fresh = os.urandom(_STOCK * _RANDOM_BYTES)
            _stock.extend(fresh[i : i + _RANDOM_BYTES] for i in range(0, len(fresh), _RANDOM_BYTES))


def new_id() -> UUID:
    """A UUIDv7 of now: the default of every primary key.

    The twelve bits behind the millisecond hold its fraction (RFC 9562 §6.2, method 3), so that
    ids that one process makes within a millisecond sort as they were made; lists are sorted by id.
    """
    now_ms, tail = _moment()
    return uuid7(now_ms=now_ms, random_bytes=tail)


def new_id_text() -> str:
    """The same as text, for those who make thousands a second and need no object."""
    now_ms, tail = _moment()
    return uuid7_text(now_ms=now_ms, random_bytes=tail)


def _moment() -> tuple[int, bytes]:
    now_ms, rest_ns = divmod(time.time_ns(), _NS_PER_MS)
    fraction = (rest_ns << _FRACTION_BITS) // _NS_PER_MS
    tail = fraction << _RANDOM_BITS | _random_bits()
    return now_ms, tail.to_bytes(10, "big")
