from django.db import models
from django.db.models import F, Q

from budgets.enums import DelegationState
from budgets.models.balance import Balance
from budgets.models.budget import Budget
from controlplane.identity.ids import new_id


class Delegation(models.Model):
    """What a session gave to a child session out of one of its balances (L14).

    Those of one token have the same `handle`. While it is open, or closing, `amount` less what came
    home stands in the parent's `given_amount`.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    handle = models.UUIDField()
    organization = models.ForeignKey("identity.Organization", models.PROTECT, related_name="+")
    # The foreign keys are composite, with the organization: migration 0009.
    budget = models.ForeignKey(
        Budget, models.PROTECT, db_constraint=False, related_name="delegations"
    )
    parent = models.ForeignKey(
        Balance, models.PROTECT, db_constraint=False, related_name="children"
    )
    child = models.ForeignKey(
        Balance, models.PROTECT, db_constraint=False, related_name="delegated_from"
    )
    parent_agent = models.UUIDField()
    child_agent = models.UUIDField()
    depth = models.SmallIntegerField()
    amount = models.BigIntegerField()
    home_amount = models.BigIntegerField(default=0)  # came back unused
    spent_amount = models.BigIntegerField(default=0)  # settled on the parent, at the end
    state = models.CharField(
        max_length=8, choices=DelegationState.choices, default=DelegationState.OPEN
    )
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["organization", "-created_at"], name="delegation_by_time"),
            models.Index(fields=["handle"], name="delegation_by_handle"),
            models.Index(
                fields=["expires_at"], condition=~Q(state="closed"), name="delegation_to_end"
            ),
        ]
        constraints = [
            models.UniqueConstraint(fields=["child"], name="delegation_one_parent"),
            models.CheckConstraint(condition=Q(amount__gt=0), name="delegation_amount_positive"),
            models.CheckConstraint(
                condition=Q(depth__gte=1, depth__lte=8), name="delegation_depth_bounded"
            ),
            models.CheckConstraint(
                condition=~Q(parent=F("child")), name="delegation_not_to_itself"
            ),
            models.CheckConstraint(
                condition=Q(state__in=["open", "closing"], closed_at__isnull=True)
                | Q(
                    state="closed",
                    closed_at__isnull=False,
                    amount=F("home_amount") + F("spent_amount"),
                ),
                name="delegation_closed_accounts_for_all",
            ),
            models.CheckConstraint(
                condition=Q(home_amount__gte=0, spent_amount__gte=0)
                & Q(amount__gte=F("home_amount") + F("spent_amount")),
                name="delegation_parts_within_amount",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.amount} of {self.parent_id} for {self.child_id}"
