"""Telling sidecars that something they work by has changed."""

from uuid import UUID

from django.db import connection

HINT_CHANNEL = "comptroller_hint"


def bump_policy(organization_id: UUID) -> int:
    """Raise the policy's revision in the running transaction; sidecars are woken at its commit.

    The row stays locked until then, so revisions come in the order of commits.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE identity_organization SET policy_revision = policy_revision + 1"
            " WHERE id = %s RETURNING policy_revision, pg_notify(%s, %s)",
            [organization_id, HINT_CHANNEL, str(organization_id)],
        )
        revision: int = cursor.fetchone()[0]
    return revision
