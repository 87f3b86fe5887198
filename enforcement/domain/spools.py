"""Spools that will not come back: a person says so, and the ledger waits no longer (L11)."""

from datetime import datetime
from uuid import UUID

from django.db import transaction

from budgets.domain.incarnation import current_incarnation
from controlplane.audit.domain import Actor, record
from enforcement.errors import SpoolNotFoundError
from enforcement.models import Spool


@transaction.atomic
def waive_spool(
    *, organization_id: UUID, spool_id: UUID, actor: Actor, reason: str, now: datetime
) -> Spool:
    """After a failover or a restore: do not wait for what this spool could tell.

    What it had leased within what the ledger forgot is then known to nobody.

    Raises:
        SpoolNotFoundError: the organization has no such spool.
    """
    spool = (
        Spool.objects.select_for_update(of=("self",))
        .filter(organization_id=organization_id, id=spool_id)
        .first()
    )
    if spool is None:
        raise SpoolNotFoundError(f"no spool {spool_id}")
    spool.waived_for = current_incarnation(now=now).id
    spool.save(update_fields=["waived_for"])
    record(
        organization_id=organization_id,
        actor=actor,
        action="spool.waive",
        object_kind="spool",
        object_id=str(spool_id),
        reason=reason,
        after={"incarnation": str(spool.waived_for)},
        now=now,
    )
    return spool
