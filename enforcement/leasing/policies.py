"""Compiled policies, kept until a hint says that they have changed."""

import asyncio
from datetime import UTC, datetime
from time import monotonic
from uuid import UUID

from controlplane.identity.models import Organization
from enforcement.domain.policy import compile_policy
from enforcement.leasing.threads import DjangoThreads
from enforcement.rules.policy import PolicySnapshot
from enforcement.rules.rights import Rights

RECHECK_S = 2.0  # how long a lost hint can hide a change


class Policy(Rights):
    """The rights that a snapshot allows, and when it was last known to be the policy of now."""

    def __init__(self, snapshot: PolicySnapshot) -> None:
        super().__init__(snapshot)
        self.checked_at = monotonic()


class Policies:
    """One policy for each organization, compiled in a thread when it is first asked for."""

    def __init__(self, threads: DjangoThreads) -> None:
        self._threads = threads
        self._known: dict[str, Policy] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._changed_at: dict[str, float] = {}

    def forget(self, organization: str) -> None:
        """A hint came: compile anew when next asked, even if that runs at this moment."""
        self._changed_at[organization] = monotonic()

    def _fresh(self, organization: str) -> Policy | None:
        known = self._known.get(organization)
        if known is None or monotonic() - known.checked_at >= RECHECK_S:
            return None
        return known if known.checked_at > self._changed_at.get(organization, 0.0) else None

    async def get(self, organization: str) -> Policy:
        """The policy of now: changes of which a hint has come are in it."""
        if known := self._fresh(organization):
            return known
        async with self._locks.setdefault(organization, asyncio.Lock()):
            if known := self._fresh(organization):
                return known
            known = self._known.get(organization)
            asked_at = monotonic()
            known_revision = known.revision if known else 0
            fresh = await self._threads.run(_read, UUID(organization), known_revision)
            if fresh is not None or known is None:
                if fresh is None:
                    raise LookupError(f"no organization {organization}")
                known = self._known[organization] = Policy(fresh)
            known.checked_at = asked_at
            return known


def _read(organization_id: UUID, known_revision: int) -> PolicySnapshot | None:
    """The policy, or None when the known revision still holds."""
    revision = (
        Organization.objects.filter(pk=organization_id)
        .values_list("policy_revision", flat=True)
        .first()
    )
    if revision is None or revision == known_revision:
        return None
    return compile_policy(organization_id=organization_id, now=datetime.now(tz=UTC))
