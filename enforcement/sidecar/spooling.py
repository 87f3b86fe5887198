"""From a spool to a book and back: what a boot finds, and what a new segment restates."""

from pathlib import Path
from typing import NamedTuple

from enforcement.rules import records
from enforcement.rules.book import Book
from enforcement.rules.lots import Lot
from enforcement.rules.recovery import Recovery, recover
from enforcement.rules.spoolframes import ACKED, RECORD
from enforcement.rules.wire import UsageEvent
from enforcement.sidecar.journal import Found, Journal


class Revived(NamedTuple):
    """A book as its spool left it."""

    book: Book
    recovery: Recovery
    unsent: list[UsageEvent]


def kernel_boot_id() -> str:
    """Names this boot of the kernel; empty where there is no such thing."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def revive(journal: Journal, found: Found, *, name: str, boot_id: str) -> Revived:
    """Replay what a spool holds; what recovery decides is written before anybody hears of it."""
    book = Book(organization="", spool=journal.spool, name=name)
    acked = 0
    sequences: list[int] = []  # of the records that carry the events, in their order
    replayed: list[records.Record] = []
    for frame in found.frames:
        if frame.kind == ACKED:
            acked = max(acked, int.from_bytes(frame.payload, "little"))
        elif frame.kind == RECORD:
            record = records.decode(frame.payload)
            replayed.append(record)
            if isinstance(record, records.Settled) and record.event is not None:
                sequences.append(frame.sequence)
    recovery = recover(book, replayed, kernel_boot_id=boot_id, distrust=found.distrust)
    settled = zip(sequences, recovery.events, strict=False)
    unsent = [event for sequence, event in settled if sequence > acked]
    unsent += recovery.events[len(sequences) :]
    journal.append_records(book.lots.journal_out)
    return Revived(book, recovery, unsent)


def restatement(
    book: Book, *, running: dict[int, UsageEvent], unsent: list[UsageEvent], boot_id: str
) -> list[tuple[bytes, bytes]]:
    """All that still matters of a book, as records that replay to the same state."""
    said: list[records.Record] = []
    for lot in book.lots.by_lease.values():
        said += _lot_records(lot)
    for hold in book.lots.holds.values():
        parts = [(lot.lease, amount) for pairs in hold.parts.values() for lot, amount in pairs]
        said.append(records.Held(hold.id, parts, running.get(hold.id)))
    said.append(records.Booted(book.epoch, book.incarnation, boot_id))
    for event in unsent:
        said += [records.Held(0, []), records.Settled(0, [], [], event)]
    return [(RECORD, records.encode(record)) for record in said]


def _lot_records(lot: Lot) -> list[records.Record]:
    said: list[records.Record] = [
        records.Granted(
            lease=lot.lease,
            budget=lot.key[0],
            value=lot.key[1],
            window_start_s=lot.window_start_s,
            amount=lot.amount,
            incarnation=lot.incarnation,
            mac=lot.mac,
        )
    ]
    if lot.used:
        said.append(records.Presumed(lot.lease, lot.used))
    if lot.overrun:
        over = [(lot.lease, lot.overrun)]
        said += [records.Held(0, []), records.Settled(0, [], over)]
    if lot.returned:
        said.append(records.Returned(lot.lease, lot.returned))
    if lot.final:
        said.append(records.Final(lot.lease))
    if lot.acked:
        said.append(records.Acknowledged(lot.lease, lot.acked_at_ms))
    return said
