from django.db import models
from django.db.models import Q

from budgets.enums import LIMIT_TRANSFER, TRANSFER_KINDS, WITHOUT_LEASE
from budgets.models.balance import Balance
from budgets.models.lease import Lease
from budgets.models.rating import Rating
from controlplane.identity.ids import new_id


class Transfer(models.Model):
    """A movement between the counters of one balance. Append-only: trigger in migration 0002.

    The kinds and what they move stand in `enforcement.rules.ledger.TransferKind`; `limit` moves
    nothing, it says which limit holds from here on; `correction` takes back from spent. What a
    recorded call costs more or less at another price names its `rating`.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    sequence = models.BigIntegerField(
        db_default=models.Func(
            models.Value("budgets_transfer_sequence"),
            function="nextval",
            output_field=models.BigIntegerField(),
        ),
        editable=False,
    )
    organization = models.ForeignKey(
        "identity.Organization",
        models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="+",
    )
    # The foreign keys are composite: migration 0002. Each is found by an index of Meta: a row is
    # written for every grant, so none has two, and none is in an index of what it does not name.
    balance = models.ForeignKey(
        Balance, models.PROTECT, db_constraint=False, db_index=False, related_name="transfers"
    )
    lease = models.ForeignKey(
        Lease,
        models.PROTECT,
        null=True,
        db_constraint=False,
        db_index=False,
        related_name="transfers",
    )
    usage_event = models.ForeignKey(
        "budgets.UsageEvent",
        models.DO_NOTHING,
        null=True,
        db_constraint=False,
        db_index=False,
        related_name="transfers",
    )
    rating = models.ForeignKey(
        Rating,
        models.PROTECT,
        null=True,
        db_constraint=False,
        db_index=False,
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
            models.Index(fields=["organization", "sequence"], name="transfer_by_sequence"),
            models.Index(
                fields=["lease"], condition=Q(lease__isnull=False), name="transfer_of_lease"
            ),
            models.Index(
                fields=["usage_event"],
                condition=Q(usage_event__isnull=False),
                name="transfer_of_event",
            ),
            models.Index(
                fields=["rating"], condition=Q(rating__isnull=False), name="transfer_of_rating"
            ),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(amount__gt=0), name="transfer_amount_positive"),
            models.CheckConstraint(
                condition=Q(kind__in=TRANSFER_KINDS), name="transfer_kind_known"
            ),
            models.CheckConstraint(
                condition=Q(kind__in=WITHOUT_LEASE) | Q(lease__isnull=False),
                name="transfer_of_lease_names_it",
            ),
            models.CheckConstraint(
                condition=(
                    ~Q(kind__in=["correction", "recharge", LIMIT_TRANSFER]) & Q(rating__isnull=True)
                )
                | (~Q(actor="") & ~Q(reason="")),
                name="transfer_by_hand_has_reason",
            ),
            models.UniqueConstraint(
                fields=["balance", "usage_event", "kind"],
                condition=Q(usage_event__isnull=False, rating__isnull=True),
                name="transfer_once_for_each_event",
            ),
            models.UniqueConstraint(
                fields=["balance", "rating", "kind"],
                condition=Q(rating__isnull=False),
                name="transfer_once_for_each_rating",
            ),
            models.CheckConstraint(
                condition=Q(rating__isnull=True)
                | Q(usage_event__isnull=False, kind__in=["correction", "recharge", "overrun"]),
                name="transfer_of_rating_names_its_event",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.amount}"


class JournalSeal(models.Model):
    """A link of an organization's hash chain over its transfers. Append-only: migration 0005.

    It covers the transfers with `first ≤ sequence ≤ last`. `digest` is SHA-256 over the digest
    before it and `content`, the SHA-256 of their rows; see `budgets.domain.seals`.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey("identity.Organization", models.PROTECT, related_name="+")
    number = models.BigIntegerField()
    first = models.BigIntegerField()
    last = models.BigIntegerField()
    transfers = models.BigIntegerField()
    content = models.BinaryField()
    digest = models.BinaryField()
    sealed_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "number"], name="seal_one_number"),
            models.UniqueConstraint(fields=["organization", "first"], name="seal_one_begin"),
            models.CheckConstraint(
                condition=Q(number__gte=1)
                & Q(first__lte=models.F("last"))
                & Q(transfers__gte=1)
                & Q(transfers__lte=models.F("last") - models.F("first") + 1),
                name="seal_covers_rows",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.number} {bytes(self.digest).hex()[:16]}"


class SealHorizon(models.Model):
    """Up to which sequence every transaction is over: what may be sealed. One row."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    sealable = models.BigIntegerField(default=0)
    pending = models.BigIntegerField(default=0)  # becomes sealable when `pending_xid` is over
    pending_xid = models.BigIntegerField(default=0)
    pending_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(id=1), name="horizon_one_row"),
            models.CheckConstraint(
                condition=Q(sealable__lte=models.F("pending")), name="horizon_in_order"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.sealable} of {self.pending}"


class LedgerIncarnation(models.Model):
    """One uninterrupted history of the ledger (L11). Exactly one has no end."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    # Which history of the database it is, once a connection has told.
    system_identifier = models.BigIntegerField(null=True, blank=True)
    timeline = models.CharField(max_length=8, blank=True, default="")

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
