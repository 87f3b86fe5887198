"""What people of an organization are told."""

from datetime import datetime
from uuid import UUID

from django.db import transaction

from budgets.errors import NotificationNotFoundError
from budgets.models import Budget, Notification
from controlplane.audit.domain import Actor


def notify(
    *,
    organization_id: UUID,
    title: str,
    now: datetime,
    body: str = "",
    budget: Budget | None = None,
) -> Notification:
    """Tell people. Call it in the transaction of what is told."""
    return Notification.objects.create(
        organization_id=organization_id,
        budget=budget,
        title=title[:300],
        body=body[:1_000],
        created_at=now,
    )


@transaction.atomic
def mark_seen(
    *, organization_id: UUID, notification_id: UUID | None, actor: Actor, now: datetime
) -> int:
    """Somebody has seen one, or all of them (None). How many were new.

    Raises:
        NotificationNotFoundError: the organization has none with this id.
    """
    rows = Notification.objects.filter(organization_id=organization_id)
    if notification_id is not None:
        rows = rows.filter(id=notification_id)
        if not rows.exists():
            raise NotificationNotFoundError(f"no notification {notification_id}")
    return rows.filter(seen_at__isnull=True).update(seen_at=now, seen_by=actor.label)
