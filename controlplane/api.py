"""The base of the REST API: who calls, what they may do, what is refused, how lists page.

DRF's own views import this module through the settings; so it imports none of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from django.db import models
from django.utils import timezone
from django_filters import UUIDFilter
from django_filters.rest_framework import DjangoFilterBackend, FilterSet
from rest_framework import exceptions, permissions, serializers
from rest_framework.authentication import BaseAuthentication
from rest_framework.authentication import SessionAuthentication as BaseSessionAuthentication
from rest_framework.pagination import CursorPagination as BaseCursorPagination
from rest_framework.parsers import JSONParser
from rest_framework.request import Request

from controlplane.audit.domain import Actor
from controlplane.audit.enums import ActorKind
from controlplane.identity.access import ROLE_SCOPES
from controlplane.identity.domain.credentials import authenticate_token, touch_token
from controlplane.identity.enums import Scope, TokenKind
from controlplane.identity.errors import CredentialError
from controlplane.identity.models import Membership, Person
from enforcement.rules.money import parse_usd, usd_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import IO

    from django.db.models import QuerySet
    from rest_framework.views import APIView

ORGANIZATION_IN_SESSION = "organization"

# ------------------------------------------------------------------------------- who calls


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
    """`Authorization: Bearer cmp_api_…`. A person's token never does more than the person may."""

    def authenticate(self, request: Request) -> tuple[Person | None, Caller] | None:
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        now = timezone.now()
        try:
            token = authenticate_token(text.strip(), kind=TokenKind.API, now=now)
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
        touch_token(token, now=now)
        actor = Actor(ActorKind.TOKEN, str(token.pk), token.name)
        return token.person, Caller(token.organization_id, scopes, actor, token.person)

    def authenticate_header(self, request: Request) -> str:  # noqa: ARG002 -- DRF's signature
        return 'Bearer realm="comptroller"'


class SessionAuthentication(BaseSessionAuthentication):
    """The dashboard's own session, with CSRF checks; the organization is the session's."""

    def authenticate(self, request: Request) -> tuple[Person, Caller] | None:
        found = super().authenticate(request)
        if found is None:
            return None
        person = cast("Person", found[0])
        membership = membership_of(person, request.session.get(ORGANIZATION_IN_SESSION))
        if membership is None:
            raise exceptions.PermissionDenied("you are a member of no organization")
        actor = Actor(ActorKind.PERSON, str(person.pk), str(person))
        scopes = ROLE_SCOPES[membership.role]
        return person, Caller(membership.organization_id, scopes, actor, person)


def membership_of(person: Person, organization_id: str | None) -> Membership | None:
    """The membership that a session works under: the chosen one, else the oldest."""
    memberships = person.memberships.select_related("organization").order_by("created_at", "id")
    chosen = memberships.filter(organization_id=organization_id) if organization_id else None
    return (chosen.first() if chosen is not None else None) or memberships.first()


class RolePermission(permissions.BasePermission):
    """Safe methods need `read`; others what the view names in `write_scope` (or `action_scopes`).

    A view that names nothing needs `admin`: what was forgotten is closed.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        if not isinstance(request.auth, Caller):
            return False
        return self.needed(request, view) in request.auth.scopes

    def needed(self, request: Request, view: APIView) -> str:
        action = getattr(view, "action", None)
        by_action: Mapping[str, str] = getattr(view, "action_scopes", {})
        if action is not None and action in by_action:
            return by_action[action]
        if request.method in permissions.SAFE_METHODS:
            return Scope.READ.value
        return str(getattr(view, "write_scope", Scope.ADMIN.value))


# ------------------------------------------------------------------------------- what comes in


class StrictJSONParser(JSONParser):
    """JSON in which no name stands twice: readers differ in which of them they take."""

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,  # noqa: ARG002 -- DRF's signature
        parser_context: Mapping[str, Any] | None = None,  # noqa: ARG002
    ) -> Any:
        try:
            return json.loads(
                stream.read().decode("utf-8"),
                object_pairs_hook=_without_twins,
                parse_constant=_refuse_constant,
            )
        except (ValueError, RecursionError) as error:
            raise exceptions.ParseError(f"not valid JSON: {error}") from error


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twin!r} stands twice")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses fields that it does not know, or that only it may write, by name."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict):
            known = {name for name, field in self.fields.items() if not field.read_only}
            unknown = sorted(set(data) - known)
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


# ------------------------------------------------------------------------------- lists


class CursorPagination(BaseCursorPagination):
    """Newest first, as ids sort by time; `page_size` up to 200."""

    page_size = 50
    max_page_size = 200
    page_size_query_param = "page_size"
    ordering = "-id"

    def get_page_size(self, request: Request) -> int:
        text = request.query_params.get(self.page_size_query_param)
        if text is None:
            return self.page_size
        if not (text.isascii() and text.isdigit() and int(text) > 0):
            raise exceptions.ValidationError({"page_size": ["a whole number above 0"]})
        return min(int(text), self.max_page_size)


class StrictFilterSet(FilterSet):  # type: ignore[misc]  # an untyped library
    """References are filtered by id alone: an unknown id and a foreign one find nothing alike."""

    FILTER_DEFAULTS = {
        **FilterSet.FILTER_DEFAULTS,
        models.ForeignKey: {"filter_class": UUIDFilter},
    }


class StrictFilterBackend(DjangoFilterBackend):  # type: ignore[misc]
    """Filters by the view's `filterset_fields`; refuses query parameters it does not know."""

    filterset_base = StrictFilterSet

    def filter_queryset(
        self, request: Request, queryset: QuerySet[Any], view: APIView
    ) -> QuerySet[Any]:
        filterset_class = self.get_filterset_class(view, queryset)
        known = set(filterset_class.base_filters) if filterset_class else set()
        paginator = getattr(view, "paginator", None)
        if isinstance(paginator, CursorPagination):
            known |= {paginator.cursor_query_param, paginator.page_size_query_param}
        unknown = sorted(set(request.query_params) - known)
        if unknown:
            raise exceptions.ValidationError({name: ["unknown parameter"] for name in unknown})
        filtered: QuerySet[Any] = super().filter_queryset(request, queryset, view)
        return filtered
