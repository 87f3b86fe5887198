from controlplane.identity.models.agent import Agent, AgentKey
from controlplane.identity.models.idempotency import IdempotentAnswer
from controlplane.identity.models.organization import Organization, Project, Team
from controlplane.identity.models.person import Membership, Person, SignInAttempt, SignInLink
from controlplane.identity.models.pulse import Pulse
from controlplane.identity.models.token import ApiToken

__all__ = [
    "Agent",
    "AgentKey",
    "ApiToken",
    "IdempotentAnswer",
    "Membership",
    "Organization",
    "Person",
    "Project",
    "Pulse",
    "SignInAttempt",
    "SignInLink",
    "Team",
]
