from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q

from budgets.models.budget import Budget
from controlplane.identity.ids import new_id
from enforcement.rules.ledger import Balance as RuleBalance
from enforcement.rules.rolling import Ring


class Balance(models.Model):
    """The counters of one budget for one `per` value and one window.

    `limit` is what was asked for, `cap` what the database enforces: the greater of the limit and
    what was committed when the limit was lowered; it falls back as money comes home (L9).
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey(
        "identity.Organization", models.DO_NOTHING, db_constraint=False, related_name="+"
    )
    # The foreign key is composite, with the organization: migration 0002.
    budget = models.ForeignKey(
        Budget, models.PROTECT, db_constraint=False, db_index=False, related_name="balances"
    )
    value = models.CharField(max_length=200, blank=True, default="")
    window_start = models.DateTimeField()
    window_end = models.DateTimeField(null=True, blank=True)
    hard = models.BooleanField()
    lends = models.BooleanField(default=False)  # permits: nothing is ever spent
    limit_amount = models.BigIntegerField()
    cap_amount = models.BigIntegerField()
    spent_amount = models.BigIntegerField(default=0)
    held_amount = models.BigIntegerField(default=0)
    suspense_amount = models.BigIntegerField(default=0)
    overrun_amount = models.BigIntegerField(default=0)
    given_amount = models.BigIntegerField(
        default=0, db_default=0
    )  # now in the limit of another balance
    carried_amount = models.BigIntegerField(
        default=0, db_default=0
    )  # of the limit: from the window before
    approved_amount = models.BigIntegerField(
        default=0, db_default=0
    )  # of the limit: given by people, once
    delegated = models.BooleanField(
        default=False, db_default=False
    )  # its limit was given by another session
    closed_at = models.DateTimeField(null=True, blank=True)  # all that was left has gone elsewhere
    # A rolling window: its sub-buckets, oldest first, whose sums spent and overrun are.
    ring_bucket_ms = models.BigIntegerField(null=True, blank=True)
    ring_newest = models.BigIntegerField(null=True, blank=True)
    ring_spent = ArrayField(models.BigIntegerField(), null=True, blank=True)
    ring_overrun = ArrayField(models.BigIntegerField(), null=True, blank=True)
    updated_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["budget", "value", "window_start"], name="balance_one_for_each_window"
            ),
            models.UniqueConstraint(
                fields=["id", "organization"], name="balance_with_organization"
            ),
            models.CheckConstraint(
                condition=Q(spent_amount__gte=0)
                & Q(held_amount__gte=0)
                & Q(suspense_amount__gte=0)
                & Q(overrun_amount__gte=0)
                & Q(given_amount__gte=0)
                & Q(carried_amount__gte=0)
                & Q(approved_amount__gte=0),
                name="balance_amounts_not_negative",
            ),
            models.CheckConstraint(
                condition=Q(limit_amount__gt=0) | Q(limit_amount=0, closed_at__isnull=False),
                name="balance_limit_positive",
            ),
            models.CheckConstraint(
                condition=Q(lends=False) | Q(spent_amount=0), name="balance_permits_never_spent"
            ),
            models.CheckConstraint(
                condition=Q(cap_amount__gte=F("limit_amount")), name="balance_cap_covers_limit"
            ),
            models.CheckConstraint(
                condition=Q(hard=False)
                | Q(
                    cap_amount__gte=F("spent_amount")
                    + F("held_amount")
                    + F("suspense_amount")
                    + F("given_amount")
                ),
                name="balance_committed_within_cap",
            ),
            models.CheckConstraint(
                condition=Q(window_end__isnull=True) | Q(window_end__gt=F("window_start")),
                name="balance_window_not_empty",
            ),
            models.CheckConstraint(
                condition=Q(carried_amount=0, approved_amount=0)
                | Q(limit_amount__gt=F("carried_amount") + F("approved_amount")),
                name="balance_carried_within_limit",
            ),
            models.CheckConstraint(
                condition=Q(
                    ring_bucket_ms__isnull=True,
                    ring_newest__isnull=True,
                    ring_spent__isnull=True,
                    ring_overrun__isnull=True,
                )
                | Q(
                    ring_bucket_ms__gt=0,
                    ring_bucket_ms__isnull=False,
                    ring_newest__isnull=False,
                    ring_spent__isnull=False,
                    ring_overrun__isnull=False,
                    window_end__isnull=True,
                ),
                name="balance_ring_complete",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.budget_id}/{self.value}@{self.window_start:%Y-%m-%d}"

    @property
    def committed_amount(self) -> int:
        return self.spent_amount + self.held_amount + self.suspense_amount + self.given_amount

    @property
    def ring(self) -> Ring | None:
        """The sub-buckets of a rolling window, as the rules know them."""
        if self.ring_bucket_ms is None or self.ring_newest is None:
            return None
        spent, overrun = list(self.ring_spent or ()), list(self.ring_overrun or ())
        return Ring(self.ring_bucket_ms, self.ring_newest, spent, overrun)

    @ring.setter
    def ring(self, ring: Ring) -> None:
        self.ring_bucket_ms, self.ring_newest = ring.bucket_ms, ring.newest
        self.ring_spent, self.ring_overrun = ring.spent, ring.overrun

    @property
    def free_amount(self) -> int:
        """What the limit still leaves. Negative after the limit was lowered or overrun."""
        return self.limit_amount - self.committed_amount - self.overrun_amount

    def as_rule(self) -> RuleBalance:
        """The counters as the rules know them."""
        return RuleBalance(
            id=str(self.pk),
            budget=str(self.budget_id),
            value=self.value,
            window_start_s=int(self.window_start.timestamp()),
            limit=self.limit_amount,
            cap=self.cap_amount,
            spent=self.spent_amount,
            held=self.held_amount,
            suspense=self.suspense_amount,
            overrun=self.overrun_amount,
            lends=self.lends,
            given=self.given_amount,
            ring=self.ring,
            closed=self.closed_at is not None,
        )

    def take(self, rule: RuleBalance) -> None:
        """What a rule has changed: limit, cap, spent, overrun and given."""
        self.limit_amount, self.cap_amount = rule.limit, rule.cap
        self.spent_amount, self.overrun_amount = rule.spent, rule.overrun
        self.given_amount = rule.given
