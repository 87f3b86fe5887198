"""The spool: an append-only journal on disk with an identity of its own.

1. How records lie on disk is `enforcement.rules.spoolframes`.
2. `append` returns after `write()`: a killed process loses nothing. `sync` makes the tail
   survive the death of the machine.
3. A torn tail is cut. Damage before the tail quarantines the whole spool: a new identity starts,
   for what is lost may not be spent again.
4. A full disk keeps what it could not write in memory, in order, and refuses new holds; one
   tenth of the quota is kept for records that end holds.
5. One process owns a spool: it holds a lock on it for its whole life.
6. Only ids and numbers are written, readable by the owner alone.
"""

import fcntl
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from enforcement.rules import records
from enforcement.rules.spoolframes import (
    BEGIN,
    END,
    RECORD,
    DamageError,
    Frame,
    check_sequences,
    framed,
    whole_frames,
)

MODE = 0o600


class SpoolError(Exception):
    """The spool cannot be used; the sentence says why."""


class SpoolTakenError(SpoolError):
    """Another process owns the spool."""


class Found(NamedTuple):
    """What a spool holds when it is opened."""

    frames: list[Frame]
    distrust: bool  # a sync failed in its last life: the tail may be missing


class Journal:
    """The open spool of one book."""

    def __init__(self, directory: Path, *, quota_bytes: int, segment_bytes: int) -> None:
        self.directory = directory
        self.quota_bytes = quota_bytes
        self.segment_bytes = segment_bytes
        self.sequence = 0
        self.sync_failed = False
        self.written = 0  # bytes in the current segment
        self._unwritten: list[bytes] = []
        self._older_bytes = 0
        self._descriptor = -1
        self._number = 0
        self._lock = self._open_directory()
        self.spool = self._identity()

    # ------------------------------------------------------------------ opening

    def _open_directory(self) -> int:
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
        except OSError as error:
            raise SpoolError(f"{self.directory}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise SpoolTakenError(f"{self.directory}: another sidecar uses this spool") from error
        return lock

    def _identity(self) -> str:
        path = self.directory / "spool"
        try:
            return str(UUID(path.read_text().strip()))
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            raise SpoolError(f"{path}: unreadable identity: {error}") from error
        if self._segments():
            raise SpoolError(f"{path}: missing beside a journal; move the journal away")
        return self._new_identity(path)

    def _new_identity(self, path: Path) -> str:
        spool = str(UUID(bytes=os.urandom(16), version=4))
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
            try:
                os.write(descriptor, spool.encode() + b"\n")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self._sync_directory()
        except OSError as error:
            raise SpoolError(f"{path}: {error.strerror}") from error
        return spool

    def open(self) -> Found:
        """Read what is there, cut a torn tail, and get ready to append."""
        distrust = (self.directory / "sync-failed").exists()
        segments = self._segments()
        try:
            frames = self._read(segments)
        except SpoolError:
            self._quarantine()
            frames, segments = [], []
        self.sequence = frames[-1].sequence if frames else 0
        self._number = segments[-1][0] if segments else 1
        self._open_segment(self._number)
        self._older_bytes = sum(path.stat().st_size for _, path in segments[:-1])
        return Found(frames, distrust)

    def _segments(self) -> list[tuple[int, Path]]:
        found = []
        for path in self.directory.glob("journal-*.log"):
            number = path.stem.removeprefix("journal-")
            if number.isdigit():
                found.append((int(number), path))
        return sorted(found)

    def _path(self, number: int) -> Path:
        return self.directory / f"journal-{number:08d}.log"

    def _open_segment(self, number: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            self._descriptor = os.open(self._path(number), flags, MODE)
            self.written = os.fstat(self._descriptor).st_size
            self._sync_directory()
        except OSError as error:
            raise SpoolError(f"{self._path(number)}: {error.strerror}") from error
        self._number = number

    def _read(self, segments: list[tuple[int, Path]]) -> list[Frame]:
        """The frames since the last complete restatement.

        A restatement that was not finished is dropped: the segment before it goes on.
        """
        pieces: list[list[Frame]] = []
        for position, (_, path) in enumerate(reversed(segments)):
            frames = _read_segment(path, newest=position == 0)
            if frames and frames[0].kind == BEGIN:
                if any(frame.kind == END for frame in frames):
                    pieces.append(frames)
                    break
                if position > 0:
                    raise SpoolError(f"{path}: incomplete restatement")
                os.truncate(path, 0)
                continue
            pieces.append(frames)
        found = [frame for frames in reversed(pieces) for frame in frames]
        try:
            check_sequences(found)
        except DamageError as error:
            raise SpoolError(f"{self.directory}: {error}") from error
        return found

    def _quarantine(self) -> None:
        """Put a damaged journal aside, whole, and go on under a new identity."""
        aside = self.directory / f"quarantine-{self.spool}"
        aside.mkdir(mode=0o700, exist_ok=True)
        for _, path in self._segments():
            path.rename(aside / path.name)
        (self.directory / "spool").rename(aside / "spool")
        self.spool = self._new_identity(self.directory / "spool")

    # ------------------------------------------------------------------ appending

    @property
    def accepts_holds(self) -> bool:
        """Whether new holds may be written: all is on disk, and the reserve is untouched."""
        return not self._unwritten and self.total_bytes < self.quota_bytes * 9 // 10

    @property
    def total_bytes(self) -> int:
        return self._older_bytes + self.written

    @property
    def full(self) -> bool:
        """Whether the segment should be restated."""
        return self.written >= self.segment_bytes

    def append(self, items: Iterable[tuple[bytes, bytes]]) -> bool:
        """Write records as one piece. False: they wait in memory, and `retry` tries again."""
        pieces = []
        for kind, payload in items:
            self.sequence += 1
            pieces.append(framed(self.sequence, kind, payload))
        return self._append(pieces)

    def _append(self, pieces: list[bytes]) -> bool:
        if self._unwritten:
            self._unwritten += pieces
            return False
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self._write(data):
            return True
        self._unwritten.append(data)
        return False

    def append_records(self, found: list[records.Record]) -> bool:
        """Write records of the book, and empty the list."""
        if not found:
            return not self._unwritten
        first, self.sequence = self.sequence + 1, self.sequence + len(found)
        pieces = [
            framed(sequence, RECORD, records.encode(record))
            for sequence, record in enumerate(found, start=first)
        ]
        found.clear()
        return self._append(pieces)

    def retry(self) -> bool:
        """Write what waits; whether nothing waits any more."""
        if self._unwritten and self._write(b"".join(self._unwritten)):
            self._unwritten.clear()
        return not self._unwritten

    def _write(self, data: bytes) -> bool:
        if self._older_bytes + self.written + len(data) > self.quota_bytes:
            return False
        try:
            done = os.write(self._descriptor, data)
        except OSError:
            done = 0
        if done == len(data):
            self.written += done
            return True
        with suppress(OSError):  # a piece of a record must not stay in the middle
            os.ftruncate(self._descriptor, self.written)
        return False

    def syncer(self) -> Callable[[], bool]:
        """An `fdatasync` of what is written so far, for a thread; True if all of it is durable.

        It has a descriptor of its own: a segment that ends meanwhile is still synced.
        """
        try:
            descriptor = os.dup(self._descriptor)
        except OSError:
            descriptor = -1
        return partial(self._sync, descriptor)

    def sync(self) -> bool:
        """`fdatasync` now. After a failure the tail is never trusted again."""
        return self.syncer()()

    def _sync(self, descriptor: int) -> bool:
        try:
            if descriptor < 0:
                raise OSError
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
        except OSError:
            self.sync_failed = True
            with suppress(OSError):
                (self.directory / "sync-failed").touch(MODE)
        return not self.sync_failed

    def trust_again(self) -> None:
        """What a failed sync left in doubt has been accounted for, durably: forget the failure."""
        marker = self.directory / "sync-failed"
        if marker.exists() and not self.sync_failed and self.sync():
            marker.unlink()

    # ------------------------------------------------------------------ restating

    def restate(self, found: Iterable[tuple[bytes, bytes]]) -> bool:
        """Start a new segment that says all that still matters, then drop the older ones."""
        if self._unwritten:
            return False
        old, old_bytes, sequence = self._descriptor, self.written, self.sequence
        try:
            self._open_segment(self._number + 1)
        except SpoolError:
            return False
        self._older_bytes += old_bytes
        if not self.append([(BEGIN, b""), *found, (END, b"")]) or not self.sync():
            self._go_back(old, old_bytes)
            self.sequence = sequence
            return False
        os.close(old)
        for number, path in self._segments():
            if number < self._number:
                path.unlink()
        self._older_bytes = 0
        return True

    def _go_back(self, old: int, old_bytes: int) -> None:
        """The new segment could not be written: the old one goes on."""
        with suppress(OSError):
            self._path(self._number).unlink()
        os.close(self._descriptor)
        self._unwritten.clear()
        self._number -= 1
        self._descriptor, self.written = old, old_bytes
        self._older_bytes -= old_bytes

    def close(self) -> None:
        """Sync and give the spool up."""
        self.retry()
        self.sync()
        os.close(self._descriptor)
        os.close(self._lock)

    def _sync_directory(self) -> None:
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _read_segment(path: Path, *, newest: bool) -> list[Frame]:
    data = path.read_bytes()
    try:
        frames, good = whole_frames(data, newest=newest)
    except DamageError as error:
        raise SpoolError(f"{path}: {error}") from error
    if good < len(data):
        os.truncate(path, good)
    return frames
