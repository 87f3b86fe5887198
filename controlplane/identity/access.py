"""What each role may do: the one table of permissions."""

from collections.abc import Mapping

from controlplane.identity.enums import Role, Scope

ALL_SCOPES: frozenset[str] = frozenset(Scope.values)
ROLE_SCOPES: Mapping[str, frozenset[str]] = {
    Role.OWNER.value: ALL_SCOPES,
    Role.ADMIN.value: ALL_SCOPES - {Scope.OWNER.value},
    Role.VIEWER.value: frozenset({Scope.READ.value}),
}


def role_allows(role: str, scope: str) -> bool:
    return scope in ROLE_SCOPES[role]
