"""What a book writes into its journal, in the order in which it happened.

1. A record is written before the bytes that it pays for are forwarded (L4).
2. `Held` and `Settled` carry the usage event, so that money and event are one write: neither
   can survive a crash without the other.
3. Watermarks are totals, so replaying a record twice changes nothing.
4. Nothing is written twice: the parts of a settled event are what the record itself says was used
   of each lease. Replay puts them together again.
"""

import msgspec
from msgspec import Struct

from enforcement.rules.wire import UsageEvent

LeaseAmount = tuple[str, int]


class Granted(Struct, frozen=True, tag="g", omit_defaults=True):
    """A lease arrived. It may be used once this record is `fdatasync`ed."""

    lease: str
    budget: str
    value: str
    window_start_s: int
    amount: int
    incarnation: str = ""
    mac: str = ""


class Held(Struct, frozen=True, gc=False, tag="h", omit_defaults=True):
    """A request reserved more. `event` is what to book if nothing else is heard of it."""

    hold: int
    parts: list[LeaseAmount]
    event: UsageEvent | None = None


class Settled(Struct, frozen=True, gc=False, tag="s", omit_defaults=True):
    """A request ended: what it used of each lease, and what no lease covered."""

    hold: int
    used: list[LeaseAmount]
    overrun: list[LeaseAmount] = msgspec.field(default_factory=list)
    event: UsageEvent | None = None


class Presumed(Struct, frozen=True, tag="p"):
    """After a power loss: the watermark of what may have been used and cannot be proven unused."""

    lease: str
    used: int


class Returned(Struct, frozen=True, tag="r"):
    """The watermark of what goes home unused."""

    lease: str
    returned: int


class Final(Struct, frozen=True, tag="f"):
    """Nothing of this lease is open or free any more."""

    lease: str


class Acknowledged(Struct, frozen=True, tag="a"):
    """The ledger has booked the final of this lease; `at_ms` is wall time, for cutting only."""

    lease: str
    at_ms: int = 0


class Booted(Struct, frozen=True, tag="b"):
    """A life of the book begins, on this boot of the kernel."""

    epoch: int
    incarnation: str
    kernel_boot_id: str


class Closed(Struct, frozen=True, tag="c"):
    """The book shut down cleanly: nothing was running."""


Record = Granted | Held | Settled | Presumed | Returned | Final | Acknowledged | Booted | Closed

_encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Record).decode


def encode(record: Record) -> bytes:
    """A record as it stands in the journal."""
    if type(record) is Settled and record.event is not None and (record.used or record.overrun):
        parts = record.event.parts
        if len(parts) == len(record.used) + len(record.overrun):
            loose = []
        else:
            loose = [part for part in parts if not part.lease]
        event = msgspec.structs.replace(record.event, parts=loose)
        return _encode(Settled(record.hold, record.used, record.overrun, event))
    return _encode(record)
