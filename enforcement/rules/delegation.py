"""A part of a session's balance that a child session has: given, and coming home (L14).

1. What is given leaves what the parent has free and becomes the limit of the child's new balance,
   in one transaction: the fan-out of a session never holds more than the session had.
2. At the end nothing more is granted to the child. What is free comes home at once, what is out as
   it comes home; then what the child spent is settled on its parent. A child's own children end
   first.
3. While the ledger still learns which leases are out (L11), nothing is given and nothing comes
   home: what looks free may be leased.

Sans-IO, like `ledger`: the caller has locked both balances and writes back both, the delegation
and the transfers, which are all of the parent.
"""

from enum import StrEnum

from msgspec import Struct

from enforcement.rules.ledger import Balance, Transfer, TransferKind


class DelegationState(StrEnum):
    OPEN = "open"
    CLOSING = "closing"  # nothing more is granted; what is out comes home
    CLOSED = "closed"


class Delegation(Struct):
    """One part: `amount` is what was given, `home` came back, `spent` was settled at the end."""

    parent: str
    child: str
    amount: int
    home: int = 0
    spent: int = 0
    state: DelegationState = DelegationState.OPEN


def give(parent: Balance, amount: int) -> Transfer | None:
    """Take an amount out of what is free; None, and nothing happens, when it is not there."""
    if parent.closed or not 0 < amount <= parent.free:
        return None
    parent.given += amount
    return Transfer(parent.id, None, TransferKind.DELEGATE, amount)


def end(part: Delegation, child: Balance) -> None:
    """Nothing more is granted to the child from now on."""
    if part.state is DelegationState.OPEN:
        part.state, child.closed = DelegationState.CLOSING, True


def bring_home(part: Delegation, parent: Balance, child: Balance) -> list[Transfer]:
    """One step of an ended part: what is free comes home; settled once nothing is out."""
    if part.state is not DelegationState.CLOSING:
        return []
    moved = []
    home = max(0, child.free)
    if home:
        child.limit -= home
        child.lower_cap()
        part.home += home
        moved.append(Transfer(parent.id, None, TransferKind.COME_HOME, home))
    if not child.held and not child.suspense and not child.given:
        moved += _settle(part, parent, child)
    parent.given -= home + part.spent
    parent.spent += part.spent
    parent.lower_cap()
    return moved


def _settle(part: Delegation, parent: Balance, child: Balance) -> list[Transfer]:
    """The child's final: what it was given is accounted for, to the last."""
    part.spent = part.amount - part.home
    part.state = DelegationState.CLOSED
    moved = []
    if part.spent:
        moved.append(Transfer(parent.id, None, TransferKind.CHILD_SPENT, part.spent))
    over = child.spent + child.overrun - part.spent
    if over > 0:  # measured use that nothing held: the parent's truth too
        parent.overrun += over
        moved.append(Transfer(parent.id, None, TransferKind.OVERRUN, over))
    return moved
