"""The audit trail: one entry for each change, in the same transaction as the change."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from controlplane.audit.enums import ActorKind
from controlplane.audit.errors import UnauditedChangeError
from controlplane.audit.models import AuditEntry


@dataclass(frozen=True)
class Actor:
    """Who does something. `label` is for people, and stays when the actor is gone."""

    kind: str  # an ActorKind; the database refuses others
    id: str
    label: str

    @classmethod
    def system(cls, label: str) -> "Actor":
        """A part of the program that acts by itself."""
        return cls(ActorKind.SYSTEM, "", label)


def record(
    *,
    organization_id: UUID,
    actor: Actor,
    action: str,
    object_kind: str,
    object_id: object,
    now: datetime,
    reason: str = "",
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> AuditEntry:
    """Write down a change. Amounts are integers, ids and instants are text.

    Raises:
        UnauditedChangeError: outside a transaction the entry could outlive a change that failed.
    """
    if not transaction.get_connection().in_atomic_block:
        raise UnauditedChangeError(f"{action}: an audit entry needs the transaction of its change")
    return AuditEntry.objects.create(
        organization_id=organization_id,
        at=now,
        actor_kind=actor.kind,
        actor_id=actor.id,
        actor_label=actor.label[:254],
        action=action,
        object_kind=object_kind,
        object_id=str(object_id),
        reason=reason[:500],
        before=None if before is None else dict(before),
        after=None if after is None else dict(after),
    )
