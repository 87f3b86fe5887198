"""The API of skills and cards: parse, call one domain function, serialize."""

# ruff: noqa: ARG002 -- DRF hands every action its request and key

from typing import Any, ClassVar
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import Http404, HttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import mixins
from rest_framework.decorators import action
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.viewsets import GenericViewSet

from controlplane.api import Caller, caller_of
from controlplane.identity.domain import find
from controlplane.identity.enums import Scope
from controlplane.identity.models import Agent, Organization
from skills import queries
from skills.api import serializers as forms
from skills.api.fields import budget_of
from skills.domain.cards import revoke_card, sign_card
from skills.domain.grants import grant_card, revoke_grant
from skills.domain.importing import import_skill
from skills.domain.requirement import require_cards
from skills.domain.roots import known_roots
from skills.domain.trust import add_trust_root, revoke_artifact, switch_trust_root
from skills.domain.verification import verify_skill
from skills.enums import RevocationKind
from skills.models import Revocation, SigningKey, Skill, SkillCard, SkillGrant, TrustRoot


class _Views(GenericViewSet[Any]):
    """Rows of the caller's organization, and the clock once a request."""

    write_scope = Scope.CARDS_WRITE.value

    @property
    def caller(self) -> Caller:
        return caller_of(self.request)

    def parse(self, kind: type[BaseSerializer[Any]]) -> dict[str, Any]:
        given = kind(data=self.request.data)
        given.is_valid(raise_exception=True)
        data: dict[str, Any] = given.validated_data
        return data

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "now": timezone.now()}


class SkillViews(mixins.ListModelMixin, mixins.RetrieveModelMixin, _Views):
    """Imported skills and the verdicts on their publishers' signatures."""

    queryset = Skill.objects.none()
    filterset_fields = ("name", "state")

    def get_queryset(self) -> QuerySet[Skill]:
        return Skill.objects.filter(organization_id=self.caller.organization_id)

    def get_serializer_class(self) -> type[BaseSerializer[Any]]:
        return forms.SkillSerializer if self.action == "list" else forms.SkillDetailSerializer

    @extend_schema(
        operation_id="skills_import",
        request={"multipart/form-data": forms.ImportSerializer},
        responses={201: forms.SkillDetailSerializer},
    )
    @action(detail=False, methods=["post"], url_path="import", parser_classes=[MultiPartParser])
    def import_(self, request: Request) -> Response:
        """Import a skill folder and judge its signature."""
        skill = import_skill(
            organization_id=self.caller.organization_id,
            archive=self.parse(forms.ImportSerializer)["archive"].read(),
            actor=self.caller.actor,
            now=timezone.now(),
        )
        return Response(forms.SkillDetailSerializer(skill).data, status=201)

    @extend_schema(request=None, responses=forms.SkillDetailSerializer)
    @action(detail=True, methods=["post"])
    def verify(self, request: Request, pk: str) -> Response:
        """Judge the signature again, now."""
        skill = verify_skill(skill=self.get_object(), actor=self.caller.actor, now=timezone.now())
        return Response(forms.SkillDetailSerializer(skill).data)

    @extend_schema(request=forms.SignSerializer, responses={201: forms.CardSerializer})
    @action(detail=True, methods=["post"])
    def sign(self, request: Request, pk: str) -> Response:
        """Sign the next revision of the skill's card."""
        data = self.parse(forms.SignSerializer)
        budget = budget_of(data.pop("budget"))
        card = sign_card(
            skill=self.get_object(),
            budget=budget,
            actor=self.caller.actor,
            now=timezone.now(),
            **data,
        )
        return _card_response(self, card, status=201)


class CardViews(mixins.ListModelMixin, mixins.RetrieveModelMixin, _Views):
    """Signed cards."""

    queryset = SkillCard.objects.none()
    serializer_class = forms.CardSerializer
    filterset_fields = ("name", "state", "skill")

    def get_queryset(self) -> QuerySet[SkillCard]:
        return queries.cards_of(self.caller.organization_id)

    @extend_schema(request=forms.SkillReasonSerializer, responses=forms.CardSerializer)
    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, pk: str) -> Response:
        """Take a card back, for ever."""
        reason = self.parse(forms.SkillReasonSerializer)["reason"]
        card = revoke_card(
            card=self.get_object(), actor=self.caller.actor, reason=reason, now=timezone.now()
        )
        return _card_response(self, card)

    @extend_schema(responses={(200, "application/vnd.in-toto+json"): OpenApiTypes.BINARY})
    @action(detail=True, methods=["get"])
    def envelope(self, request: Request, pk: str) -> HttpResponse:
        """Download the signed envelope as it is."""
        card = self.get_object()
        return HttpResponse(
            card.envelope,
            content_type="application/vnd.in-toto+json",
            headers={"Content-Disposition": f'attachment; filename="{queries.file_name(card)}"'},
        )


def _card_response(view: _Views, card: SkillCard, *, status: int = 200) -> Response:
    row = queries.cards_of(card.organization_id).get(pk=card.pk)
    context = view.get_serializer_context()
    return Response(forms.CardSerializer(row, context=context).data, status=status)


class GrantViews(mixins.ListModelMixin, mixins.RetrieveModelMixin, _Views):
    """Which agents may use which cards."""

    queryset = SkillGrant.objects.none()
    serializer_class = forms.GrantSerializer
    filterset_fields = ("agent", "card")

    def get_queryset(self) -> QuerySet[SkillGrant]:
        return SkillGrant.objects.filter(organization_id=self.caller.organization_id)

    @extend_schema(request=forms.GrantRequestSerializer, responses={201: forms.GrantSerializer})
    def create(self, request: Request) -> Response:
        """Let an agent use a card, or some of its tools."""
        data = self.parse(forms.GrantRequestSerializer)
        organization_id = self.caller.organization_id
        grant = grant_card(
            card=find(SkillCard, organization_id=organization_id, object_id=data["card"]),
            agent=find(Agent, organization_id=organization_id, object_id=data["agent"]),
            tools=data["tools"],
            reason=data["reason"],
            actor=self.caller.actor,
            now=timezone.now(),
        )
        return Response(forms.GrantSerializer(grant).data, status=201)

    @extend_schema(request=forms.GrantReasonSerializer, responses=forms.GrantSerializer)
    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, pk: str) -> Response:
        """Take a grant back, for ever."""
        reason = self.parse(forms.GrantReasonSerializer)["reason"]
        grant = revoke_grant(
            grant=self.get_object(), actor=self.caller.actor, reason=reason, now=timezone.now()
        )
        return Response(forms.GrantSerializer(grant).data)


class TrustRootViews(_Views):
    """Publishers' root certificates. Shipped ones stay off until somebody switches them on."""

    queryset = TrustRoot.objects.none()
    serializer_class = forms.TrustRootSerializer
    pagination_class = None
    write_scope = Scope.ADMIN.value

    @extend_schema(responses=forms.TrustRootSerializer(many=True))
    def list(self, request: Request) -> Response:
        roots = known_roots(organization_id=self.caller.organization_id)
        return Response(forms.TrustRootSerializer(roots, many=True).data)

    @extend_schema(
        request=forms.TrustRootRequestSerializer, responses={201: forms.TrustRootSerializer}
    )
    def create(self, request: Request) -> Response:
        """Add a root of your own, switched off."""
        root = add_trust_root(
            organization_id=self.caller.organization_id,
            actor=self.caller.actor,
            now=timezone.now(),
            **self.parse(forms.TrustRootRequestSerializer),
        )
        return Response(forms.TrustRootSerializer(root).data, status=201)

    @extend_schema(request=forms.SkillReasonSerializer, responses=forms.TrustRootSerializer)
    @action(detail=True, methods=["post"])
    def enable(self, request: Request, pk: UUID) -> Response:
        """Trust this root, and judge every skill again."""
        return self._switch(pk, enabled=True)

    @extend_schema(request=forms.SkillReasonSerializer, responses=forms.TrustRootSerializer)
    @action(detail=True, methods=["post"])
    def disable(self, request: Request, pk: UUID) -> Response:
        """Trust this root no longer, and judge every skill again."""
        return self._switch(pk, enabled=False)

    def _switch(self, trust_root_id: UUID, *, enabled: bool) -> Response:
        reason = self.parse(forms.SkillReasonSerializer)["reason"]
        try:
            root = switch_trust_root(
                organization_id=self.caller.organization_id,
                trust_root_id=trust_root_id,
                enabled=enabled,
                actor=self.caller.actor,
                reason=reason,
                now=timezone.now(),
            )
        except (TrustRoot.DoesNotExist, ValidationError):  # unknown, or no UUID at all
            raise Http404 from None
        return Response(forms.TrustRootSerializer(root).data)


class RevocationViews(mixins.ListModelMixin, _Views):
    """Contents and publishers' certificates that are no longer accepted."""

    queryset = Revocation.objects.none()
    serializer_class = forms.RevocationSerializer

    def get_queryset(self) -> QuerySet[Revocation]:
        return Revocation.objects.filter(organization_id=self.caller.organization_id)

    @extend_schema(
        request=forms.RevocationRequestSerializer, responses={201: forms.RevocationSerializer}
    )
    def create(self, request: Request) -> Response:
        """Accept a content or certificate no longer; final."""
        data = self.parse(forms.RevocationRequestSerializer)
        revocation = revoke_artifact(
            organization_id=self.caller.organization_id,
            kind=RevocationKind(data["kind"]),
            value=data["value"],
            reason=data["reason"],
            actor=self.caller.actor,
            now=timezone.now(),
        )
        return Response(forms.RevocationSerializer(revocation).data, status=201)


class SigningKeyViews(mixins.ListModelMixin, _Views):
    """Public halves of the keys that sign this organization's cards."""

    queryset = SigningKey.objects.none()
    serializer_class = forms.SigningKeySerializer

    def get_queryset(self) -> QuerySet[SigningKey]:
        return SigningKey.objects.filter(organization_id=self.caller.organization_id)


class RequirementViews(_Views):
    """Whether every agent's calls must be covered by a valid card."""

    queryset = Organization.objects.none()
    serializer_class = forms.RequirementSerializer
    pagination_class = None
    write_scope = Scope.ADMIN.value
    filterset_fields: ClassVar[tuple[str, ...]] = ()

    @extend_schema(operation_id="skill_requirement_read", responses=forms.RequirementSerializer)
    def read(self, request: Request) -> Response:
        organization = Organization.objects.get(pk=self.caller.organization_id)
        return Response({"required": organization.requires_skill_cards})

    @extend_schema(
        operation_id="skill_requirement_write",
        request=forms.RequirementSerializer,
        responses=forms.RequirementSerializer,
    )
    def write(self, request: Request) -> Response:
        organization = require_cards(
            organization_id=self.caller.organization_id,
            actor=self.caller.actor,
            now=timezone.now(),
            **self.parse(forms.RequirementSerializer),
        )
        return Response({"required": organization.requires_skill_cards})
