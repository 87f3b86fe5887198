"""After a failover or a restore: take in the leases that the ledger forgot (L11).

The rules are `Ledger.adopt` and `enforcement.rules.spools`. A lease is adopted only if this ledger
once signed it: nobody can bring in amounts of their own.
"""

import hmac
import logging
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from enforcement.leasing import store
from enforcement.leasing.balances import (
    MAX_VALUE_CHARS,
    Key,
    Wanted,
    find_balances,
    open_balances,
)
from enforcement.leasing.batch import Terms, new_ledger
from enforcement.leasing.checks import ID
from enforcement.leasing.later import Connection
from enforcement.leasing.policies import Policy
from enforcement.rules.spools import Spool
from enforcement.rules.windows import EPOCH, WindowError, window_at
from enforcement.rules.wire import InventoryItem

log = logging.getLogger(__name__)


async def adopt_forgotten(
    connection: Connection,
    inventory: Iterable[InventoryItem],
    *,
    spool: Spool,
    policy: Policy,
    organization: str,
    terms: Terms,
    now: datetime,
) -> int:
    """Adopt the leases of an inventory that the ledger does not know. How many it were."""
    told = {item.lease: item for item in inventory if ID.fullmatch(item.lease)}
    if not told:
        return 0
    known = await (await store.balances_of_leases(connection, told)).get()
    forgotten = [item for lease, item in sorted(told.items()) if lease not in known]
    wants = {item.lease: want for item in forgotten if (want := _place_of(item, policy))}
    found = await find_balances(connection, {want.key for want in wants.values()})
    opened = await open_balances(
        connection,
        list(wants.values()),
        await found.get(),
        organization=organization,
        now=now,
        adopting=True,
    )
    places = {lease: opened[want.key] for lease, want in wants.items()}
    balances = {lease: place for lease, place in places.items() if isinstance(place, str)}
    ledger = new_ledger(terms)
    locked = await store.lock_balances(connection, ledger, set(balances.values()))
    organizations = await locked.get()
    now_ms = int(now.timestamp() * 1000)
    ledger.turn(now_ms=now_ms)
    for item in forgotten:
        place = balances.get(item.lease)
        if place is None:
            log.error("no balance can take lease %s of spool %s", item.lease, spool.id)
            continue
        signed = terms.sign(item.lease, ledger.balances[place], item.amount)
        if item.amount <= 0 or not hmac.compare_digest(signed, item.mac):
            log.error("spool %s tells of a lease that was never signed: %s", spool.id, item.lease)
            continue
        ledger.adopt(item, place, spool.id, epoch=spool.epoch, now_ms=now_ms)
    # The cap of a balance may rise here, and only here, to what was committed before.
    await connection.execute("SELECT set_config('comptroller.adopting', 'on', true)")
    await store.write_back(
        connection,
        ledger,
        organizations=organizations,
        group_hashes={lease.group: "adopted" for lease in ledger.new_leases},
        now=now,
    )
    if ledger.new_leases:
        log.warning("adopted %d leases of spool %s", len(ledger.new_leases), spool.id)
    return len(ledger.new_leases)


def _place_of(item: InventoryItem, policy: Policy) -> Wanted | None:
    """The balance that a lease was of, by the window that it was granted in."""
    budget = policy.budget(item.budget)
    if budget is None or len(item.value) > MAX_VALUE_CHARS or "\0" in item.value:
        return None
    try:
        at = datetime.fromtimestamp(item.window_start_s, tz=EPOCH.tzinfo)
        window = window_at(budget.window, at)
    except (WindowError, ValueError, OSError, OverflowError):
        return None
    return Wanted(Key(str(UUID(budget.id)), item.value, window[0]), budget, window)
