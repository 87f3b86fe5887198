"""The base of the REST API: who calls, what they may do, whose rows they see, how lists page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.utils import timezone
from rest_framework import exceptions, permissions, serializers
from rest_framework.authentication import BaseAuthentication, CSRFCheck
from rest_framework.pagination import CursorPagination as BaseCursorPagination
from rest_framework.request import Request

from controlplane.audit.domain import Actor
from controlplane.identity.domain import authenticate_token
from controlplane.identity.enums import Role, Scope, TokenKind
from controlplane.identity.errors import CredentialError
from controlplane.identity.models import Membership, Person
from enforcement.rules.money import parse_usd, usd_text

if TYPE_CHECKING:
    from rest_framework.views import APIView  # its module imports this one through the settings

ALL_SCOPES = frozenset(Scope.values)
ROLE_SCOPES: dict[str, frozenset[str]] = {
    Role.OWNER: ALL_SCOPES,
    Role.ADMIN: ALL_SCOPES - {Scope.ADMIN.value},
    Role.VIEWER: frozenset({Scope.READ.value}),
}


@dataclass(frozen=True)
class Caller:
    """Who calls, for which organization, with which scopes. It stands as `request.auth`."""

    organization_id: UUID
    scopes: frozenset[str]
    actor: Actor
    person: Person | None = None


def caller_of(request: Request) -> Caller:
    """The authenticated caller of a request; permission checks have made sure there is one."""
    caller = request.auth
    if not isinstance(caller, Caller):
        raise exceptions.NotAuthenticated
    return caller


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer cmp_…`, an API token."""

    def authenticate(self, request: Request) -> tuple[Person | None, Caller] | None:
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        try:
            token = authenticate_token(text.strip(), kind=TokenKind.API, now=timezone.now())
        except CredentialError as error:
            raise exceptions.AuthenticationFailed(str(error)) from error
        scopes = frozenset(token.scopes)
        if token.person is not None:
            membership = Membership.objects.filter(
                person=token.person, organization_id=token.organization_id
            ).first()
            if membership is None:
                raise exceptions.AuthenticationFailed("the token's person has left")
            scopes &= ROLE_SCOPES[membership.role]
        actor = Actor(kind="token", id=str(token.pk), label=token.name)
        return token.person, Caller(token.organization_id, scopes, actor, token.person)

    def authenticate_header(self, request: Request) -> str:  # noqa: ARG002 -- DRF's signature
        return 'Bearer realm="comptroller"'


class SessionAuthentication(BaseAuthentication):
    """The dashboard's own session, with CSRF checks; the organization is the session's."""

    def authenticate(self, request: Request) -> tuple[Person, Caller] | None:
        person = getattr(request._request, "user", None)  # noqa: SLF001 -- the Django request
        if not isinstance(person, Person) or not person.is_active:
            return None
        self._enforce_csrf(request)
        membership = membership_of(person, request._request.session.get("organization"))  # noqa: SLF001
        if membership is None:
            raise exceptions.AuthenticationFailed("you are a member of no organization")
        actor = Actor(kind="person", id=str(person.pk), label=str(person))
        scopes = ROLE_SCOPES[membership.role]
        return person, Caller(membership.organization_id, scopes, actor, person)

    def _enforce_csrf(self, request: Request) -> None:
        check = CSRFCheck(lambda _request: None)  # type: ignore[arg-type, return-value]
        check.process_request(request._request)  # noqa: SLF001
        reason = check.process_view(request._request, None, (), {})  # type: ignore[arg-type]  # noqa: SLF001
        if reason:
            raise exceptions.PermissionDenied(f"CSRF check failed: {reason}")


def membership_of(person: Person, organization_id: str | None) -> Membership | None:
    """The membership that a session works under: the chosen one, else the oldest."""
    memberships = person.memberships.select_related("organization").order_by("created_at")
    if organization_id:
        return memberships.filter(organization_id=organization_id).first() or memberships.first()
    return memberships.first()


class RolePermission(permissions.BasePermission):
    """Safe methods need `read`; others what the view names in `write_scope` (or `action_scopes`)."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        if not isinstance(request.auth, Caller):
            return False
        return self.needed(request, view) in request.auth.scopes

    def needed(self, request: Request, view: APIView) -> str:
        action = getattr(view, "action", None)
        by_action: dict[str, str] = getattr(view, "action_scopes", {})
        if action in by_action:
            return by_action[action]
        if request.method in permissions.SAFE_METHODS:
            return Scope.READ.value
        return str(getattr(view, "write_scope", Scope.ADMIN.value))


class CursorPagination(BaseCursorPagination):
    """Newest first; `page_size` up to 200."""

    page_size = 50
    max_page_size = 200
    page_size_query_param = "page_size"
    ordering = "-id"


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses fields that it does not know, by name."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict):
            unknown = sorted(set(data) - set(self.fields))
            if unknown:
                raise serializers.ValidationError({name: ["unknown field"] for name in unknown})
        return super().to_internal_value(data)


class StrictModelSerializer(StrictSerializer, serializers.ModelSerializer[Any]):
    """A model serializer that refuses unknown fields by name."""


class UsdField(serializers.Field[int, str, str, Any]):
    """Nano-dollars inside, a decimal string of dollars outside."""

    def to_internal_value(self, data: str) -> int:
        if not isinstance(data, str):
            raise serializers.ValidationError("give dollars as a decimal string")
        try:
            return parse_usd(data)
        except ValueError as error:
            raise serializers.ValidationError(str(error)) from error

    def to_representation(self, value: int) -> str:
        return usd_text(value)
