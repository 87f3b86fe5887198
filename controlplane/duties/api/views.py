"""The API of dead letters. They belong to the installation: members of any organization see them,
and who settled one is told to their own alone, by its audit trail.
"""

# ruff: noqa: ARG002 -- DRF hands every action its request and key

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.api import CursorPagination, StrictSerializer
from controlplane.duties.domain.letters import dismiss_letter, retry_letter
from controlplane.duties.models import DeadLetter
from controlplane.duties.sending import send
from controlplane.identity.enums import Scope
from controlplane.viewsets import OrganizationViewSet


class LetterSerializer(serializers.ModelSerializer[DeadLetter]):
    """A task that failed for good. `whole`: it can be sent again."""

    class Meta:
        model = DeadLetter
        fields = [
            "id",
            "task",
            "error",
            "attempts",
            "whole",
            "first_at",
            "last_at",
            "state",
            "settled_at",
        ]
        read_only_fields = fields


class WhySerializer(StrictSerializer):
    reason = serializers.CharField(max_length=500)


class ByTime(CursorPagination):
    ordering: Any = ("-last_at", "-id")


class LetterViews(
    mixins.ListModelMixin, mixins.RetrieveModelMixin, OrganizationViewSet[DeadLetter]
):
    """Tasks that failed for good, the latest first."""

    queryset = DeadLetter.objects.all()
    serializer_class = LetterSerializer
    pagination_class = ByTime
    filterset_fields = ("state", "task")
    write_scope = Scope.ADMIN.value

    def get_queryset(self) -> QuerySet[DeadLetter]:
        return DeadLetter.objects.all()

    @extend_schema(request=WhySerializer, responses=LetterSerializer)
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, pk: UUID) -> Response:
        """Do it again. Tasks may run twice: nothing is booked doubly."""
        given = self.parse(WhySerializer)
        letter = retry_letter(pk, reason=given["reason"], send=send, **self.who)
        return Response(LetterSerializer(letter).data)

    @extend_schema(request=WhySerializer, responses=LetterSerializer)
    @action(detail=True, methods=["post"])
    def dismiss(self, request: Request, pk: UUID) -> Response:
        """Let it be."""
        given = self.parse(WhySerializer)
        return Response(
            LetterSerializer(dismiss_letter(pk, reason=given["reason"], **self.who)).data
        )
