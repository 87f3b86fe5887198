"""Peppers, fresh keys and their hashes: each purpose has its own key, from the one secret."""

import hashlib
import hmac
import secrets
from uuid import UUID

from django.conf import settings

from enforcement.rules import keys

AGENT_ENV = "live"


def derived_key(purpose: str) -> bytes:
    """A key of its own for each purpose, from the one secret of the installation."""
    return hmac.new(settings.SECRET_KEY.encode(), purpose.encode(), hashlib.sha256).digest()


def organization_pepper(organization_id: UUID) -> bytes:
    """What agent keys of an organization are hashed under; sidecars get it with the policy."""
    return derived_key(f"pepper:{organization_id}")


def token_pepper() -> bytes:
    """What API and sidecar tokens, and sign-in links, are hashed under; never leaves the server."""
    return derived_key("pepper:tokens")


def fresh_key(*, env: str) -> keys.ParsedKey:
    return keys.make_key(
        env=env,
        id_bytes=secrets.token_bytes(keys.ID_BYTES),
        secret_bytes=secrets.token_bytes(keys.SECRET_BYTES),
    )


def fresh_text() -> str:
    """A secret of 256 bits for a link."""
    return secrets.token_urlsafe(32)
