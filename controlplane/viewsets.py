"""The base of view sets: rows of the caller's organization, strict input, one clock reading."""

from datetime import datetime
from typing import Any, TypeVar

from django.db.models import Model, QuerySet
from django.utils import timezone
from rest_framework.serializers import BaseSerializer
from rest_framework.viewsets import GenericViewSet

from controlplane.api import Caller, caller_of

Row = TypeVar("Row", bound=Model)


class OrganizationViewSet(GenericViewSet[Row]):
    """Views of rows that have an organization. Foreign ones are as unknown as none at all."""

    lookup_value_converter = "uuid"

    @property
    def caller(self) -> Caller:
        return caller_of(self.request)

    @property
    def now(self) -> datetime:
        """The time of the request: read once."""
        if not hasattr(self, "_now"):
            self._now = timezone.now()
        return self._now

    @property
    def who(self) -> dict[str, Any]:
        """What every domain function asks for."""
        caller = self.caller
        return {
            "organization_id": caller.organization_id,
            "actor": caller.actor,
            "now": self.now,
        }

    def get_queryset(self) -> QuerySet[Row]:
        rows: QuerySet[Row] = super().get_queryset()
        if getattr(self, "swagger_fake_view", False):
            return rows.none()
        return rows.filter(organization_id=self.caller.organization_id)

    def parse(self, kind: type[BaseSerializer[Any]], *, partial: bool = False) -> dict[str, Any]:
        """The request's body, validated."""
        given = kind(data=self.request.data, partial=partial)
        given.is_valid(raise_exception=True)
        data: dict[str, Any] = given.validated_data
        return data
