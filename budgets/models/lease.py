from django.db import models
from django.db.models import F, Q

from budgets.enums import LEASE_STATES, LIVE_LEASE_STATES, TERMINAL_LEASE_STATES
from budgets.models.balance import Balance
from controlplane.identity.ids import new_id


class Lease(models.Model):
    """An amount taken out of one balance for one spool, for a time.

    `used`, `returned` and `overrun` are watermarks that never fall, `open` is a gauge (L5).
    Terminal states are final (I7): trigger in migration 0002.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey(
        "identity.Organization", models.DO_NOTHING, db_constraint=False, related_name="+"
    )
    # The foreign key is composite, with the organization: migration 0002. `lease_history` finds it.
    balance = models.ForeignKey(
        Balance, models.PROTECT, db_constraint=False, db_index=False, related_name="leases"
    )
    spool = models.UUIDField()
    epoch = models.IntegerField()
    incarnation = models.UUIDField()
    group_key = models.UUIDField()
    group_hash = models.CharField(max_length=64)
    amount = models.BigIntegerField()
    used_amount = models.BigIntegerField(default=0)
    returned_amount = models.BigIntegerField(default=0)
    overrun_amount = models.BigIntegerField(default=0)
    open_amount = models.BigIntegerField(default=0)
    state = models.CharField(
        max_length=12, default="granted", choices=[(state, state) for state in LEASE_STATES]
    )
    granted_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["expires_at"],
                condition=Q(state__in=["granted", "recalled"]),
                name="lease_due",
            ),
            models.Index(
                fields=["balance"], condition=Q(state__in=LIVE_LEASE_STATES), name="lease_live"
            ),
            models.Index(
                fields=["spool", "state", "epoch"],
                condition=Q(state__in=LIVE_LEASE_STATES),
                name="lease_of_spool",
            ),
            models.Index(fields=["balance", "-granted_at"], name="lease_history"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["spool", "group_key", "balance"], name="lease_once_for_each_ask"
            ),
            models.UniqueConstraint(fields=["id", "balance"], name="lease_with_balance"),
            models.CheckConstraint(condition=Q(amount__gt=0), name="lease_amount_positive"),
            models.CheckConstraint(
                condition=Q(used_amount__gte=0)
                & Q(returned_amount__gte=0)
                & Q(overrun_amount__gte=0)
                & Q(open_amount__gte=0),
                name="lease_amounts_not_negative",
            ),
            models.CheckConstraint(
                condition=Q(amount__gte=F("used_amount") + F("returned_amount")),
                name="lease_watermarks_within_amount",
            ),
            models.CheckConstraint(condition=Q(state__in=LEASE_STATES), name="lease_state_known"),
            models.CheckConstraint(
                condition=~Q(state__in=TERMINAL_LEASE_STATES)
                | Q(
                    amount=F("used_amount") + F("returned_amount"),
                    closed_at__isnull=False,
                ),
                name="lease_closed_is_accounted_for",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.id} {self.state} {self.amount}"

    @property
    def rest_amount(self) -> int:
        """What the lease still keeps out of its balance."""
        return self.amount - self.used_amount - self.returned_amount
