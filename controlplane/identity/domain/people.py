"""People and their roles in an organization."""

from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction

from controlplane.audit.domain import Actor, record
from controlplane.identity.enums import Role
from controlplane.identity.errors import (
    AlreadyMemberError,
    IdentityValidationError,
    LastOwnerError,
    NotFoundInOrganizationError,
)
from controlplane.identity.models import ApiToken, Membership, Organization, Person


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
    """Make somebody a member, and a person of them when the address is new.

    Adding a member again in the same role changes nothing. A name and a password are only taken
    for a new person: nobody may set those of somebody whom other organizations know.

    Raises AlreadyMemberError, IdentityValidationError.
    """
    person = Person.objects.filter(email__iexact=email.strip()).first()
    if person is None:
        person = _new_person(email=email, name=name, password=password, now=now)
    membership, created = Membership.objects.get_or_create(
        organization_id=organization_id,
        person=person,
        defaults={"role": role, "created_at": now},
    )
    if created:
        after = {"email": person.email, "role": membership.role}
        _record(membership, "member.add", actor, now, after=after)
    elif membership.role != role:
        raise AlreadyMemberError(f"{person.email} is a member already, as {membership.role}")
    return membership


@transaction.atomic
def change_role(
    *, organization_id: UUID, person_id: UUID, role: Role, actor: Actor, now: datetime
) -> Membership:
    """Raises NotFoundInOrganizationError, LastOwnerError."""
    _one_at_a_time(organization_id)
    membership = member(organization_id=organization_id, person_id=person_id, lock=True)
    before = membership.role
    if before == Role.OWNER and role != Role.OWNER:
        _keep_an_owner(organization_id)
    if before != role:
        membership.role = role
        membership.save(update_fields=["role"])
        after = {"role": membership.role}
        _record(membership, "member.role", actor, now, before={"role": before}, after=after)
    return membership


@transaction.atomic
def remove_member(
    *, organization_id: UUID, person_id: UUID, actor: Actor, now: datetime, reason: str = ""
) -> None:
    """End a membership and the person's tokens here.

    Raises NotFoundInOrganizationError, LastOwnerError.
    """
    _one_at_a_time(organization_id)
    membership = member(organization_id=organization_id, person_id=person_id, lock=True)
    if membership.role == Role.OWNER:
        _keep_an_owner(organization_id)
    tokens = ApiToken.objects.filter(
        organization_id=organization_id, person_id=person_id, revoked_at__isnull=True
    )
    tokens.update(revoked_at=now)
    before = {"email": membership.person.email, "role": membership.role}
    _record(membership, "member.remove", actor, now, before=before, reason=reason)
    membership.delete()


@transaction.atomic
def set_password(*, person_id: UUID, password: str, actor: Actor, now: datetime) -> Person:
    """Raises IdentityValidationError."""
    person = Person.objects.select_for_update(no_key=True).get(pk=person_id)
    _check_password(password, person)
    person.set_password(password)
    person.save(update_fields=["password"])
    for membership in person.memberships.order_by("id"):
        _record(membership, "person.password", actor, now)
    return person


def member(*, organization_id: UUID, person_id: UUID, lock: bool = False) -> Membership:
    """Raises NotFoundInOrganizationError."""
    rows = Membership.objects.select_related("person").filter(
        organization_id=organization_id, person_id=person_id
    )
    found = (rows.select_for_update(of=("self",)) if lock else rows).first()
    if found is None:
        raise NotFoundInOrganizationError(f"no member {person_id}")
    return found


def _new_person(*, email: str, name: str, password: str | None, now: datetime) -> Person:
    address = email.strip().lower()
    try:
        validate_email(address)
    except ValidationError as error:
        raise IdentityValidationError("email", error.messages[0]) from None
    person = Person(email=address, name=name.strip(), created_at=now)
    if password is not None:
        _check_password(password, person)
    person.set_password(password)
    person.save(force_insert=True)
    return person


def _check_password(password: str, person: Person) -> None:
    try:
        validate_password(password, person)
    except ValidationError as error:
        raise IdentityValidationError("password", " ".join(error.messages)) from None


def _one_at_a_time(organization_id: UUID) -> None:
    """Changes of roles wait for each other: two owners who leave at once must not both see one."""
    Organization.objects.select_for_update(no_key=True).get(pk=organization_id)


def _keep_an_owner(organization_id: UUID) -> None:
    """A trigger says the same in the database."""
    owners = Membership.objects.filter(organization_id=organization_id, role=Role.OWNER)
    if owners.count() <= 1:
        raise LastOwnerError("an organization keeps at least one owner")


def _record(
    membership: Membership,
    action: str,
    actor: Actor,
    now: datetime,
    *,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    reason: str = "",
) -> None:
    record(
        organization_id=membership.organization_id,
        actor=actor,
        action=action,
        object_kind="person",
        object_id=membership.person_id,
        before=before,
        after=after,
        reason=reason,
        now=now,
    )
