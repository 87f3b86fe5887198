"""A simulated spool: production frames on a disk that tears, fails, fills up and rots.

1. What was written survives the death of the process; what was synced that of the machine.
2. A write that fails leaves nothing behind: a piece of a record is cut off again. The record waits
   in memory, and everything after it, in order.
3. After a failed sync the kernel has dropped what it could not write: at the next death it is gone.
"""

from random import Random

from enforcement.rules import records
from enforcement.rules.spoolframes import RECORD, Frame, check_sequences, framed, scan, whole_frames


class Disk:
    """A spool directory and the journal that is open on it."""

    def __init__(self, spool: str) -> None:
        self.spool = spool
        self.data = b""
        self.durable = 0  # how many bytes are on stable storage
        self.sequence = 0
        self.fails = False  # writes do, with what the system calls EIO or ENOSPC
        self.sync_fails = False
        self.sync_failed = False  # in this life
        self.marked = False  # a sync failed, says a file beside the journal
        self.dropped_from: int | None = None  # what the kernel could not write is gone behind this
        self._unwritten: list[bytes] = []

    # ------------------------------------------------------------------ a life of the journal

    def open(self) -> list[records.Record]:
        """What the journal says, a torn tail cut.

        Raises:
            DamageError: it is damaged elsewhere.
        """
        self._unwritten.clear()
        self.sync_failed = False
        frames, good = self._read()
        self.data = self.data[:good]
        self.durable = min(self.durable, good)
        self.sequence = frames[-1].sequence if frames else 0
        return [records.decode(frame.payload) for frame in frames]

    def _read(self) -> tuple[list[Frame], int]:
        frames, good = whole_frames(self.data, newest=True)
        check_sequences(frames)
        return frames, good

    @property
    def accepts_holds(self) -> bool:
        return not self._unwritten

    def append(self, found: list[records.Record]) -> bool:
        """Write records as one piece; False: they wait in memory."""
        pieces = []
        for record in found:
            self.sequence += 1
            pieces.append(framed(self.sequence, RECORD, records.encode(record)))
        found.clear()
        self._unwritten += pieces
        return self.retry()

    def retry(self) -> bool:
        """Write what waits; whether nothing waits any more."""
        if self._unwritten and not self.fails:
            self.data += b"".join(self._unwritten)
            self._unwritten.clear()
        return not self._unwritten

    def sync(self, upto: int) -> bool:
        """`fdatasync` of so many bytes. After a failure the tail is never trusted again."""
        if self.sync_fails:
            self.sync_fails = False
            self.dropped_from = self.durable
            self._note_failed_sync()
        elif not self.sync_failed:
            self.durable = max(self.durable, upto)
        return not self.sync_failed

    def _note_failed_sync(self) -> None:
        self.sync_failed = self.marked = True

    def trust_again(self) -> None:
        """What recovery decided is durable: a failure of before is accounted for."""
        if self.marked and not self._unwritten and self.sync(len(self.data)):
            self.marked = False

    # ------------------------------------------------------------------ what happens to it

    def die(self, chance: Random, *, power: bool) -> bool:
        """The process dies, or the machine; whether bytes are lost."""
        keep = len(self.data)
        if power:
            self.sync_fails = False
            keep = chance.randint(self.durable, len(self.data))
        elif self.dropped_from is not None:
            keep = chance.randint(min(self.dropped_from, keep), keep)
        self.dropped_from = None
        lost = keep < len(self.data)
        self.data = self.data[:keep]
        self.durable = min(self.durable, keep)
        return lost

    def tear(self, found: list[records.Record], chance: Random) -> None:
        """The process dies within a write: a piece of it is there."""
        pieces = [
            framed(self.sequence + number, RECORD, records.encode(record))
            for number, record in enumerate(found, start=1)
        ]
        whole = b"".join(pieces)
        if not self._unwritten and not self.fails:
            self.data += whole[: chance.randrange(len(whole))]

    def finals(self) -> set[str]:
        """The leases of which the journal says that they are over."""
        frames, _ = whole_frames(self.data, newest=True)
        said = (records.decode(frame.payload) for frame in frames)
        return {record.lease for record in said if isinstance(record, records.Final)}

    def rot(self, chance: Random) -> bool:
        """A bit flips before the last record; False if there is no such place."""
        frames, good = scan(self.data)  # it may be rotten already
        if len(frames) < 2:
            return False
        last = len(framed(frames[-1].sequence, RECORD, frames[-1].payload))
        at = chance.randrange(good - last)
        flipped = bytes([self.data[at] ^ (1 << chance.randrange(8))])
        self.data = self.data[:at] + flipped + self.data[at + 1 :]
        return True
