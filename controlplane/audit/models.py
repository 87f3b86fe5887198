from django.db import models
from django.db.models import Q

from controlplane.audit.enums import ActorKind


class AuditEntry(models.Model):
    """Who changed what, when, why, and from what to what. Append-only by a trigger.

    The organization is a plain id: this app knows none of those above it, and an entry outlives
    what it tells of.
    """

    id = models.BigAutoField(primary_key=True)
    organization_id = models.UUIDField()
    at = models.DateTimeField()
    actor_kind = models.CharField(max_length=8, choices=[(kind, kind) for kind in ActorKind])
    actor_id = models.CharField(max_length=64, blank=True, default="")
    actor_label = models.CharField(max_length=254)
    action = models.CharField(max_length=64)
    object_kind = models.CharField(max_length=32)
    object_id = models.CharField(max_length=64)
    reason = models.CharField(max_length=500, blank=True, default="")
    before = models.JSONField(null=True, blank=True)
    after = models.JSONField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "audit entries"
        indexes = [
            models.Index(fields=["organization_id", "-id"], name="audit_by_organization"),
            models.Index(
                fields=["organization_id", "object_kind", "object_id", "-id"],
                name="audit_by_object",
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(actor_kind__in=[kind.value for kind in ActorKind]),
                name="audit_actor_kind_known",
            ),
            models.CheckConstraint(condition=~Q(actor_label=""), name="audit_actor_named"),
            models.CheckConstraint(condition=~Q(action=""), name="audit_action_named"),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.object_kind} {self.object_id}"
