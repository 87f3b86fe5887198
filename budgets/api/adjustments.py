"""What the API says and takes of own limits and planned changes."""

from rest_framework import serializers

from budgets.api.fields import AmountField, GivenAmountField
from budgets.api.serializers import given_amount, limit_in
from budgets.enums import ChangeKind
from budgets.models import Budget, BudgetChange, BudgetOverride
from controlplane.api import StrictSerializer


class ChangeSerializer(serializers.ModelSerializer[BudgetChange]):
    """A planned change: a new limit from an instant on, or an increase for a while."""

    amount = AmountField("amount")

    class Meta:
        model = BudgetChange
        fields = [
            "id",
            "kind",
            "amount",
            "starts_at",
            "ends_at",
            "state",
            "actor",
            "reason",
            "created_at",
            "closed_at",
        ]
        read_only_fields = fields


class NewChangeSerializer(StrictSerializer):
    kind = serializers.ChoiceField(choices=ChangeKind.choices)
    amount = GivenAmountField(help_text="the new limit, or how much more")
    starts_at = serializers.DateTimeField(required=False, help_text="default: now")
    ends_at = serializers.DateTimeField(required=False, help_text="of an increase")
    reason = serializers.CharField(max_length=500)

    def amount_of(self, budget: Budget) -> int:
        return given_amount(budget.unit, "amount", self.validated_data["amount"])


class CancelSerializer(StrictSerializer):
    reason = serializers.CharField(max_length=500, default="", allow_blank=True)


class OverrideSerializer(serializers.ModelSerializer[BudgetOverride]):
    """The limit of one split value that differs from its budget's."""

    limit = AmountField("limit_amount")

    class Meta:
        model = BudgetOverride
        fields = ["value", "limit", "created_at"]
        read_only_fields = fields


class NewOverrideSerializer(StrictSerializer):
    value = serializers.CharField(max_length=200)
    limit = GivenAmountField()
    reason = serializers.CharField(max_length=500, default="", allow_blank=True)

    def limit_amount(self, budget: Budget) -> int:
        return limit_in(budget.unit, self.validated_data["limit"])


class OverrideValueSerializer(StrictSerializer):
    value = serializers.CharField(max_length=200)
    reason = serializers.CharField(max_length=500, default="", allow_blank=True)
