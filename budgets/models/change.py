from django.db import models
from django.db.models import F, Q

from budgets.enums import ChangeKind, ChangeState
from budgets.models.budget import Budget
from controlplane.identity.ids import new_id


class BudgetChange(models.Model):
    """A limit that will hold from an instant on, or an increase that holds for a while.

    `amount` is the new limit, or how much more there is until `ends_at`.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey("identity.Organization", models.PROTECT, related_name="+")
    # The foreign key is composite, with the organization: migration 0006.
    budget = models.ForeignKey(Budget, models.PROTECT, db_constraint=False, related_name="changes")
    kind = models.CharField(max_length=8, choices=ChangeKind.choices)
    amount = models.BigIntegerField()
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField(null=True, blank=True)
    state = models.CharField(max_length=9, choices=ChangeState.choices, default=ChangeState.PENDING)
    actor = models.CharField(max_length=200)
    reason = models.CharField(max_length=500)
    created_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["starts_at"], condition=Q(state="pending"), name="change_to_begin"
            ),
            models.Index(fields=["ends_at"], condition=Q(state="active"), name="change_to_end"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(amount__gt=0), name="change_amount_positive"),
            models.CheckConstraint(
                condition=Q(kind=ChangeKind.LIMIT.value, ends_at__isnull=True)
                | Q(
                    kind=ChangeKind.INCREASE.value,
                    ends_at__isnull=False,  # else the comparison is unknown, and passes
                    ends_at__gt=F("starts_at"),
                ),
                name="change_increase_ends",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["pending", "active"], closed_at__isnull=True)
                | Q(state__in=["done", "cancelled"], closed_at__isnull=False),
                name="change_closed_has_instant",
            ),
            models.CheckConstraint(
                condition=~Q(state="active") | Q(kind=ChangeKind.INCREASE.value),
                name="change_only_increases_last",
            ),
            models.CheckConstraint(
                condition=~Q(actor="") & ~Q(reason=""), name="change_says_who_and_why"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.amount} {self.state}"
