"""Usage batches of sidecars: each event and each refusal is booked exactly once."""

from datetime import datetime

from django.db import transaction

from budgets.domain.usage import Booked, book_refusals, book_usage
from enforcement.models import Sidecar
from enforcement.rules.wire import Usage


@transaction.atomic
def take_usage(*, sidecar: Sidecar, usage: Usage, now: datetime) -> Booked:
    """Raises UsageEventError: an event cannot be true, and nothing of the batch is booked."""
    booked = book_usage(
        organization_id=sidecar.organization_id,
        sidecar_id=sidecar.pk,
        events=usage.events,
        now=now,
    )
    if usage.refusals:
        book_refusals(organization_id=sidecar.organization_id, refusals=usage.refusals, now=now)
    return booked
