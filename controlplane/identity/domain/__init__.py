"""The writes of identity: each in one transaction with its audit entry."""

from controlplane.identity.domain.agents import (
    change_agent,
    create_agent,
    retire_agent,
    set_agent_state,
)
from controlplane.identity.domain.credentials import (
    IssuedKey,
    IssuedToken,
    authenticate_token,
    issue_agent_key,
    issue_api_token,
    revoke_agent_key,
    revoke_api_token,
    rotate_agent_key,
    rotate_api_token,
)
from controlplane.identity.domain.organizations import (
    change_organization,
    create_organization,
    create_project,
    create_team,
    find,
)
from controlplane.identity.domain.people import (
    add_member,
    change_role,
    remove_member,
    set_password,
)
from controlplane.identity.domain.policy import HINT_CHANNEL, bump_policy
from controlplane.identity.domain.secrets import derived_key, organization_pepper, token_pepper
from controlplane.identity.domain.signin import (
    invite,
    make_sign_in_link,
    sign_in_with_password,
    use_sign_in_link,
)

__all__ = [
    "HINT_CHANNEL",
    "IssuedKey",
    "IssuedToken",
    "add_member",
    "authenticate_token",
    "bump_policy",
    "change_agent",
    "change_organization",
    "change_role",
    "create_agent",
    "create_organization",
    "create_project",
    "create_team",
    "derived_key",
    "find",
    "invite",
    "issue_agent_key",
    "issue_api_token",
    "make_sign_in_link",
    "organization_pepper",
    "remove_member",
    "retire_agent",
    "revoke_agent_key",
    "revoke_api_token",
    "rotate_agent_key",
    "rotate_api_token",
    "set_agent_state",
    "set_password",
    "sign_in_with_password",
    "token_pepper",
    "use_sign_in_link",
]
