from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from controlplane.identity.enums import TokenKind
from controlplane.identity.ids import new_id
from controlplane.identity.models.organization import Organization
from controlplane.identity.models.person import Person


class ApiToken(models.Model):
    """A bearer secret for the REST API, or of a sidecar.

    A person's token never does more than that person's role of the moment.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey(Organization, models.PROTECT, related_name="api_tokens")
    person = models.ForeignKey(
        Person, models.PROTECT, null=True, blank=True, related_name="api_tokens"
    )
    name = models.CharField(max_length=100)
    kind = models.CharField(max_length=8, choices=TokenKind.choices)
    prefix = models.CharField(max_length=32, unique=True)
    token_hash = models.CharField(max_length=64)
    scopes = ArrayField(models.CharField(max_length=32), default=list, blank=True)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(kind__in=TokenKind.values),
                name="api_token_kind_known",
            ),
            models.CheckConstraint(
                condition=Q(token_hash__regex=r"^[0-9a-f]{64}$"),  # noqa: S106 -- a pattern
                name="api_token_hash_form",
            ),
            models.CheckConstraint(
                condition=Q(kind=TokenKind.API.value)
                | Q(kind=TokenKind.SIDECAR.value, scopes=[], person__isnull=True),
                name="api_token_of_sidecar_has_no_scopes",
            ),
        ]

    def __str__(self) -> str:
        return self.name
