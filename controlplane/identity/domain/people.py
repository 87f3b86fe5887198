"""People, their roles, and one-time ways in."""

import secrets
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction

from controlplane.audit.domain import Actor, record
from controlplane.identity.domain.secrets import token_pepper
from controlplane.identity.enums import Role
from controlplane.identity.errors import (
    CredentialError,
    LastOwnerError,
    NotFoundInOrganizationError,
)
from controlplane.identity.models import Membership, Person, SignInLink
from enforcement.rules.keys import key_hash

LINK_LIFETIME = timedelta(minutes=30)


@transaction.atomic
def add_member(
    *,
    organization_id: UUID,
    email: str,
    role: Role,
    actor: Actor,
    now: datetime,
    name: str = "",
    password: str | None = None,
) -> Membership:
    """Make somebody a member, creating the person when the address is new."""
    address = email.strip().lower()
    person = Person.objects.filter(email__iexact=address).first()
    if person is None:
        person = Person(email=address, name=name, created_at=now)
        person.set_password(password)
        person.save(force_insert=True)
    membership, created = Membership.objects.get_or_create(
        organization_id=organization_id,
        person=person,
        defaults={"role": role, "created_at": now},
    )
    if created:
        _record(membership, "member.add", actor, now, after={"email": address, "role": role})
    return membership


@transaction.atomic
def change_role(
    *, organization_id: UUID, person_id: UUID, role: Role, actor: Actor, now: datetime
) -> Membership:
    """Raises LastOwnerError when nobody would own the organization any more."""
    membership = _locked_membership(organization_id, person_id)
    before = membership.role
    if before == Role.OWNER and role != Role.OWNER:
        _keep_an_owner(organization_id)
    membership.role = role
    membership.save(update_fields=["role"])
    _record(membership, "member.role", actor, now, before={"role": before}, after={"role": role})
    return membership


@transaction.atomic
def remove_member(*, organization_id: UUID, person_id: UUID, actor: Actor, now: datetime) -> None:
    """Raises LastOwnerError when nobody would own the organization any more."""
    membership = _locked_membership(organization_id, person_id)
    if membership.role == Role.OWNER:
        _keep_an_owner(organization_id)
    _record(membership, "member.remove", actor, now, before={"role": membership.role})
    membership.delete()


@transaction.atomic
def make_sign_in_link(*, person_id: UUID, now: datetime) -> str:
    """The secret of a new one-time link; it works once, within half an hour."""
    secret = secrets.token_urlsafe(32)
    SignInLink.objects.create(
        person_id=person_id,
        token_hash=key_hash(secret, pepper=token_pepper()),
        created_at=now,
        expires_at=now + LINK_LIFETIME,
    )
    return secret


@transaction.atomic
def use_sign_in_link(secret: str, *, now: datetime) -> Person:
    """The person of a link, which is used up by this.

    Raises:
        CredentialError: unknown, used, expired, or its person was deactivated.
    """
    link = (
        SignInLink.objects.select_for_update(of=("self",))
        .select_related("person")
        .filter(token_hash=key_hash(secret, pepper=token_pepper()))
        .first()
    )
    if link is None:
        raise CredentialError("this sign-in link is not known")
    if link.used_at is not None:
        raise CredentialError("this sign-in link was used before")
    if link.expires_at <= now:
        raise CredentialError("this sign-in link has expired")
    if not link.person.is_active:
        raise CredentialError("this person was deactivated")
    link.used_at = now
    link.save(update_fields=["used_at"])
    return link.person


def _locked_membership(organization_id: UUID, person_id: UUID) -> Membership:
    membership = (
        Membership.objects.select_for_update()
        .filter(organization_id=organization_id, person_id=person_id)
        .first()
    )
    if membership is None:
        raise NotFoundInOrganizationError(f"no member {person_id}")
    return membership


def _keep_an_owner(organization_id: UUID) -> None:
    owners = Membership.objects.select_for_update().filter(
        organization_id=organization_id, role=Role.OWNER
    )
    if len(owners) <= 1:
        raise LastOwnerError("an organization keeps at least one owner")


def _record(
    membership: Membership,
    action: str,
    actor: Actor,
    now: datetime,
    *,
    before: dict[str, object] | None = None,
    after: dict[str, object] | None = None,
) -> None:
    record(
        organization_id=membership.organization_id,
        actor=actor,
        action=action,
        object_kind="person",
        object_id=str(membership.person_id),
        before=before,
        after=after,
        now=now,
    )
