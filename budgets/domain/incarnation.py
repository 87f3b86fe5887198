"""The ledger's incarnation: one uninterrupted history (L11)."""

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

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


_learning: list[Callable[[UUID], bool]] = []


def know_learning(ask: Callable[[UUID], bool]) -> None:
    """Say who knows whether an organization's leases are not all known yet (L11)."""
    _learning.append(ask)


def is_learning(organization_id: UUID) -> bool:
    """Whether what looks free may be leased: a failover forgot it, its spool has not told yet.

    So it is too while nobody has noticed yet that the database has another history.
    """
    known = LedgerIncarnation.objects.filter(ended_at__isnull=True).first()
    if known is None or known.system_identifier is None:
        return any(ask(organization_id) for ask in _learning)
    moved = _history() != History(known.system_identifier, known.timeline)
    return moved or any(ask(organization_id) for ask in _learning)


def _history() -> History:
    with connection.cursor() as cursor:
        cursor.execute(HISTORY)
        identifier, _, timeline = cursor.fetchone()
    return History(int(identifier), timeline)
