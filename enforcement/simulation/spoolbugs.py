"""Bugs of the spool: what only a torn write, a failed one, a failed sync or a rotten bit shows."""

from random import Random

from enforcement.rules import records
from enforcement.rules.lots import Hold
from enforcement.rules.spoolframes import Frame, scan
from enforcement.simulation.disk import Disk
from enforcement.simulation.engine import Request
from enforcement.simulation.sidecar import Sidecar


class KeepsTornTails(Disk):
    def _read(self) -> tuple[list[Frame], int]:
        frames, _ = super()._read()
        return frames, len(self.data)


class TornTailsStay(Sidecar):
    disk_type = KeepsTornTails


class LeavesPieces(Disk):
    def retry(self) -> bool:
        if self._unwritten and self.fails:
            self.data += self._unwritten[0][:5]
        return super().retry()


class FailedWritesLeavePieces(Sidecar):
    disk_type = LeavesPieces


class DropsWhatFails(Disk):
    def retry(self) -> bool:
        if self.fails:
            self._unwritten.clear()
        return super().retry()


class FailedWritesAreDropped(Sidecar):
    disk_type = DropsWhatFails


class NeverLooks(Disk):
    def _note_failed_sync(self) -> None:
        """The answer of fdatasync is not looked at."""


class IgnoresFailedSyncs(Sidecar):
    disk_type = NeverLooks


class ReadsAround(Disk):
    def _read(self) -> tuple[list[Frame], int]:
        frames, at = scan(self.data)
        while at < len(self.data):
            more, length = scan(self.data[at:])
            frames += more
            at += max(1, length)
        return frames, len(self.data)

    def finals(self) -> set[str]:
        said = (records.decode(frame.payload) for frame in self._read()[0])
        return {record.lease for record in said if isinstance(record, records.Final)}

    def rot(self, chance: Random) -> bool:
        return len(self._read()[0]) > 1 and super().rot(chance)


class ReadsAroundDamage(Sidecar):
    disk_type = ReadsAround


class GoesOnUnwritten(Sidecar):
    @property
    def listens(self) -> bool:
        alive = self.up and not self.paused
        return alive and self.book.policy_is_fresh(now_ns=self.now_ns)

    def _begin(self, request: Request, hold: Hold) -> None:
        self._write()
        self._forward(request, hold)


class ForwardsBeforeItWrites(Sidecar):
    def _begin(self, request: Request, hold: Hold) -> None:
        self._forward(request, hold)
        self._write()
