from django.db import models
from django.db.models import Q

from budgets.enums import LIMIT_TRANSFER, TRANSFER_KINDS
from budgets.models.balance import Balance
from budgets.models.lease import Lease
from controlplane.identity.ids import new_id


class Transfer(models.Model):
    """A movement between the counters of one balance. Append-only: trigger in migration 0002.

    The kinds and what they move stand in `enforcement.rules.ledger.TransferKind`; `limit` moves
    nothing, it says which limit holds from here on; `correction` takes back from spent.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey(
        "identity.Organization", models.DO_NOTHING, db_constraint=False, related_name="+"
    )
    # The foreign keys are composite: migration 0002.
    balance = models.ForeignKey(
        Balance, models.PROTECT, db_constraint=False, related_name="transfers"
    )
    lease = models.ForeignKey(
        Lease, models.PROTECT, null=True, db_constraint=False, related_name="transfers"
    )
    usage_event = models.ForeignKey(
        "budgets.UsageEvent",
        models.DO_NOTHING,
        null=True,
        db_constraint=False,
        related_name="transfers",
    )
    kind = models.CharField(max_length=12, choices=[(kind, kind) for kind in TRANSFER_KINDS])
    amount = models.BigIntegerField()
    at = models.DateTimeField()
    actor = models.CharField(max_length=200, default="", blank=True)
    reason = models.CharField(max_length=500, default="", blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["balance", "-id"], name="transfer_of_balance"),
            models.Index(fields=["organization", "-id"], name="transfer_of_organization"),
            models.Index(
                fields=["lease"], condition=Q(lease__isnull=False), name="transfer_of_lease"
            ),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(amount__gt=0), name="transfer_amount_positive"),
            models.CheckConstraint(
                condition=Q(kind__in=TRANSFER_KINDS), name="transfer_kind_known"
            ),
            models.CheckConstraint(
                condition=Q(kind__in=["overrun", "usage", "correction", LIMIT_TRANSFER])
                | Q(lease__isnull=False),
                name="transfer_of_lease_names_it",
            ),
            models.CheckConstraint(
                condition=~Q(kind__in=["correction", LIMIT_TRANSFER])
                | (~Q(actor="") & ~Q(reason="")),
                name="transfer_by_hand_has_reason",
            ),
            models.UniqueConstraint(
                fields=["balance", "usage_event", "kind"],
                condition=Q(usage_event__isnull=False),
                name="transfer_once_for_each_event",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.amount}"


class LedgerIncarnation(models.Model):
    """One uninterrupted history of the ledger (L11). Exactly one has no end."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["ended_at"],
                nulls_distinct=False,
                name="incarnation_one_current",
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)
