"""The spool after damage: what is read is what was written, in order, or it is quarantined."""

import random
import tempfile
from pathlib import Path

import msgspec

from enforcement.rules import records
from enforcement.rules.spoolframes import RECORD, framed, scan
from enforcement.sidecar.journal import Journal
from tests.fuzz.target import Target, require

_RECORDS: tuple[records.Record, ...] = (
    records.Booted(1, "incarnation-1", "boot-1"),
    records.Granted("lease-1", "budget-1", "", 0, 1_000),
    records.Held(1, [("lease-1", 100)]),
    records.Settled(1, [("lease-1", 60)]),
    records.Returned("lease-1", 940),
    records.Final("lease-1"),
    records.Acknowledged("lease-1", 5),
    records.Closed(),
)
_FRAMES = tuple(
    framed(number, RECORD, records.encode(record)) for number, record in enumerate(_RECORDS, 1)
)
_WHOLE = b"".join(_FRAMES)
_SEEDS = (_WHOLE, _WHOLE * 2, *(b"".join(_FRAMES[:count]) for count in range(1, len(_FRAMES))))
_WORDS = (*_FRAMES, b"\x00" * 17, b"\xff" * 17, b"R", b"U", b"B", b"E", _FRAMES[0][:9])
_OPENED_SHARE = 0.02  # of the inputs, the rest are only scanned: a spool syncs its directory


def check(data: bytes, dice: random.Random) -> str:
    frames, good = scan(data)
    again = b"".join(framed(frame.sequence, frame.kind, frame.payload) for frame in frames)
    require(again == data[:good], "what was read is not what stands there")
    for frame in frames:
        try:
            records.decode(frame.payload)
        except (msgspec.MsgspecError, ValueError):
            require(frame.kind != RECORD or frame.payload not in _WHOLE, "a record is unreadable")
    if dice.random() < _OPENED_SHARE:
        return _opened(data)
    return "whole" if good == len(data) else "damaged"


def _opened(data: bytes) -> str:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "spool").write_text("6d3c1c5e-8b0f-4e3e-9d53-0c3d1e2f4a5b\n")
        (directory / "journal-00000001.log").write_bytes(data)
        journal = Journal(directory, quota_bytes=1 << 20, segment_bytes=1 << 20)
        found = journal.open().frames
        quarantined = list(directory.glob("quarantine-*"))
        steps = [frame.sequence - found[0].sequence for frame in found]
        require(steps == list(range(len(found))), f"a gap: {steps}")
        require(not (quarantined and found), "read from what is in quarantine")
        require(journal.append([(RECORD, records.encode(records.Closed()))]), "cannot go on")
        journal.close()
        reopened = Journal(directory, quota_bytes=1 << 20, segment_bytes=1 << 20)
        require(reopened.open().frames[: len(found)] == found, "another reading after a restart")
        reopened.close()
    return "opened: quarantined" if quarantined else "opened: read"


TARGET = Target(
    "journal",
    "no exception; records are read in order and as written, else the spool is put aside",
    _SEEDS,
    _WORDS,
    check,
)
