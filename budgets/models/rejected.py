from django.db import models
from django.db.models import Q

from budgets.enums import choices_of
from controlplane.identity.ids import new_id
from enforcement.rules.reports.call import Source


class RejectedEvent(models.Model):
    """A usage event that cannot be true, as its sidecar or source said it. Append-only: trigger.

    It charges nothing: what its call paid from leases counts by the reports of those leases. It is
    kept so that nothing is lost, and that the sidecar need not keep it for ever.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey(
        "identity.Organization", models.DO_NOTHING, db_constraint=False, related_name="+"
    )
    sidecar = models.UUIDField(null=True)
    spool = models.UUIDField(null=True)  # of a sidecar
    source = models.CharField(
        max_length=16, choices=choices_of(Source), default="", db_default="", blank=True
    )  # who told of it, if no sidecar
    event = models.CharField(max_length=64, default="", blank=True)  # the id that it says, if any
    reason = models.CharField(max_length=500)
    document = models.TextField(default="", blank=True)  # its first characters, or all of it
    size_bytes = models.BigIntegerField()
    digest = models.BinaryField()  # SHA-256 of all of it
    whole = models.BooleanField()  # whether `document` is
    received_at = models.DateTimeField()

    class Meta:
        indexes = [
            models.Index(fields=["organization", "-received_at"], name="rejected_by_time"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "digest"], name="rejected_once_for_each_document"
            ),
            models.CheckConstraint(condition=~Q(reason=""), name="rejected_says_why"),
            models.CheckConstraint(condition=Q(size_bytes__gte=0), name="rejected_has_a_size"),
        ]

    def __str__(self) -> str:
        return f"{self.event}: {self.reason}"
