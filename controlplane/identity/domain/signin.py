"""Ways to sign in: address and password, or a link that works once."""

import hmac
from datetime import datetime, timedelta
from uuid import UUID

from django.contrib.auth import authenticate
from django.db import transaction

from controlplane.audit.domain import Actor, record
from controlplane.audit.enums import ActorKind
from controlplane.identity.domain.people import member
from controlplane.identity.domain.secrets import fresh_text, token_pepper
from controlplane.identity.enums import Role
from controlplane.identity.errors import (
    CredentialError,
    ForeignPersonError,
    OwnersOnlyError,
    SignInError,
    TooManyAttemptsError,
)
from controlplane.identity.models import Membership, Person, SignInAttempt, SignInLink
from enforcement.rules.keys import key_hash

LINK_LIFETIME = timedelta(minutes=30)
ATTEMPT_WINDOW = timedelta(minutes=15)
MAX_FAILURES_PER_EMAIL_AND_ADDRESS = 5
MAX_FAILURES_PER_EMAIL = 50
MAX_FAILURES_PER_ADDRESS = 20


@transaction.atomic
def make_sign_in_link(*, person_id: UUID, now: datetime) -> str:
    """The secret of a new one-time link; it works once, within half an hour."""
    secret = fresh_text()
    SignInLink.objects.create(
        person_id=person_id,
        token_hash=key_hash(secret, pepper=token_pepper()),
        created_at=now,
        expires_at=now + LINK_LIFETIME,
    )
    return secret


@transaction.atomic
def invite(
    *, organization_id: UUID, person_id: UUID, actor: Actor, actor_is_owner: bool, now: datetime
) -> str:
    """The secret of a link for a member, made by somebody else.

    Whoever holds it becomes that person: so nobody may make one for a person whom other
    organizations know, and only owners for owners.

    Raises NotFoundInOrganizationError, ForeignPersonError, OwnersOnlyError.
    """
    membership = member(organization_id=organization_id, person_id=person_id, lock=True)
    if membership.role == Role.OWNER and not actor_is_owner:
        raise OwnersOnlyError("only an owner may sign in an owner")
    if membership.person.memberships.exclude(organization_id=organization_id).exists():
        raise ForeignPersonError("this person also belongs to other organizations")
    _record(membership, "person.invite", actor, now)
    return make_sign_in_link(person_id=person_id, now=now)


def person_of_link(secret: str, *, now: datetime) -> Person:
    """Whose link this is, without using it up. Raises CredentialError."""
    return _live_link(secret, now=now, lock=False).person


@transaction.atomic
def use_sign_in_link(secret: str, *, now: datetime) -> Person:
    """The person of a link, which is used up by this.

    Raises:
        CredentialError: unknown, used, expired, or its person was deactivated.
    """
    link = _live_link(secret, now=now, lock=True)
    link.used_at = now
    link.save(update_fields=["used_at"])
    _record_sign_in(link.person, "one-time link", now)
    return link.person


def sign_in_with_password(
    *, email: str, password: str, address: str | None, now: datetime
) -> Person:
    """The person with this password.

    A try is counted before it is judged, so that many at once do not slip through, and taken
    back when it was right.

    Raises SignInError, TooManyAttemptsError.
    """
    attempt = _count_attempt(email=email, address=address, now=now)
    person = authenticate(None, username=email.strip(), password=password)
    if not isinstance(person, Person):
        raise SignInError("The address or the password is wrong.")
    with transaction.atomic():
        attempt.delete()
        _record_sign_in(person, "password", now)
    return person


def _count_attempt(*, email: str, address: str | None, now: datetime) -> SignInAttempt:
    SignInAttempt.objects.filter(at__lte=now - ATTEMPT_WINDOW).delete()
    email_hash = key_hash(email.strip().lower(), pepper=token_pepper())
    attempt = SignInAttempt.objects.create(email_hash=email_hash, address=address, at=now)
    recent = SignInAttempt.objects.filter(at__gt=now - ATTEMPT_WINDOW)
    of_email = recent.filter(email_hash=email_hash)
    of_address = recent.filter(address=address)
    for tries, allowed in (
        (of_email.filter(address=address), MAX_FAILURES_PER_EMAIL_AND_ADDRESS),
        (of_address, MAX_FAILURES_PER_ADDRESS),
        (of_email, MAX_FAILURES_PER_EMAIL),
    ):
        times = list(tries.order_by("at").values_list("at", flat=True)[: allowed + 1])
        if len(times) > allowed:
            attempt.delete()  # else every further try would lengthen the wait
            wait = times[0] + ATTEMPT_WINDOW - now
            raise TooManyAttemptsError(max(1, int(wait.total_seconds())))
    return attempt


def _live_link(secret: str, *, now: datetime, lock: bool) -> SignInLink:
    hashed = key_hash(secret, pepper=token_pepper())
    links = SignInLink.objects.select_related("person").filter(token_hash=hashed)
    link = (links.select_for_update(of=("self",)) if lock else links).first()
    if link is None or not hmac.compare_digest(link.token_hash, hashed):
        raise CredentialError("This sign-in link is not known.")
    if link.used_at is not None:
        raise CredentialError("This sign-in link was used before.")
    if link.expires_at <= now:
        raise CredentialError("This sign-in link has expired.")
    if not link.person.is_active:
        raise CredentialError("This person was deactivated.")
    return link


def _record_sign_in(person: Person, way: str, now: datetime) -> None:
    actor = Actor(ActorKind.PERSON, str(person.pk), str(person))
    for membership in person.memberships.order_by("id"):
        _record(membership, "person.sign_in", actor, now, reason=way)


def _record(
    membership: Membership, action: str, actor: Actor, now: datetime, *, reason: str = ""
) -> None:
    record(
        organization_id=membership.organization_id,
        actor=actor,
        action=action,
        object_kind="person",
        object_id=membership.person_id,
        reason=reason,
        now=now,
    )
