"""One Sync on its way through a transaction."""

from dataclasses import dataclass, field

from enforcement.leasing.auth import SidecarIdentity
from enforcement.leasing.policies import Policy
from enforcement.rules.wire import Sync, SyncAnswer


@dataclass
class Work:
    """One Sync on its way: answered when all of its groups are resolved."""

    sync: Sync
    identity: SidecarIdentity
    policy: Policy
    answer: SyncAnswer = field(default_factory=SyncAnswer)
    unresolved: set[str] = field(default_factory=set)

    @property
    def spool(self) -> str:
        return self.sync.header.spool

    @property
    def organization(self) -> str:
        return self.identity.organization
