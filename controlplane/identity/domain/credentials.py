"""Agent keys and API tokens: issued once, stored as hashes, revoked for ever."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import transaction

from controlplane.audit.domain import Actor, record
from controlplane.identity.domain.organizations import find
from controlplane.identity.domain.policy import bump_policy
from controlplane.identity.domain.secrets import fresh_key, organization_pepper, token_pepper
from controlplane.identity.enums import TokenKind
from controlplane.identity.errors import CredentialError
from controlplane.identity.models import Agent, AgentKey, ApiToken
from enforcement.rules.keys import KeyFormatError, hash_matches, key_hash, parse_key


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
    """Raises NotFoundInOrganizationError."""
    agent = find(Agent, organization_id=organization_id, object_id=agent_id)
    fresh = fresh_key()
    key = AgentKey.objects.create(
        organization_id=organization_id,
        agent=agent,
        name=name,
        prefix=fresh.id,
        key_hash=key_hash(fresh.text, pepper=organization_pepper(organization_id)),
        created_at=now,
        expires_at=expires_at,
    )
    _record(organization_id, "agent_key", key.pk, "agent_key.issue", actor, now, {"name": name})
    bump_policy(organization_id)
    return IssuedKey(key, fresh.text)


@transaction.atomic
def revoke_agent_key(
    *, organization_id: UUID, key_id: UUID, actor: Actor, now: datetime
) -> AgentKey:
    """Revoke for ever; revoking again changes nothing. Raises NotFoundInOrganizationError."""
    key = find(AgentKey, organization_id=organization_id, object_id=key_id)
    if key.revoked_at is None:
        key.revoked_at = now
        key.save(update_fields=["revoked_at"])
        after = {"name": key.name}
        _record(organization_id, "agent_key", key.pk, "agent_key.revoke", actor, now, after)
        bump_policy(organization_id)
    return key


@transaction.atomic
def issue_api_token(
    *,
    organization_id: UUID,
    name: str,
    actor: Actor,
    now: datetime,
    kind: TokenKind = TokenKind.API,
    scopes: list[str] | None = None,
    person_id: UUID | None = None,
    expires_at: datetime | None = None,
) -> IssuedToken:
    """A token for the API, limited to scopes, or for a sidecar (which has none)."""
    fresh = fresh_key()
    token = ApiToken.objects.create(
        organization_id=organization_id,
        person_id=person_id,
        name=name,
        kind=kind,
        prefix=fresh.id,
        token_hash=key_hash(fresh.text, pepper=token_pepper()),
        scopes=scopes or [],
        created_at=now,
        expires_at=expires_at,
    )
    after = {"name": name, "kind": kind, "scopes": token.scopes}
    _record(organization_id, "api_token", token.pk, "api_token.issue", actor, now, after)
    return IssuedToken(token, fresh.text)


@transaction.atomic
def revoke_api_token(
    *, organization_id: UUID, token_id: UUID, actor: Actor, now: datetime
) -> ApiToken:
    """Revoke for ever; revoking again changes nothing. Raises NotFoundInOrganizationError."""
    token = find(ApiToken, organization_id=organization_id, object_id=token_id)
    if token.revoked_at is None:
        token.revoked_at = now
        token.save(update_fields=["revoked_at"])
        after = {"name": token.name}
        _record(organization_id, "api_token", token.pk, "api_token.revoke", actor, now, after)
        bump_policy(organization_id)
    return token


def authenticate_token(text: str, *, kind: TokenKind, now: datetime) -> ApiToken:
    """The live token that a bearer secret belongs to.

    Raises:
        CredentialError: malformed, unknown, of another kind, expired or revoked.
    """
    try:
        parsed = parse_key(text)
    except KeyFormatError as error:
        raise CredentialError(f"malformed token: {error}") from error
    token = (
        ApiToken.objects.select_related("organization", "person")
        .filter(prefix=parsed.id, kind=kind)
        .first()
    )
    stored_hash = token.token_hash if token else "0" * 64
    if not hash_matches(text, stored_hash, pepper=token_pepper()) or token is None:
        raise CredentialError("unknown token")
    if token.revoked_at is not None:
        raise CredentialError("this token was revoked")
    if token.expires_at is not None and token.expires_at <= now:
        raise CredentialError("this token has expired")
    if token.person is not None and not token.person.is_active:
        raise CredentialError("the person of this token was deactivated")
    return token


def _record(
    organization_id: UUID,
    object_kind: str,
    object_id: UUID,
    action: str,
    actor: Actor,
    now: datetime,
    after: dict[str, object],
) -> None:
    record(
        organization_id=organization_id,
        actor=actor,
        action=action,
        object_kind=object_kind,
        object_id=str(object_id),
        after=after,
        now=now,
    )
