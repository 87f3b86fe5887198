"""The ledger's incarnation: one uninterrupted history (L11)."""

from datetime import datetime
from typing import NamedTuple

from django.db import connection, transaction

from budgets.models import LedgerIncarnation

# Which history a connection leads to. A promotion and the end of a recovery begin a timeline, a new
# cluster has an identifier of its own.
HISTORY = """
    SELECT system_identifier, pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN ''
        ELSE left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) END
    FROM pg_control_system()
"""


class History(NamedTuple):
    """Where the database is in its own history."""

    system_identifier: int
    timeline: str


def current_incarnation(*, now: datetime) -> LedgerIncarnation:
    """The incarnation that has no end; the first one begins when it is first asked for."""
    current = LedgerIncarnation.objects.filter(ended_at__isnull=True).first()
    if current is None:
        fresh = LedgerIncarnation(started_at=now, **_history()._asdict())
        LedgerIncarnation.objects.bulk_create([fresh], ignore_conflicts=True)
        current = LedgerIncarnation.objects.get(ended_at__isnull=True)
    return current


@transaction.atomic
def begin_incarnation(*, now: datetime) -> LedgerIncarnation:
    """End the current incarnation and begin another: after a promotion or a restore."""
    LedgerIncarnation.objects.filter(ended_at__isnull=True).update(ended_at=now)
    return LedgerIncarnation.objects.create(started_at=now, **_history()._asdict())


def _history() -> History:
    with connection.cursor() as cursor:
        cursor.execute(HISTORY)
        identifier, _, timeline = cursor.fetchone()
    return History(int(identifier), timeline)
