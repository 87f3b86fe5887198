"""Agent keys and API tokens: issued once, stored as hashes, revoked for ever."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q

from controlplane.audit.domain import Actor, record
from controlplane.identity.domain.agents import refuse_retired
from controlplane.identity.domain.organizations import find
from controlplane.identity.domain.policy import bump_policy
from controlplane.identity.domain.secrets import (
    AGENT_ENV,
    fresh_key,
    organization_pepper,
    token_pepper,
)
from controlplane.identity.enums import Scope, TokenKind
from controlplane.identity.errors import (
    CredentialError,
    IdentityValidationError,
    KeyRevokedError,
)
from controlplane.identity.models import Agent, AgentKey, ApiToken
from enforcement.rules.keys import KeyFormatError, hash_matches, key_hash, parse_key

LAST_USED_STEP = timedelta(minutes=1)
NO_HASH = "0" * 64


@dataclass(frozen=True)
class IssuedKey:
    """A new key. `secret` is shown once and stored nowhere."""

    key: AgentKey
    secret: str


@dataclass(frozen=True)
class IssuedToken:
    """A new token. `secret` is shown once and stored nowhere."""

    token: ApiToken
    secret: str


@transaction.atomic
def issue_agent_key(
    *,
    organization_id: UUID,
    agent_id: UUID,
    name: str,
    actor: Actor,
    now: datetime,
    expires_at: datetime | None = None,
) -> IssuedKey:
    """Raises NotFoundInOrganizationError, AgentRetiredError, IdentityValidationError."""
    _check_expiry(expires_at, now)
    agent = find(Agent, organization_id=organization_id, object_id=agent_id, lock=True)
    refuse_retired(agent)
    fresh = fresh_key(env=AGENT_ENV)
    key = AgentKey.objects.create(
        organization_id=organization_id,
        agent=agent,
        name=name,
        prefix=fresh.id,
        key_hash=key_hash(fresh.text, pepper=organization_pepper(organization_id)),
        created_at=now,
        expires_at=expires_at,
    )
    after = {"name": name, "agent": str(agent_id), "expires_at": _text(expires_at)}
    _record(key, "agent_key.issue", actor, now, after=after)
    bump_policy(organization_id)
    return IssuedKey(key, fresh.text)


@transaction.atomic
def revoke_agent_key(
    *, organization_id: UUID, key_id: UUID, actor: Actor, now: datetime, reason: str = ""
) -> AgentKey:
    """Revoke for ever; revoking again changes nothing. Raises NotFoundInOrganizationError."""
    key = find(AgentKey, organization_id=organization_id, object_id=key_id, lock=True)
    if key.revoked_at is None:
        key.revoked_at = now
        key.save(update_fields=["revoked_at"])
        before = {"name": key.name, "revoked_at": None}
        after = {"name": key.name, "revoked_at": _text(now)}
        _record(key, "agent_key.revoke", actor, now, before=before, after=after, reason=reason)
        bump_policy(organization_id)
    return key


@transaction.atomic
def rotate_agent_key(
    *, organization_id: UUID, key_id: UUID, overlap: timedelta, actor: Actor, now: datetime
) -> IssuedKey:
    """A new key of the same name; the old one works for `overlap` longer.

    Raises NotFoundInOrganizationError, KeyRevokedError, AgentRetiredError.
    """
    key = find(AgentKey, organization_id=organization_id, object_id=key_id, lock=True)
    before = {"expires_at": _text(key.expires_at)}
    _cut_short(key, overlap, now)
    after = {"expires_at": _text(key.expires_at)}
    _record(key, "agent_key.rotate", actor, now, before=before, after=after)
    return issue_agent_key(
        organization_id=organization_id,
        agent_id=key.agent_id,
        name=key.name,
        actor=actor,
        now=now,
    )


@transaction.atomic
def issue_api_token(
    *,
    organization_id: UUID,
    name: str,
    actor: Actor,
    now: datetime,
    kind: TokenKind = TokenKind.API,
    scopes: Collection[str] = (),
    person_id: UUID | None = None,
    expires_at: datetime | None = None,
) -> IssuedToken:
    """A token for the API, limited to scopes, or for a sidecar (which has none).

    Raises IdentityValidationError.
    """
    _check_expiry(expires_at, now)
    _check_scopes(kind, scopes)
    fresh = fresh_key(env=kind)
    token = ApiToken.objects.create(
        organization_id=organization_id,
        person_id=person_id,
        name=name,
        kind=kind,
        prefix=fresh.id,
        token_hash=key_hash(fresh.text, pepper=token_pepper()),
        scopes=sorted(set(scopes)),
        created_at=now,
        expires_at=expires_at,
    )
    after = {
        "name": name,
        "kind": token.kind,
        "scopes": token.scopes,
        "expires_at": _text(expires_at),
    }
    _record(token, "api_token.issue", actor, now, after=after)
    return IssuedToken(token, fresh.text)


@transaction.atomic
def revoke_api_token(
    *, organization_id: UUID, token_id: UUID, actor: Actor, now: datetime, reason: str = ""
) -> ApiToken:
    """Revoke for ever; revoking again changes nothing. Raises NotFoundInOrganizationError."""
    token = find(ApiToken, organization_id=organization_id, object_id=token_id, lock=True)
    if token.revoked_at is None:
        token.revoked_at = now
        token.save(update_fields=["revoked_at"])
        before = {"name": token.name, "revoked_at": None}
        after = {"name": token.name, "revoked_at": _text(now)}
        _record(token, "api_token.revoke", actor, now, before=before, after=after, reason=reason)
        bump_policy(organization_id)
    return token


@transaction.atomic
def rotate_api_token(
    *, organization_id: UUID, token_id: UUID, overlap: timedelta, actor: Actor, now: datetime
) -> IssuedToken:
    """A new token like the old one, which works for `overlap` longer.

    Raises NotFoundInOrganizationError, KeyRevokedError.
    """
    token = find(ApiToken, organization_id=organization_id, object_id=token_id, lock=True)
    before = {"expires_at": _text(token.expires_at)}
    _cut_short(token, overlap, now)
    after = {"expires_at": _text(token.expires_at)}
    _record(token, "api_token.rotate", actor, now, before=before, after=after)
    return issue_api_token(
        organization_id=organization_id,
        name=token.name,
        kind=TokenKind(token.kind),
        scopes=token.scopes,
        person_id=token.person_id,
        actor=actor,
        now=now,
    )


def authenticate_token(text: str, *, kind: TokenKind, now: datetime) -> ApiToken:
    """The live token that a bearer secret belongs to, with its organization and person.

    Raises:
        CredentialError: malformed, unknown, of another kind, expired or revoked.
    """
    try:
        parsed = parse_key(text)
    except KeyFormatError as error:
        raise CredentialError(f"malformed token: {error}") from None
    if parsed.env != kind:
        raise CredentialError(f"this is a key for {parsed.env!r}, not for {kind.value!r}")
    token = (
        ApiToken.objects.select_related("organization", "person")
        .filter(prefix=parsed.id, kind=kind)
        .first()
    )
    stored_hash = token.token_hash if token else NO_HASH
    if not hash_matches(text, stored_hash, pepper=token_pepper()) or token is None:
        raise CredentialError("unknown token")
    if token.revoked_at is not None:
        raise CredentialError("this token was revoked")
    if token.expires_at is not None and token.expires_at <= now:
        raise CredentialError("this token has expired")
    if token.person is not None and not token.person.is_active:
        raise CredentialError("the person of this token was deactivated")
    return token


def touch_token(token: ApiToken, *, now: datetime) -> None:
    """Note the use of a token, at most once a minute."""
    stale = Q(last_used_at__isnull=True) | Q(last_used_at__lt=now - LAST_USED_STEP)
    if token.last_used_at is None or token.last_used_at < now - LAST_USED_STEP:
        ApiToken.objects.filter(stale, pk=token.pk).update(last_used_at=now)


def _cut_short(secret: AgentKey | ApiToken, overlap: timedelta, now: datetime) -> None:
    """Let a secret end after the overlap, if it does not end before."""
    ended = secret.expires_at is not None and secret.expires_at <= now
    if secret.revoked_at is not None or ended:
        raise KeyRevokedError("a revoked or expired secret cannot be rotated: issue a new one")
    if overlap <= timedelta(0):
        secret.revoked_at = now
    else:
        end = now + overlap
        secret.expires_at = min(secret.expires_at or end, end)
    secret.save(update_fields=["expires_at", "revoked_at"])


def _check_expiry(expires_at: datetime | None, now: datetime) -> None:
    if expires_at is not None and expires_at <= now:
        raise IdentityValidationError("expires_at", "must lie in the future")


def _check_scopes(kind: TokenKind, scopes: Collection[str]) -> None:
    if kind is TokenKind.SIDECAR:
        if scopes:
            raise IdentityValidationError("scopes", "a sidecar's token has no scopes")
        return
    unknown = sorted(set(scopes) - set(Scope.values))
    if unknown:
        raise IdentityValidationError("scopes", f"unknown: {', '.join(unknown)}")
    if not scopes:
        raise IdentityValidationError("scopes", "name at least one")


def _text(instant: datetime | None) -> str | None:
    return instant.isoformat() if instant else None


def _record(
    secret: AgentKey | ApiToken,
    action: str,
    actor: Actor,
    now: datetime,
    *,
    before: dict[str, Any] | None = None,
    after: dict[str, Any],
    reason: str = "",
) -> None:
    record(
        organization_id=secret.organization_id,
        actor=actor,
        action=action,
        object_kind=action.partition(".")[0],
        object_id=secret.pk,
        before=before,
        after=after,
        reason=reason,
        now=now,
    )
