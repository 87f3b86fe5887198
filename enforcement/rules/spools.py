"""Who may speak for a spool: epochs, fencing, incarnations (L7, L9 of the ledger's memory: L11).

1. Each life of a book has a random `boot`. Another boot than before raises the spool's epoch; the
   same boot said twice keeps it, so a lost Welcome harms nobody.
2. A message of an older epoch is powerless: it can neither spend nor hand back (I9).
3. A message of another incarnation is answered with `rehello` before anything in it is read.
4. A new incarnation may have forgotten the last commits of the one before. Until every spool that
   it knows has told its inventory, *made for this incarnation*, or a person waived it, hard
   balances grant nothing; leases that it forgot are adopted from the inventories (L11).
"""

from typing import Literal

from msgspec import Struct

from enforcement.rules.ledger import Lease, LeaseState
from enforcement.rules.wire import Header, Hello


class Spool(Struct):
    """One row of spools: a journal directory with an identity, used by one book at a time."""

    id: str
    epoch: int = 0
    boot: str = ""
    incarnation: str = ""


def greet(spool: Spool, *, boot: str, incarnation: str) -> int:
    """Take a Hello: the epoch that this life of the book has from now on."""
    if spool.boot != boot:
        spool.boot = boot
        spool.epoch += 1
    spool.incarnation = incarnation
    return spool.epoch


def may_count(spool: Spool, hello: Hello, *, incarnation: str) -> bool:
    """Whether an inventory tells this incarnation all that the spool knows of leases.

    One that was made before may lack what was granted since. A spool that was never welcomed
    anywhere has nothing to tell.
    """
    fresh = not spool.boot and hello.header.epoch == 0 and not hello.inventory
    return fresh or incarnation in (spool.incarnation, hello.answers)


def standing(
    spool: Spool | None, header: Header, *, incarnation: str
) -> Literal["ok", "rehello", "fenced"]:
    """Whether a message may be acted on."""
    if spool is None or header.incarnation != incarnation or spool.incarnation != incarnation:
        return "rehello"
    return "ok" if header.epoch == spool.epoch else "fenced"


def owes_word(lease: Lease, spool: Spool) -> bool:
    """Whether the spool must say (again) how a lease of its own ended.

    Leases of earlier lives, and suspended ones: their final was lost, or their grant was.
    """
    if lease.spool != spool.id:
        return False
    if lease.state is LeaseState.SUSPENDED:
        return True
    return lease.state is LeaseState.GRANTED and lease.epoch < spool.epoch
