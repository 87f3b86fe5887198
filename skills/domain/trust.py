"""Which publishers an organization trusts, and what it no longer accepts."""

from datetime import UTC, datetime
from uuid import UUID

from django.db import IntegrityError, transaction

from controlplane.audit.domain import Actor, record
from enforcement.rules.certificates import CertificateError, fingerprint_of, read_root
from skills.domain.verification import verify_all
from skills.enums import RevocationKind
from skills.errors import AlreadyRevokedError, TrustRootError
from skills.models import Revocation, TrustRoot

_NO_END_YEAR = 9999  # how certificates write "never"


@transaction.atomic
def add_trust_root(
    *,
    organization_id: UUID,
    name: str,
    pem: str,
    required_subject: str,
    actor: Actor,
    reason: str = "",
    now: datetime,
) -> TrustRoot:
    """Add a root of the organization's own, switched off."""
    try:
        certificate = read_root(pem)
    except CertificateError as error:
        raise TrustRootError(str(error)) from None
    if "=" not in required_subject:
        raise TrustRootError("a trust root needs a leaf subject such as `CN=…,O=…`")
    ends = certificate.not_valid_after_utc
    try:
        with transaction.atomic():
            root = TrustRoot.objects.create(
                organization_id=organization_id,
                name=name,
                pem=pem,
                fingerprint=fingerprint_of(certificate),
                subject=certificate.subject.rfc4514_string()[:500],
                required_subject=required_subject,
                not_after=None if ends.year >= _NO_END_YEAR else ends.replace(tzinfo=UTC),
                changed_at=now,
            )
    except IntegrityError:
        raise TrustRootError("this certificate is among the trust roots already") from None
    _record(organization_id, root, "trust_root.add", actor, reason, before=None, now=now)
    return root


@transaction.atomic
def switch_trust_root(
    *,
    organization_id: UUID,
    trust_root_id: UUID,
    enabled: bool,
    actor: Actor,
    reason: str = "",
    now: datetime,
) -> TrustRoot:
    """Switch a root on or off and judge every signed skill anew.

    A shipped root is copied into the organization when it is first switched on.
    """
    root = _own_root(organization_id, trust_root_id)
    if root.enabled != enabled:
        before = {"enabled": root.enabled}
        root.enabled = enabled
        root.changed_at = now
        root.save(update_fields=["enabled", "changed_at"])
        action = "trust_root.enable" if enabled else "trust_root.disable"
        _record(organization_id, root, action, actor, reason, before=before, now=now)
        verify_all(organization_id=organization_id, actor=actor, now=now)
    return root


@transaction.atomic
def revoke_artifact(
    *,
    organization_id: UUID,
    kind: RevocationKind,
    value: str,
    actor: Actor,
    reason: str,
    now: datetime,
) -> Revocation:
    """Stop accepting a content (root digest) or a publisher's certificate (serial)."""
    try:
        with transaction.atomic():
            revocation = Revocation.objects.create(
                organization_id=organization_id,
                kind=kind,
                value=value.lower(),
                reason=reason,
                revoked_by=actor.label,
                created_at=now,
            )
    except IntegrityError:
        raise AlreadyRevokedError("this was revoked before") from None
    record(
        organization_id=organization_id,
        actor=actor,
        action="skill_revocation.create",
        object_kind="skill_revocation",
        object_id=str(revocation.id),
        reason=reason,
        before=None,
        after={"kind": str(kind), "value": revocation.value},
        now=now,
    )
    verify_all(organization_id=organization_id, actor=actor, now=now)
    return revocation


def _own_root(organization_id: UUID, trust_root_id: UUID) -> TrustRoot:
    rows = TrustRoot.objects.select_for_update()
    own = rows.filter(organization_id=organization_id, id=trust_root_id).first()
    if own is not None:
        return own
    shipped = TrustRoot.objects.get(organization__isnull=True, id=trust_root_id)
    copy, _ = TrustRoot.objects.get_or_create(
        organization_id=organization_id,
        fingerprint=shipped.fingerprint,
        defaults={
            field: getattr(shipped, field)
            for field in ("name", "pem", "subject", "required_subject", "source", "not_after")
        },
    )
    return rows.get(id=copy.id)


def _record(
    organization_id: UUID,
    root: TrustRoot,
    action: str,
    actor: Actor,
    reason: str,
    *,
    before: dict[str, bool] | None,
    now: datetime,
) -> None:
    record(
        organization_id=organization_id,
        actor=actor,
        action=action,
        object_kind="trust_root",
        object_id=str(root.id),
        reason=reason,
        before=before,
        after={
            "name": root.name,
            "fingerprint": root.fingerprint,
            "required_subject": root.required_subject,
            "enabled": root.enabled,
        },
        now=now,
    )
