"""Switch on, for an organization, that every call must be covered by a skill card."""

from datetime import datetime
from uuid import UUID

from django.db import transaction

from controlplane.audit.domain import Actor, record
from controlplane.identity.domain import bump_policy
from controlplane.identity.models import Organization


@transaction.atomic
def require_cards(
    *, organization_id: UUID, required: bool, actor: Actor, reason: str = "", now: datetime
) -> Organization:
    """Require skill cards of every agent of the organization, or no longer."""
    row = Organization.objects.select_for_update().get(pk=organization_id)
    if row.requires_skill_cards != required:
        row.requires_skill_cards = required
        row.save(update_fields=["requires_skill_cards"])
        record(
            organization_id=row.pk,
            actor=actor,
            action="organization.require_skill_cards",
            object_kind="organization",
            object_id=str(row.pk),
            reason=reason,
            before={"requires_skill_cards": not required},
            after={"requires_skill_cards": required},
            now=now,
        )
        bump_policy(row.pk)
    return row
