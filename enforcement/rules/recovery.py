"""What a book makes of its journal after it died.

1. Nothing that is found in a journal is spent again: every lot comes back closed.
2. After the death of the process, what running requests held counts as used (I4).
3. After the death of the kernel, or a failed sync, the tail of the journal may be missing: all
   that a lot has not durably returned counts as used (L4), unless it is durably final.
4. For every request that was running, the event it was held with is booked, `presumed`.
"""

from collections.abc import Iterable

import msgspec

from enforcement.rules import records
from enforcement.rules.book import Book
from enforcement.rules.lots import Hold, InvariantError, Lot
from enforcement.rules.wire import Part, UsageEvent


class Recovery(msgspec.Struct):
    """What was found: whether the last life ended cleanly, events to send, and its epoch."""

    clean: bool = False
    epoch: int = 0
    incarnation: str = ""
    kernel_boot_id: str = ""
    events: list[UsageEvent] = msgspec.field(default_factory=list)


def recover(
    book: Book, journal: Iterable[records.Record], *, kernel_boot_id: str, distrust: bool = False
) -> Recovery:
    """Replay a journal into a fresh book, then close everything that was open.

    What recovery itself decides is appended to `book.lots.journal_out`: the shell writes it
    before the first Hello. `events` holds those that were settled in the journal (the shell
    knows which of them were already sent) and those presumed now.

    Raises:
        InvariantError: the journal contradicts itself.
    """
    found = Recovery()
    last_events: dict[int, UsageEvent] = {}
    for record in journal:
        found.clean = isinstance(record, records.Closed)
        if isinstance(record, records.Booted):
            found.epoch, found.incarnation = record.epoch, record.incarnation
            found.kernel_boot_id = record.kernel_boot_id
        _replay(book, record, last_events, found.events)
    book.lots.journal_out.clear()
    book.incarnation = found.incarnation
    lost_tail = distrust or (
        not found.clean and bool(found.kernel_boot_id) and found.kernel_boot_id != kernel_boot_id
    )
    unsettled = [lot for lot in book.lots.by_lease.values() if not lot.final]
    for lot in unsettled if lost_tail else ():
        _presume_whole(book, lot)
    for hold in list(book.lots.holds.values()):
        _presume(book, hold, last_events.get(hold.id), found.events)
    for lot in unsettled:
        book.lots.retire(lot)
    return found


def _replay(
    book: Book,
    record: records.Record,
    last_events: dict[int, UsageEvent],
    events: list[UsageEvent],
) -> None:
    lots = book.lots
    match record:
        case records.Granted():
            if record.lease not in lots.by_lease:
                lot = Lot(record, deadline_ns=0, now_ns=0, live=False)
                lot.durable = True
                lots.insert(lot)
        case records.Held():
            _replay_held(book, record)
            if record.event is not None:
                last_events[record.hold] = record.event
        case records.Settled():
            _replay_settled(book, record)
            if record.event is not None:
                events.append(_with_parts(book, record, record.event))
        case records.Returned():
            lot = lots.by_lease[record.lease]
            lot.returned = max(lot.returned, record.returned)
        case records.Final():
            lots.by_lease[record.lease].final = True
        case records.Acknowledged():
            lots.acknowledge_final(lots.by_lease[record.lease], at_ms=record.at_ms)
        case records.Presumed():
            lot = lots.by_lease[record.lease]
            lot.used = max(lot.used, record.used)


def _replay_held(book: Book, record: records.Held) -> None:
    hold = book.lots.holds.setdefault(record.hold, Hold(record.hold, {}))
    for lease, amount in record.parts:
        lot = book.lots.by_lease[lease]
        lot.open += amount
        hold.parts.setdefault(lot.key, []).append((lot, amount))
    book.lots.skip_holds(record.hold)


def _replay_settled(book: Book, record: records.Settled) -> None:
    hold = book.lots.holds.pop(record.hold, None)
    if hold is None:
        raise InvariantError(f"the journal settles hold {record.hold}, which it never placed")
    for pairs in hold.parts.values():
        for lot, amount in pairs:
            lot.open -= amount
    for lease, amount in record.used:
        book.lots.by_lease[lease].used += amount
    for lease, amount in record.overrun:
        book.lots.by_lease[lease].overrun += amount


def _with_parts(book: Book, record: records.Settled, event: UsageEvent) -> UsageEvent:
    """The event of a settlement with what it paid from each lease."""
    lots = book.lots.by_lease
    paid = [Part(*lots[lease].key, lease, n) for lease, n in (*record.used, *record.overrun)]
    loose = [part for part in event.parts if not (paid and part.lease)]
    return msgspec.structs.replace(event, parts=paid + loose)


def _presume(book: Book, hold: Hold, event: UsageEvent | None, events: list[UsageEvent]) -> None:
    """A request was running: all it held is used, and its own event says so."""
    if event is not None:
        event = msgspec.structs.replace(event, presumed=True)
    used = {key: hold.amount(key) for key in hold.parts}
    book.lots.settle(hold, used, now_ns=0, event=event)
    for record in reversed(book.lots.journal_out):
        if isinstance(record, records.Settled):
            if record.event is not None:
                events.append(record.event)
            return


def _presume_whole(book: Book, lot: Lot) -> None:
    """The tail of the journal may be lost: nothing unreturned may be called unused (L4)."""
    rest = lot.free
    if rest > 0:
        lot.used += rest
        book.lots.journal_out.append(records.Presumed(lot.lease, lot.used))
