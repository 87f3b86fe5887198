"""The API of people, API tokens and the audit trail."""

# ruff: noqa: ARG002 -- DRF hands every action its request and key

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework import exceptions, mixins
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.audit.enums import ActorKind
from controlplane.audit.models import AuditEntry
from controlplane.idempotency import idempotent
from controlplane.identity import domain
from controlplane.identity.api import serializers as forms
from controlplane.identity.domain.people import member
from controlplane.identity.enums import Role, Scope, TokenKind
from controlplane.identity.errors import OwnersOnlyError
from controlplane.identity.models import ApiToken, Membership, Person
from controlplane.viewsets import OrganizationViewSet


class PersonViews(
    mixins.ListModelMixin, mixins.RetrieveModelMixin, OrganizationViewSet[Membership]
):
    """People of the organization and their roles. Owners are made and unmade by owners."""

    queryset = Membership.objects.select_related("person")
    serializer_class = forms.PersonSerializer
    filterset_fields = ("role",)
    lookup_field = "person_id"
    lookup_url_kwarg = "pk"
    write_scope = Scope.ADMIN.value

    @extend_schema(request=forms.PersonAddSerializer, responses={201: forms.PersonSerializer})
    @idempotent
    def create(self, request: Request) -> Response:
        """Make somebody a member."""
        data = self.parse(forms.PersonAddSerializer)
        self._check_owner(data["role"])
        membership = domain.add_member(**data, **self.who)
        return Response(forms.PersonSerializer(membership).data, status=201)

    @extend_schema(request=forms.RoleSerializer, responses=forms.PersonSerializer)
    def partial_update(self, request: Request, pk: UUID) -> Response:
        role = Role(self.parse(forms.RoleSerializer)["role"])
        self._check_owner(role, self._role_of(pk))
        membership = domain.change_role(person_id=pk, role=role, **self.who)
        return Response(forms.PersonSerializer(membership).data)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: UUID) -> Response:
        """End the membership, and revoke the person's tokens here."""
        self._check_owner(self._role_of(pk))
        domain.remove_member(person_id=pk, **self.who)
        return Response(status=204)

    @extend_schema(request=None, responses={201: forms.SignInLinkSerializer})
    @action(detail=True, methods=["post"], url_path="sign-in-link")
    def sign_in_link(self, request: Request, pk: UUID) -> Response:
        """A link that signs the person in once."""
        is_owner = Scope.OWNER.value in self.caller.scopes
        secret = domain.invite(person_id=pk, actor_is_owner=is_owner, **self.who)
        url = settings.PUBLIC_URL + reverse("sign-in-link", args=[secret])
        return Response({"sign_in_url": url}, status=201)

    def _role_of(self, person_id: UUID) -> str:
        return member(organization_id=self.caller.organization_id, person_id=person_id).role

    def _check_owner(self, *roles: str) -> None:
        if Role.OWNER.value in roles and Scope.OWNER.value not in self.caller.scopes:
            raise OwnersOnlyError("only an owner may make or unmake an owner")


class PasswordViews(OrganizationViewSet[Person]):
    """The caller's own password."""

    queryset = Person.objects.all()
    serializer_class = forms.PasswordSerializer
    pagination_class = None
    write_scope = Scope.READ.value

    @extend_schema(
        operation_id="me_password_change", request=forms.PasswordSerializer, responses={204: None}
    )
    def change(self, request: Request) -> Response:
        """Needs a session: a token must not be able to take over its person."""
        person = self.caller.person
        if person is None or self.caller.actor.kind != ActorKind.PERSON:
            raise exceptions.PermissionDenied("sign in to change your password")
        data = self.parse(forms.PasswordSerializer)
        if person.has_usable_password() and not person.check_password(data["current_password"]):
            raise exceptions.ValidationError({"current_password": ["This is not the password."]})
        domain.set_password(
            person_id=person.pk, password=data["password"], actor=self.caller.actor, now=self.now
        )
        return Response(status=204)


class ApiTokenViews(
    mixins.ListModelMixin, mixins.RetrieveModelMixin, OrganizationViewSet[ApiToken]
):
    """Tokens of the API and of sidecars. Their secrets are shown once."""

    queryset = ApiToken.objects.all()
    serializer_class = forms.ApiTokenSerializer
    filterset_fields = {"kind": ["exact"], "person": ["exact"], "revoked_at": ["isnull"]}
    write_scope = Scope.ADMIN.value

    @extend_schema(
        request=forms.ApiTokenIssueSerializer, responses={201: forms.IssuedApiTokenSerializer}
    )
    @idempotent
    def create(self, request: Request) -> Response:
        """A new token, of the calling person if there is one, with no more than its scopes."""
        data = self.parse(forms.ApiTokenIssueSerializer)
        kind = TokenKind(data.pop("kind"))
        excess = sorted(set(data["scopes"]) - self.caller.scopes)
        if excess:
            raise exceptions.PermissionDenied(f"you lack the scopes {', '.join(excess)} yourself")
        person = self.caller.person if kind is TokenKind.API else None
        issued = domain.issue_api_token(
            kind=kind, person_id=person.pk if person else None, **data, **self.who
        )
        return _issued(issued)

    @extend_schema(request=forms.ReasonSerializer, responses=forms.ApiTokenSerializer)
    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, pk: UUID) -> Response:
        """Revoke the token for ever."""
        reason = self.parse(forms.ReasonSerializer)["reason"]
        token = domain.revoke_api_token(token_id=pk, reason=reason, **self.who)
        return Response(forms.ApiTokenSerializer(token).data)

    @extend_schema(request=forms.RotateSerializer, responses={201: forms.IssuedApiTokenSerializer})
    @action(detail=True, methods=["post"])
    @idempotent
    def rotate(self, request: Request, pk: UUID) -> Response:
        """A new token like this one, which works a while longer."""
        token = domain.find(ApiToken, organization_id=self.caller.organization_id, object_id=pk)
        own = self.caller.person.pk if self.caller.person else None
        if token.person_id not in (None, own) or not set(token.scopes) <= self.caller.scopes:
            raise exceptions.PermissionDenied("the new secret would do what you may not")
        overlap = timedelta(seconds=self.parse(forms.RotateSerializer)["overlap_seconds"])
        return _issued(domain.rotate_api_token(token_id=pk, overlap=overlap, **self.who))


class AuditEntryViews(
    mixins.ListModelMixin, mixins.RetrieveModelMixin, OrganizationViewSet[AuditEntry]
):
    """Who changed what, newest first."""

    queryset = AuditEntry.objects.all()
    serializer_class = forms.AuditEntrySerializer
    filterset_fields = {
        "action": ["exact"],
        "actor_kind": ["exact"],
        "actor_id": ["exact"],
        "object_kind": ["exact"],
        "object_id": ["exact"],
        "at": ["gte", "lt"],
    }
    lookup_value_converter = "int"


def _issued(issued: domain.IssuedToken) -> Response:
    shown: dict[str, Any] = {**forms.ApiTokenSerializer(issued.token).data, "secret": issued.secret}
    return Response(shown, status=201)
