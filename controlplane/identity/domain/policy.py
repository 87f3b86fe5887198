"""Telling sidecars that something they work by has changed."""

from uuid import UUID

from django.db import connection
from django.db.models import F

from controlplane.identity.models import Organization

HINT_CHANNEL = "comptroller_hint"


def bump_policy(organization_id: UUID) -> int:
    """Raise the policy's revision in the running transaction; sidecars are woken at its commit."""
    Organization.objects.filter(pk=organization_id).update(policy_revision=F("policy_revision") + 1)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, %s)", [HINT_CHANNEL, str(organization_id)])
    return Organization.objects.values_list("policy_revision", flat=True).get(pk=organization_id)
