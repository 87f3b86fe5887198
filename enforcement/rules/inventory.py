"""How leases are named to the spools that should account for them."""

from collections.abc import Callable

from enforcement.rules.ledger import Balance, Lease
from enforcement.rules.wire import InventoryItem


def inventory_item(
    lease: Lease, balance: Balance, *, sign: Callable[[str, Balance, int], str]
) -> InventoryItem:
    """How a lease is named to a spool that should say how it ended."""
    return InventoryItem(
        lease=lease.id,
        budget=balance.budget,
        value=balance.value,
        window_start_s=balance.window_start_s,
        amount=lease.amount,
        used=lease.used,
        returned=lease.returned,
        overrun=lease.overrun,
        incarnation=lease.incarnation,
        mac=sign(lease.id, balance, lease.amount),
    )
