from django.db import models

from controlplane.identity.models.organization import Organization


class IdempotentAnswer(models.Model):
    """What was answered to a request that named an `Idempotency-Key`. Kept for a day."""

    id = models.BigAutoField(primary_key=True)
    organization = models.ForeignKey(Organization, models.PROTECT, related_name="+")
    caller = models.CharField(max_length=80)
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64)
    status = models.SmallIntegerField(default=0)
    body = models.JSONField(null=True)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "caller", "key"], name="idempotent_answer_once"
            ),
        ]
        indexes = [models.Index(fields=["created_at"], name="idempotent_answer_by_time")]

    def __str__(self) -> str:
        return self.key
