"""The ledger's incarnation: one uninterrupted history (L11)."""

from datetime import datetime

from django.db import transaction

from budgets.models import LedgerIncarnation


def current_incarnation(*, now: datetime) -> LedgerIncarnation:
    """The incarnation that has no end; the first one begins when it is first asked for."""
    current = LedgerIncarnation.objects.filter(ended_at__isnull=True).first()
    if current is None:
        LedgerIncarnation.objects.bulk_create(
            [LedgerIncarnation(started_at=now)], ignore_conflicts=True
        )
        current = LedgerIncarnation.objects.get(ended_at__isnull=True)
    return current


@transaction.atomic
def begin_incarnation(*, now: datetime) -> LedgerIncarnation:
    """End the current incarnation and begin another: after a promotion or a restore."""
    LedgerIncarnation.objects.filter(ended_at__isnull=True).update(ended_at=now)
    return LedgerIncarnation.objects.create(started_at=now)
