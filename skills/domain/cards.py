"""Sign cards over skills, and take them back.

Of one skill name one card is active. Signing the next revision supersedes it; the grants of the
old card move along only if the signer says so, because a new card may allow more.
"""

import os
from datetime import datetime
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import IntegrityError, transaction

from controlplane.audit.domain import Actor, record
from controlplane.identity.domain import bump_policy
from enforcement.rules.cardformat import (
    Approval,
    Capabilities,
    CardBody,
    CardBudget,
    SkillIdentity,
    Source,
    Upstream,
)
from enforcement.rules.skillcard import (
    SkillCardError,
    card_digest,
    key_id_of,
    sign_statement,
    stamp_of,
    statement_bytes,
)
from skills.domain.grants import move_grants
from skills.domain.sealing import seal, unseal
from skills.domain.verification import update_verdict
from skills.enums import SIGNABLE, CardState
from skills.errors import (
    AlreadyRevokedError,
    CardConflictError,
    CardRefusedError,
    NotSignableError,
)
from skills.models import SigningKey, Skill, SkillCard


@transaction.atomic
def signing_key(*, organization_id: UUID, now: datetime) -> SigningKey:
    """The organization's key in use, locked; made at the first signature."""
    rows = SigningKey.objects.select_for_update()
    found = rows.filter(organization_id=organization_id, retired_at__isnull=True).first()
    if found is not None:
        return found
    private_key = Ed25519PrivateKey.from_private_bytes(os.urandom(32))
    public_key = private_key.public_key().public_bytes_raw()
    key_id = key_id_of(public_key)
    try:
        with transaction.atomic():
            return SigningKey.objects.create(
                organization_id=organization_id,
                key_id=key_id,
                public_key=public_key.hex(),
                sealed_private_key=seal(private_key, key_id=key_id),
                created_at=now,
            )
    except IntegrityError:  # another transaction made the first key meanwhile
        return rows.get(organization_id=organization_id, retired_at__isnull=True)


@transaction.atomic
def sign_card(
    *,
    skill: Skill,
    capabilities: Capabilities,
    budget: CardBudget,
    expires: datetime,
    not_before: datetime | None = None,
    source: Source | None = None,
    carry_grants: bool = False,
    actor: Actor,
    reason: str = "",
    now: datetime,
) -> SkillCard:
    """Sign the next revision of a skill's card over its content.

    Raises:
        NotSignableError: the skill's signature does not hold now.
        CardRefusedError: the card breaks its own rules; the message names the field.
        CardConflictError: another card of this name was signed at the same moment.
    """
    key = signing_key(organization_id=skill.organization_id, now=now)
    skill = Skill.objects.select_for_update().get(pk=skill.pk)
    update_verdict(skill, actor=actor, now=now)
    if skill.state not in SIGNABLE:
        reasons = "; ".join(item["message"] for item in skill.reasons)
        raise NotSignableError(f"{skill.name} is {skill.get_state_display().lower()}: {reasons}")
    if expires <= now:
        raise CardRefusedError("the card would be expired at once")
    latest = _latest(skill)
    body = CardBody(
        card_rev=latest.card_rev + 1 if latest else 1,
        supersedes=f"sha256:{latest.digest}" if latest else None,
        skill=_identity(skill, source),
        upstream=_upstream(skill),
        capabilities=capabilities,
        budget=budget,
        approvals=[
            Approval(by=actor.label[:200] or "unknown", at=stamp_of(now), method="signature")
        ],
        not_before=stamp_of(not_before or now),
        expires=stamp_of(expires),
    )
    envelope = _sign(key, skill.root_digest, body)
    card = _keep(skill, key, body, envelope, latest, actor=actor, now=now)
    _record(card, "skill_card.sign", actor, reason, before=None, now=now)
    if latest is not None and carry_grants:
        move_grants(old=latest, new=card, actor=actor, now=now)
    bump_policy(card.organization_id)
    return card


@transaction.atomic
def revoke_card(*, card: SkillCard, actor: Actor, reason: str, now: datetime) -> SkillCard:
    """Take a card back: every sidecar refuses it as soon as it has the new policy."""
    row = SkillCard.objects.select_for_update().get(pk=card.pk)
    if row.state == CardState.REVOKED:
        raise AlreadyRevokedError(f"card {row} was revoked before")
    before = {"state": row.state}
    _move(row, CardState.REVOKED, reason=reason, now=now)
    _record(row, "skill_card.revoke", actor, reason, before=before, now=now)
    bump_policy(row.organization_id)
    return row


def _latest(skill: Skill) -> SkillCard | None:
    rows = SkillCard.objects.select_for_update()
    same_name = rows.filter(organization_id=skill.organization_id, name=skill.name)
    return same_name.order_by("-card_rev").first()


def _identity(skill: Skill, source: Source | None) -> SkillIdentity:
    return SkillIdentity(
        name=skill.name,
        publisher=skill.publisher,
        upstream_version=skill.upstream_version,
        manifest_sha256=skill.manifest_digest,
        source=source or Source(),
    )


def _upstream(skill: Skill) -> Upstream:
    return Upstream(
        kind=skill.kind,
        root_fpr=skill.root_fingerprint,
        leaf_subject=skill.leaf_subject,
        leaf_serial=skill.leaf_serial,
        state=skill.state,
    )


def _sign(key: SigningKey, root_digest: str, body: CardBody) -> str:
    private_key = unseal(bytes(key.sealed_private_key), key_id=key.key_id)
    try:
        payload = statement_bytes(root_digest=root_digest, body=body)
    except SkillCardError as error:
        raise CardRefusedError(str(error)) from None
    return sign_statement(payload, private_keys=[private_key])


def _keep(
    skill: Skill,
    key: SigningKey,
    body: CardBody,
    envelope: str,
    latest: SkillCard | None,
    *,
    actor: Actor,
    now: datetime,
) -> SkillCard:
    if latest is not None and latest.state == CardState.ACTIVE:
        _move(latest, CardState.SUPERSEDED, reason=f"revision {body.card_rev}", now=now)
    try:
        with transaction.atomic():
            return SkillCard.objects.create(
                organization_id=skill.organization_id,
                skill=skill,
                key=key,
                name=skill.name,
                card_rev=body.card_rev,
                digest=card_digest(envelope),
                root_digest=skill.root_digest,
                envelope=envelope,
                not_before=_moment(body.not_before),
                expires=_moment(body.expires),
                created_at=now,
                created_by=actor.label[:200],
                state_changed_at=now,
            )
    except IntegrityError:
        raise CardConflictError(f"another card of {skill.name} was signed meanwhile") from None


def _moment(stamp: str) -> datetime:
    return datetime.fromisoformat(stamp)


def _move(card: SkillCard, state: CardState, *, reason: str, now: datetime) -> None:
    card.state = state
    card.state_changed_at = now
    card.state_reason = reason
    card.save(update_fields=["state", "state_changed_at", "state_reason"])


def _record(
    card: SkillCard,
    action: str,
    actor: Actor,
    reason: str,
    *,
    before: dict[str, Any] | None,
    now: datetime,
) -> None:
    record(
        organization_id=card.organization_id,
        actor=actor,
        action=action,
        object_kind="skill_card",
        object_id=str(card.id),
        reason=reason,
        before=before,
        after={
            "name": card.name,
            "card_rev": card.card_rev,
            "digest": card.digest,
            "state": card.state,
            "expires": stamp_of(card.expires),
        },
        now=now,
    )
