"""The API of organizations, teams, projects and agents: parse, call one domain function, answer."""

# ruff: noqa: ARG002 -- DRF hands every action its request and key

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import mixins
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.idempotency import idempotent
from controlplane.identity import domain
from controlplane.identity.api import serializers as forms
from controlplane.identity.domain.organizations import rename
from controlplane.identity.enums import Scope
from controlplane.identity.models import Agent, AgentKey, Organization, Project, Team
from controlplane.viewsets import OrganizationViewSet


class CurrentOrganizationViews(OrganizationViewSet[Organization]):
    """The caller's organization."""

    queryset = Organization.objects.all()
    serializer_class = forms.OrganizationSerializer
    pagination_class = None
    write_scope = Scope.ADMIN.value

    def get_queryset(self) -> QuerySet[Organization]:
        return Organization.objects.filter(pk=self.caller.organization_id)

    @extend_schema(operation_id="organization_read", responses=forms.OrganizationSerializer)
    def read(self, request: Request) -> Response:
        organization = self.filter_queryset(self.get_queryset()).get()
        return Response(forms.OrganizationSerializer(organization).data)

    @extend_schema(
        operation_id="organization_change",
        request=forms.OrganizationChangeSerializer,
        responses=forms.OrganizationSerializer,
    )
    def change(self, request: Request) -> Response:
        changes = self.parse(forms.OrganizationChangeSerializer)
        organization = domain.change_organization(changes=changes, **self.who)
        return Response(forms.OrganizationSerializer(organization).data)


class MeViews(OrganizationViewSet[Organization]):
    """Who the caller is."""

    queryset = Organization.objects.all()
    serializer_class = forms.MeSerializer
    pagination_class = None

    def get_queryset(self) -> QuerySet[Organization]:
        return Organization.objects.filter(pk=self.caller.organization_id)

    @extend_schema(operation_id="me_read", responses=forms.MeSerializer)
    def read(self, request: Request) -> Response:
        caller = self.caller
        facts = {
            "organization": self.filter_queryset(self.get_queryset()).get(),
            "actor_kind": caller.actor.kind,
            "actor_id": caller.actor.id,
            "actor_label": caller.actor.label,
            "person": caller.person.pk if caller.person else None,
            "scopes": sorted(caller.scopes),
        }
        return Response(forms.MeSerializer(facts).data)


class TeamViews(mixins.ListModelMixin, mixins.RetrieveModelMixin, OrganizationViewSet[Team]):
    """Teams."""

    queryset = Team.objects.all()
    serializer_class = forms.TeamSerializer
    filterset_fields = ("slug",)
    write_scope = Scope.AGENTS_WRITE.value

    @extend_schema(request=forms.TeamCreateSerializer, responses={201: forms.TeamSerializer})
    @idempotent
    def create(self, request: Request) -> Response:
        team = domain.create_team(**self.parse(forms.TeamCreateSerializer), **self.who)
        return Response(forms.TeamSerializer(team).data, status=201)

    @extend_schema(request=forms.RenameSerializer, responses=forms.TeamSerializer)
    def partial_update(self, request: Request, pk: UUID) -> Response:
        name = self.parse(forms.RenameSerializer)["name"]
        team = rename(Team, object_id=pk, name=name, **self.who)
        return Response(forms.TeamSerializer(team).data)


class ProjectViews(mixins.ListModelMixin, mixins.RetrieveModelMixin, OrganizationViewSet[Project]):
    """Projects, in a team or in none."""

    queryset = Project.objects.all()
    serializer_class = forms.ProjectSerializer
    filterset_fields = ("slug", "team")
    write_scope = Scope.AGENTS_WRITE.value

    @extend_schema(request=forms.ProjectCreateSerializer, responses={201: forms.ProjectSerializer})
    @idempotent
    def create(self, request: Request) -> Response:
        project = domain.create_project(**self.parse(forms.ProjectCreateSerializer), **self.who)
        return Response(forms.ProjectSerializer(project).data, status=201)

    @extend_schema(request=forms.RenameSerializer, responses=forms.ProjectSerializer)
    def partial_update(self, request: Request, pk: UUID) -> Response:
        name = self.parse(forms.RenameSerializer)["name"]
        project = rename(Project, object_id=pk, name=name, **self.who)
        return Response(forms.ProjectSerializer(project).data)


class AgentViews(mixins.ListModelMixin, mixins.RetrieveModelMixin, OrganizationViewSet[Agent]):
    """Agents. Their state is changed by orders: kill, pause, throttle, resume."""

    queryset = Agent.objects.all()
    serializer_class = forms.AgentSerializer
    filterset_fields = {
        "slug": ["exact"],
        "state": ["exact"],
        "team": ["exact"],
        "project": ["exact"],
        "owner": ["exact"],
        "retired_at": ["isnull"],
    }
    write_scope = Scope.AGENTS_WRITE.value

    @extend_schema(request=forms.AgentCreateSerializer, responses={201: forms.AgentSerializer})
    @idempotent
    def create(self, request: Request) -> Response:
        agent = domain.create_agent(**self.parse(forms.AgentCreateSerializer), **self.who)
        return Response(forms.AgentSerializer(agent).data, status=201)

    @extend_schema(request=forms.AgentChangeSerializer, responses=forms.AgentSerializer)
    def partial_update(self, request: Request, pk: UUID) -> Response:
        changes = self.parse(forms.AgentChangeSerializer)
        agent = domain.change_agent(agent_id=pk, changes=changes, **self.who)
        return Response(forms.AgentSerializer(agent).data)

    @extend_schema(request=forms.ReasonSerializer, responses=forms.AgentSerializer)
    @action(detail=True, methods=["post"])
    def retire(self, request: Request, pk: UUID) -> Response:
        """End the agent for ever: keys revoked, streams cut, slug and history kept."""
        reason = self.parse(forms.ReasonSerializer)["reason"]
        agent = domain.retire_agent(agent_id=pk, reason=reason, **self.who)
        return Response(forms.AgentSerializer(agent).data)


class AgentKeyViews(
    mixins.ListModelMixin, mixins.RetrieveModelMixin, OrganizationViewSet[AgentKey]
):
    """Keys of agents. Their secrets are shown once."""

    queryset = AgentKey.objects.all()
    serializer_class = forms.AgentKeySerializer
    filterset_fields = {"agent": ["exact"], "prefix": ["exact"], "revoked_at": ["isnull"]}
    write_scope = Scope.AGENTS_WRITE.value

    @extend_schema(request=forms.ReasonSerializer, responses=forms.AgentKeySerializer)
    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, pk: UUID) -> Response:
        """Revoke the key for ever. Sidecars refuse it as soon as they have the new policy."""
        reason = self.parse(forms.ReasonSerializer)["reason"]
        key = domain.revoke_agent_key(key_id=pk, reason=reason, **self.who)
        return Response(forms.AgentKeySerializer(key).data)

    @extend_schema(request=forms.RotateSerializer, responses={201: forms.IssuedAgentKeySerializer})
    @action(detail=True, methods=["post"])
    @idempotent
    def rotate(self, request: Request, pk: UUID) -> Response:
        """A new key of the same name; the old one works a while longer."""
        overlap = timedelta(seconds=self.parse(forms.RotateSerializer)["overlap_seconds"])
        issued = domain.rotate_agent_key(key_id=pk, overlap=overlap, **self.who)
        return issued_key(issued)


class KeysOfAgentViews(OrganizationViewSet[AgentKey]):
    """Issue keys of one agent."""

    queryset = AgentKey.objects.all()
    serializer_class = forms.AgentKeySerializer
    filterset_fields = ()
    write_scope = Scope.AGENTS_WRITE.value

    def get_queryset(self) -> QuerySet[AgentKey]:
        return super().get_queryset().filter(agent_id=self.kwargs["agent_id"])

    @extend_schema(operation_id="agents_keys_list", responses=forms.AgentKeySerializer(many=True))
    def list(self, request: Request, agent_id: UUID) -> Response:
        domain.find(Agent, organization_id=self.caller.organization_id, object_id=agent_id)
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset())) or []
        return self.get_paginated_response(forms.AgentKeySerializer(page, many=True).data)

    @extend_schema(
        operation_id="agents_keys_create",
        request=forms.AgentKeyIssueSerializer,
        responses={201: forms.IssuedAgentKeySerializer},
    )
    @idempotent
    def create(self, request: Request, agent_id: UUID) -> Response:
        """A new key. Its secret is in this answer and nowhere else."""
        data = self.parse(forms.AgentKeyIssueSerializer)
        return issued_key(domain.issue_agent_key(agent_id=agent_id, **data, **self.who))


def issued_key(issued: domain.IssuedKey) -> Response:
    shown: dict[str, Any] = {**forms.AgentKeySerializer(issued.key).data, "secret": issued.secret}
    return Response(shown, status=201)
