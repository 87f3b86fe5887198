"""Sidecars and their tokens."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import IntegrityError, transaction

from controlplane.audit.domain import Actor, record
from controlplane.identity.domain import find, issue_api_token, revoke_api_token
from controlplane.identity.enums import TokenKind
from enforcement.errors import SidecarNameTakenError
from enforcement.models import Sidecar


@dataclass(frozen=True)
class EnrolledSidecar:
    """A new sidecar. `secret` is its token: shown once and stored nowhere."""

    sidecar: Sidecar
    secret: str


@transaction.atomic
def enrol_sidecar(
    *, organization_id: UUID, name: str, actor: Actor, now: datetime
) -> EnrolledSidecar:
    """Raises SidecarNameTakenError."""
    issued = issue_api_token(
        organization_id=organization_id,
        name=f"sidecar {name}",
        kind=TokenKind.SIDECAR,
        actor=actor,
        now=now,
    )
    try:
        with transaction.atomic():
            sidecar = Sidecar.objects.create(
                organization_id=organization_id, name=name, token=issued.token, created_at=now
            )
    except IntegrityError as error:
        raise SidecarNameTakenError(f"a sidecar named {name!r} exists") from error
    _record(sidecar, "sidecar.enrol", actor, now)
    return EnrolledSidecar(sidecar, issued.secret)


@transaction.atomic
def revoke_sidecar(
    *, organization_id: UUID, sidecar_id: UUID, actor: Actor, now: datetime, reason: str = ""
) -> Sidecar:
    """Take a sidecar's token away: it can neither spend nor report from then on."""
    sidecar = find(Sidecar, organization_id=organization_id, object_id=sidecar_id)
    revoke_api_token(
        organization_id=organization_id,
        token_id=sidecar.token_id,
        reason=reason,
        actor=actor,
        now=now,
    )
    _record(sidecar, "sidecar.revoke", actor, now, reason=reason)
    return sidecar


def _record(
    sidecar: Sidecar, action: str, actor: Actor, now: datetime, *, reason: str = ""
) -> None:
    record(
        organization_id=sidecar.organization_id,
        actor=actor,
        action=action,
        object_kind="sidecar",
        object_id=str(sidecar.pk),
        reason=reason,
        after={"name": sidecar.name},
        now=now,
    )
