from django.db import models
from django.db.models import Q

from budgets.enums import ApprovalState, choices_of
from budgets.models.balance import Balance
from budgets.models.budget import Budget
from controlplane.identity.ids import new_id
from enforcement.rules.thresholds import MAX_PERCENT, MEASURES, Basis


class ThresholdFiring(models.Model):
    """A threshold that a balance has reached, and what it does until it is armed again.

    `lifted_at`: a person ended its measures; it does not fire anew before it was armed.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey("identity.Organization", models.PROTECT, related_name="+")
    # The foreign keys are composite, with the organization: migration 0008.
    budget = models.ForeignKey(Budget, models.PROTECT, db_constraint=False, related_name="firings")
    balance = models.ForeignKey(
        Balance, models.PROTECT, db_constraint=False, related_name="firings"
    )
    basis = models.CharField(max_length=8, choices=choices_of(Basis))
    percent = models.SmallIntegerField()
    actions = models.JSONField()
    used_amount = models.BigIntegerField()
    limit_amount = models.BigIntegerField()
    fired_at = models.DateTimeField()
    lifted_at = models.DateTimeField(null=True, blank=True)
    lifted_by = models.CharField(max_length=200, blank=True, default="")
    rearmed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["organization", "-fired_at"],
                condition=Q(rearmed_at__isnull=True),
                name="firing_that_holds",
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["balance", "basis", "percent"],
                condition=Q(rearmed_at__isnull=True),
                name="firing_once_until_armed",
            ),
            models.CheckConstraint(
                condition=Q(percent__gte=1, percent__lte=MAX_PERCENT)
                & Q(basis__in=[basis.value for basis in Basis]),
                name="firing_of_a_threshold",
            ),
            models.CheckConstraint(
                condition=Q(lifted_at__isnull=True, lifted_by="")
                | (Q(lifted_at__isnull=False) & ~Q(lifted_by="")),
                name="firing_lifted_by_somebody",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.budget_id} {self.percent} %"

    @property
    def has_measures(self) -> bool:
        """Whether it does something to calls for as long as it holds."""
        return any(action["kind"] in MEASURES for action in self.actions)


class ApprovalRequest(models.Model):
    """A question to people: may this balance have more in its window?"""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey("identity.Organization", models.PROTECT, related_name="+")
    # The foreign keys are composite, with the organization: migration 0008.
    budget = models.ForeignKey(
        Budget, models.PROTECT, db_constraint=False, related_name="approvals"
    )
    balance = models.ForeignKey(
        Balance, models.PROTECT, db_constraint=False, related_name="approvals"
    )
    amount = models.BigIntegerField()  # asked for; once approved, what was given
    reason = models.CharField(max_length=500)
    state = models.CharField(
        max_length=8, choices=ApprovalState.choices, default=ApprovalState.PENDING
    )
    asked_at = models.DateTimeField()
    decided_at = models.DateTimeField(null=True, blank=True)
    decided_by = models.CharField(max_length=200, blank=True, default="")
    decision = models.CharField(max_length=500, blank=True, default="")

    class Meta:
        indexes = [
            models.Index(fields=["organization", "-asked_at"], name="approval_by_time"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["balance"],
                condition=Q(state=ApprovalState.PENDING.value),
                name="approval_asked_once",
            ),
            models.CheckConstraint(condition=Q(amount__gt=0), name="approval_amount_positive"),
            models.CheckConstraint(
                condition=Q(state="pending", decided_at__isnull=True, decided_by="")
                | (
                    Q(state__in=["approved", "denied", "expired"], decided_at__isnull=False)
                    & ~Q(decided_by="")
                ),
                name="approval_decided_by_somebody",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.amount} more: {self.state}"


class Notification(models.Model):
    """Something that people of an organization should know."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey("identity.Organization", models.PROTECT, related_name="+")
    budget = models.ForeignKey(
        Budget, models.PROTECT, null=True, db_constraint=False, related_name="+"
    )
    title = models.CharField(max_length=300)
    body = models.CharField(max_length=1_000, blank=True, default="")
    created_at = models.DateTimeField()
    seen_at = models.DateTimeField(null=True, blank=True)
    seen_by = models.CharField(max_length=200, blank=True, default="")

    class Meta:
        indexes = [
            models.Index(fields=["organization", "-created_at"], name="notification_by_time"),
        ]
        constraints = [
            models.CheckConstraint(condition=~Q(title=""), name="notification_says_something"),
            models.CheckConstraint(
                condition=Q(seen_at__isnull=True, seen_by="")
                | (Q(seen_at__isnull=False) & ~Q(seen_by="")),
                name="notification_seen_by_somebody",
            ),
        ]

    def __str__(self) -> str:
        return self.title
