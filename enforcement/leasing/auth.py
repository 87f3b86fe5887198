"""Which sidecar a bearer token belongs to, remembered for a second."""

from time import monotonic
from typing import NamedTuple

from psycopg_pool import AsyncConnectionPool

from controlplane.identity.domain import token_pepper
from controlplane.identity.errors import CredentialError
from enforcement.leasing.later import Connection
from enforcement.rules.keys import KeyFormatError, hash_matches, parse_key

REMEMBER_S = 1.0
MAX_REMEMBERED = 10_000

_FIND = """
    SELECT t.token_hash, s.id, t.organization_id, t.revoked_at, t.expires_at <= clock_timestamp()
    FROM identity_apitoken t JOIN enforcement_sidecar s ON s.token_id = t.id
    WHERE t.prefix = %s AND t.kind = 'sidecar'
"""


class SidecarIdentity(NamedTuple):
    """A sidecar that proved who it is. Ids."""

    sidecar: str
    organization: str


class Authenticator:
    """Looks tokens up; a revocation is seen within a second."""

    def __init__(self, pool: AsyncConnectionPool[Connection]) -> None:
        self._pool = pool
        self._known: dict[str, tuple[float, SidecarIdentity]] = {}

    async def authenticate(self, authorization: str) -> SidecarIdentity:
        """Raises CredentialError, in words."""
        scheme, _, text = authorization.partition(" ")
        if scheme.lower() != "bearer" or not text:
            raise CredentialError("a sidecar's bearer token is needed")
        known = self._known.get(text)
        if known is not None and monotonic() - known[0] < REMEMBER_S:
            return known[1]
        identity = await self._look_up(text)
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        self._known[text] = (monotonic(), identity)
        return identity

    async def _look_up(self, text: str) -> SidecarIdentity:
        try:
            parsed = parse_key(text)
        except KeyFormatError as error:
            raise CredentialError(f"malformed token: {error}") from error
        async with self._pool.connection() as connection:
            row = await (await connection.execute(_FIND, [parsed.id])).fetchone()
        stored = row[0] if row else "0" * 64
        if not hash_matches(text, stored, pepper=token_pepper()) or row is None:
            raise CredentialError("unknown token")
        if row[3] is not None:
            raise CredentialError("this token was revoked")
        if row[4]:
            raise CredentialError("this token has expired")
        return SidecarIdentity(str(row[1]), str(row[2]))
