from django.db import models
from django.db.models import Q

from controlplane.identity.ids import new_id


class Rating(models.Model):
    """What a recorded call costs at another price than it was charged at. Append-only: trigger.

    A call's ratings are numbered from 1; each begins at the charge that the one before it left, the
    first at the event's own. So the last one says what the call costs now.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey(
        "identity.Organization", models.DO_NOTHING, db_constraint=False, related_name="+"
    )
    usage_event = models.ForeignKey(
        "budgets.UsageEvent", models.DO_NOTHING, db_constraint=False, related_name="ratings"
    )
    started_at = models.DateTimeField()  # the call's
    number = models.IntegerField()
    old_price_version = models.ForeignKey(
        "budgets.PriceVersion",
        models.DO_NOTHING,
        null=True,
        db_constraint=False,
        related_name="+",
    )
    price_version = models.ForeignKey("budgets.PriceVersion", models.PROTECT, related_name="+")
    old_charge_nanos = models.BigIntegerField()
    charge_nanos = models.BigIntegerField()
    at = models.DateTimeField()
    actor = models.CharField(max_length=200)
    reason = models.CharField(max_length=500)

    class Meta:
        indexes = [
            models.Index(fields=["organization", "started_at"], name="rating_by_time"),
            models.Index(fields=["at"], name="rating_by_booking"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["usage_event", "number"], name="rating_one_number"),
            models.CheckConstraint(
                condition=Q(number__gte=1, old_charge_nanos__gte=0, charge_nanos__gte=0),
                name="rating_amounts_not_negative",
            ),
            models.CheckConstraint(
                condition=~Q(actor="") & ~Q(reason=""), name="rating_says_who_and_why"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.usage_event_id} #{self.number}: {self.charge_nanos}"

    @property
    def delta_nanos(self) -> int:
        return self.charge_nanos - self.old_charge_nanos
