"""Identifiers: UUIDv7 (RFC 9562 §5.7), so that ids sort by the time they were made."""

from uuid import UUID

_RANDOM_BYTES = 10


def uuid7(*, now_ms: int, random_bytes: bytes) -> UUID:
    """Build a UUIDv7 from a wall clock in milliseconds and ten random bytes.

    Raises:
        ValueError: `random_bytes` is not ten bytes long, or `now_ms` does not fit 48 bits.
    """
    return UUID(int=_uuid7_number(now_ms, random_bytes))


def uuid7_text(*, now_ms: int, random_bytes: bytes) -> str:
    """The same in its usual form, without the object between."""
    digits = f"{_uuid7_number(now_ms, random_bytes):032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _uuid7_number(now_ms: int, random_bytes: bytes) -> int:
    if len(random_bytes) != _RANDOM_BYTES:
        raise ValueError(f"uuid7 needs {_RANDOM_BYTES} random bytes, got {len(random_bytes)}")
    if not 0 <= now_ms < 1 << 48:
        raise ValueError(f"uuid7 needs a 48-bit millisecond clock, got {now_ms}")
    tail = int.from_bytes(random_bytes, "big")
    value = now_ms << 80 | 0x7 << 76 | (tail >> 62 & 0xFFF) << 64 | 0b10 << 62
    return value | tail & ((1 << 62) - 1)
