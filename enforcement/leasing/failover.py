"""Notice that the database is another one than before: promoted, or restored (L11).

PostgreSQL begins a new timeline at a promotion and at the end of a recovery, and a new cluster has
a system identifier of its own. Both are looked at whenever a connection is made: a failover breaks
all of them. A connection to a replica would outlive its promotion, so none is kept.

A copy of the files that is started as it is has neither: then a person says `comptroller ledger
restored`.
"""

import logging

from budgets.domain.incarnation import HISTORY, History
from controlplane.identity.ids import new_id
from enforcement.errors import UnsafeDatabaseError
from enforcement.leasing.later import Connection

_CURRENT = """
    SELECT id, system_identifier, timeline FROM budgets_ledgerincarnation
    WHERE ended_at IS NULL FOR UPDATE
"""

log = logging.getLogger(__name__)


async def notice_failover(connection: Connection) -> None:
    """Begin a new incarnation if this connection leads to another history than the last one did.

    Raises:
        UnsafeDatabaseError: it leads to a replica, or to a recovery that has not ended.
    """
    async with connection.transaction():
        row = await (await connection.execute(HISTORY)).fetchone()
        if row is None or row[1]:
            raise UnsafeDatabaseError("this PostgreSQL is a replica, or still recovers")
        place = History(int(row[0]), str(row[2]))
        current = await (await connection.execute(_CURRENT)).fetchone()
        if current is None:
            return  # the first one has not begun
        if current[1] is None:  # it began before this was looked at
            await connection.execute(
                "UPDATE budgets_ledgerincarnation SET system_identifier = %s, timeline = %s"
                " WHERE id = %s",
                [*place, current[0]],
            )
        elif History(*current[1:]) != place:
            log.warning("another history of the database: a new incarnation of the ledger begins")
            await connection.execute(
                "UPDATE budgets_ledgerincarnation SET ended_at = clock_timestamp() WHERE id = %s",
                [current[0]],
            )
            await connection.execute(
                "INSERT INTO budgets_ledgerincarnation"
                " (id, started_at, system_identifier, timeline)"
                " VALUES (%s, clock_timestamp(), %s, %s)",
                [new_id(), *place],
            )
