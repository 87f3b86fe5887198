"""Frames of a spool: how records lie on disk, and what is left of them after a crash.

1. A record is `length · crc32 · sequence · kind · payload`; sequences have no gaps.
2. A torn tail is cut: what it was to say has had no effect. Damage before a good frame is no torn
   tail: then the whole spool is given up, for what is lost may not be spent again.

Sans-IO: bytes in, frames out.
"""

import struct
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

HEADER = struct.Struct("<IIQc")
_CHECK, _SAID = struct.Struct("<II"), struct.Struct("<Qc")  # its halves: what is checked is behind
MAX_RECORD = 16 * 1024 * 1024
TORN_BYTES = 1024 * 1024  # one write is never longer: what is damaged further back is no torn tail

RECORD = b"R"  # a record of the book
ACKED = b"U"  # payload: all events up to this sequence have arrived
BEGIN = b"B"  # a segment starts: what follows restates the whole book
END = b"E"  # the restatement is complete, older segments may go


class DamageError(Exception):
    """A spool says what cannot be: it is put aside whole. The sentence says where."""


class Frame(NamedTuple):
    sequence: int
    kind: bytes
    payload: bytes


def framed(sequence: int, kind: bytes, payload: bytes) -> bytes:
    """A record as it lies on disk."""
    said = _SAID.pack(sequence, kind) + payload
    return _CHECK.pack(len(payload), zlib.crc32(said)) + said


def whole_frames(data: bytes, *, newest: bool) -> tuple[list[Frame], int]:
    """The good frames of a segment, and how many bytes they take: the rest is a torn tail.

    Raises:
        DamageError: it is no torn tail, or this is not the segment that was last written to.
    """
    frames, good = scan(data)
    if good < len(data) and (not newest or _has_frame_behind(data, good)):
        raise DamageError(f"damaged at byte {good}")
    return frames, good


def check_sequences(frames: Sequence[Frame]) -> None:
    """Raises DamageError where a record is missing."""
    for before, after in pairwise(frames):
        if after.sequence != before.sequence + 1:
            raise DamageError(f"record {before.sequence} is followed by {after.sequence}")


def _frame_at(data: bytes, at: int) -> tuple[Frame, int] | None:
    """The frame that starts at a position, and where it ends; None if there is no good one."""
    if at + HEADER.size > len(data):
        return None
    length, checksum, sequence, kind = HEADER.unpack_from(data, at)
    end = at + HEADER.size + length
    if length > MAX_RECORD or end > len(data) or kind not in (RECORD, ACKED, BEGIN, END):
        return None
    body = data[at + 8 : end]
    if zlib.crc32(body) != checksum:
        return None
    return Frame(sequence, kind, data[at + HEADER.size : end]), end


def scan(data: bytes) -> tuple[list[Frame], int]:
    """All good frames from the start, and where the first bad byte is."""
    frames: list[Frame] = []
    at = 0
    while (found := _frame_at(data, at)) is not None:
        frame, at = found
        frames.append(frame)
    return frames, at


def _has_frame_behind(data: bytes, bad: int) -> bool:
    """Whether a good frame follows the damage: then it is no torn tail."""
    last = min(len(data) - HEADER.size, bad + TORN_BYTES)
    return any(_frame_at(data, at) is not None for at in range(bad + 1, last + 1))
