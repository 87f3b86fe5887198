"""What the API says and takes. Unknown fields are refused by name."""

from collections.abc import Callable
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from budgets.api.fields import AmountField, GivenAmountField, amount_in, amount_out
from budgets.domain.budgets import BudgetSpec
from budgets.domain.priceversions import matched
from budgets.enums import Period, Rollover, WindowKind, choices_of
from budgets.models import (
    Balance,
    Budget,
    Lease,
    Refusal,
    RejectedEvent,
    Transfer,
    UsageEvent,
)
from controlplane.api import StrictSerializer, UsdField
from enforcement.rules.policy import (
    HoldMode,
    Mode,
    Overflow,
    Per,
    ScopeKind,
    Unit,
)

_NEW_ENUMS = {
    "scope_kind": ScopeKind,
    "overflow": Overflow,
    "unit": Unit,
    "mode": Mode,
    "hold_mode": HoldMode,
    "window_kind": WindowKind,
    "rollover": Rollover,
}
_WHAT = (
    "each a percent of the limit (of what is used, or with basis forecast of what will be), and"
    " actions in order: notify, throttle (requests_per_minute), reroute (model), approval (amount),"
    " pause, refuse, cut, kill"
)


class BudgetSerializer(serializers.ModelSerializer[Budget]):
    limit = AmountField("limit_amount")
    thresholds = serializers.SerializerMethodField()
    increase = AmountField("increase_amount")
    rollover_amount = AmountField("rollover_amount")

    class Meta:
        model = Budget
        fields = [
            "id",
            "name",
            "scope_kind",
            "scope_id",
            "scope_session",
            "filters",
            "per",
            "unit",
            "limit",
            "increase",
            "mode",
            "hold_mode",
            "window_kind",
            "period",
            "time_zone",
            "anchor_day",
            "anchor_month",
            "ends_at",
            "rolling_s",
            "rolling_parts",
            "rollover",
            "rollover_amount",
            "max_values",
            "overflow",
            "thresholds",
            "state",
            "armed_at",
            "policy_revision",
            "created_at",
            "archived_at",
        ]
        read_only_fields = fields

    @extend_schema_field({"type": "array", "items": {"type": "object", "additionalProperties": {}}})
    def get_thresholds(self, budget: Budget) -> list[dict[str, Any]]:
        return _each_amount(budget.thresholds, lambda amount: amount_out(budget.unit, amount))


class NewBudgetSerializer(StrictSerializer):
    """A budget to make. Money is a decimal string of dollars, all other units are integers."""

    name = serializers.CharField(max_length=200)
    scope_kind = serializers.ChoiceField(choices=choices_of(ScopeKind))
    scope_id = serializers.UUIDField(help_text="of a session: the id of its agent")
    scope_session = serializers.CharField(max_length=128, default="", allow_blank=True)
    filters = serializers.DictField(
        child=serializers.ListField(child=serializers.CharField(max_length=200), max_length=100),
        default=dict,
        help_text="user, model, provider, node, skill or tag:NAME → patterns, exact or with a * "
        "at the end; every fact must fit one of its patterns",
    )
    per = serializers.CharField(
        max_length=72,
        default="",
        allow_blank=True,
        help_text="a balance for each: "
        + ", ".join(per.value for per in Per if per)
        + " or tag:NAME",
    )
    unit = serializers.ChoiceField(choices=choices_of(Unit))
    limit = GivenAmountField()
    mode = serializers.ChoiceField(choices=choices_of(Mode), default=Mode.HARD.value)
    hold_mode = serializers.ChoiceField(choices=choices_of(HoldMode), default=HoldMode.STRICT.value)
    window_kind = serializers.ChoiceField(choices=WindowKind.choices, default=WindowKind.LIFETIME)
    period = serializers.ChoiceField(choices=Period.choices, default="", allow_blank=True)
    time_zone = serializers.CharField(max_length=64, default="UTC")
    anchor_day = serializers.IntegerField(default=1, help_text="1 to 28, of months and longer")
    anchor_month = serializers.IntegerField(default=1, help_text="1 to 12, of quarters and years")
    ends_at = serializers.DateTimeField(default=None, help_text="of a window until a date")
    rolling_s = serializers.IntegerField(
        default=None, help_text="of a rolling window: how many seconds count"
    )
    rolling_parts = serializers.IntegerField(
        default=0, help_text="in how many parts a rolling window moves on; 0: as many as suit it"
    )
    rollover = serializers.ChoiceField(
        choices=Rollover.choices,
        default=Rollover.NONE,
        help_text="what is left of a calendar window goes to the next one",
    )
    rollover_amount = GivenAmountField(default=None, help_text="the most that a capped one carries")
    max_values = serializers.IntegerField(default=10_000)
    overflow = serializers.ChoiceField(
        choices=choices_of(Overflow),
        default=Overflow.REFUSE.value,
        help_text="values beyond max_values are refused, or share one balance",
    )
    thresholds = serializers.ListField(child=serializers.DictField(), default=list, help_text=_WHAT)
    reason = serializers.CharField(max_length=500, default="", allow_blank=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        attrs["limit"] = limit_in(attrs["unit"], attrs["limit"])
        if attrs["rollover_amount"] is not None:
            given = attrs["rollover_amount"]
            attrs["rollover_amount"] = given_amount(attrs["unit"], "rollover_amount", given)
        attrs["thresholds"] = _thresholds_in(attrs["unit"], attrs["thresholds"])
        return attrs

    def to_spec(self) -> BudgetSpec:
        values = {key: value for key, value in self.validated_data.items() if key != "reason"}
        for name, enum in _NEW_ENUMS.items():
            values[name] = enum(values[name])
        return BudgetSpec(limit_amount=values.pop("limit"), **values)


class BudgetChangeSerializer(StrictSerializer):
    """What of a budget can change; what names its balances cannot."""

    name = serializers.CharField(max_length=200, required=False)
    limit = GivenAmountField(required=False)
    mode = serializers.ChoiceField(choices=choices_of(Mode), required=False)
    hold_mode = serializers.ChoiceField(choices=choices_of(HoldMode), required=False)
    max_values = serializers.IntegerField(required=False)
    overflow = serializers.ChoiceField(choices=choices_of(Overflow), required=False)
    rollover = serializers.ChoiceField(choices=Rollover.choices, required=False)
    rollover_amount = GivenAmountField(required=False, allow_null=True)
    thresholds = serializers.ListField(
        child=serializers.DictField(), required=False, help_text=_WHAT
    )
    reason = serializers.CharField(max_length=500, default="", allow_blank=True)

    def changes(self, budget: Budget) -> dict[str, Any]:
        """The changes in the names of the domain."""
        values = {key: value for key, value in self.validated_data.items() if key != "reason"}
        if "limit" in values:
            values["limit_amount"] = limit_in(budget.unit, values.pop("limit"))
        if (given := values.get("rollover_amount")) is not None:
            values["rollover_amount"] = given_amount(budget.unit, "rollover_amount", given)
        if "thresholds" in values:
            values["thresholds"] = _thresholds_in(budget.unit, values["thresholds"])
        return values


class ArchiveSerializer(StrictSerializer):
    reason = serializers.CharField(max_length=500, default="", allow_blank=True)


class WriteOffSerializer(StrictSerializer):
    reason = serializers.CharField(max_length=500)


class CorrectionSerializer(StrictSerializer):
    amount_back = GivenAmountField(help_text="how much less was spent, in the balance's unit")
    reason = serializers.CharField(max_length=500)

    def amount(self, balance: Balance) -> int:
        return given_amount(balance.budget.unit, "amount_back", self.validated_data["amount_back"])


def limit_in(unit: str, given: object) -> int:
    return given_amount(unit, "limit", given)


def _thresholds_in(unit: str, thresholds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Thresholds with the amounts of their approvals as the ledger counts them."""
    return _each_amount(thresholds, lambda amount: given_amount(unit, "thresholds", amount))


def _each_amount(
    thresholds: list[dict[str, Any]], change: Callable[[Any], Any]
) -> list[dict[str, Any]]:
    """A copy whose actions have other amounts; what has another shape is left to the rules."""

    def changed(action: Any) -> Any:
        if not isinstance(action, dict) or not action.get("amount"):
            return action
        return action | {"amount": change(action["amount"])}

    return [
        one | {"actions": [changed(action) for action in actions]}
        if isinstance(actions := one.get("actions"), list)
        else one
        for one in thresholds
    ]


def given_amount(unit: str, field: str, given: object) -> int:
    try:
        return amount_in(unit, given)
    except serializers.ValidationError as error:
        raise serializers.ValidationError({field: error.detail}) from error


class BalanceSerializer(serializers.ModelSerializer[Balance]):
    unit = serializers.ChoiceField(choices=choices_of(Unit), source="budget.unit", read_only=True)
    limit = AmountField("limit_amount")
    cap = AmountField("cap_amount")
    spent = AmountField("spent_amount")
    held = AmountField("held_amount")
    suspense = AmountField("suspense_amount")
    overrun = AmountField("overrun_amount")
    given = AmountField("given_amount")
    carried = AmountField("carried_amount")
    approved = AmountField("approved_amount")
    free = AmountField("free_amount")

    class Meta:
        model = Balance
        fields = [
            "id",
            "budget",
            "value",
            "window_start",
            "window_end",
            "hard",
            "unit",
            "limit",
            "cap",
            "spent",
            "held",
            "suspense",
            "overrun",
            "given",
            "carried",
            "approved",
            "free",
            "closed_at",
            "updated_at",
        ]
        read_only_fields = fields


class LeaseSerializer(serializers.ModelSerializer[Lease]):
    amount = AmountField("amount")
    used = AmountField("used_amount")
    returned = AmountField("returned_amount")
    overrun = AmountField("overrun_amount")
    open = AmountField("open_amount")

    class Meta:
        model = Lease
        fields = [
            "id",
            "balance",
            "spool",
            "epoch",
            "incarnation",
            "group_key",
            "amount",
            "used",
            "returned",
            "overrun",
            "open",
            "state",
            "granted_at",
            "expires_at",
            "closed_at",
        ]
        read_only_fields = fields


class TransferSerializer(serializers.ModelSerializer[Transfer]):
    amount = AmountField("amount")

    class Meta:
        model = Transfer
        fields = [
            "id",
            "sequence",
            "balance",
            "lease",
            "usage_event",
            "rating",
            "kind",
            "amount",
            "at",
            "actor",
            "reason",
        ]
        read_only_fields = fields


class RejectedEventSerializer(serializers.ModelSerializer[RejectedEvent]):
    """A usage event that cannot be true. `document`: as it was said, cut at 16,384 letters."""

    sha256 = serializers.SerializerMethodField()

    class Meta:
        model = RejectedEvent
        fields = [
            "id",
            "event",
            "reason",
            "source",
            "sidecar",
            "spool",
            "document",
            "whole",
            "size_bytes",
            "sha256",
            "received_at",
        ]
        read_only_fields = fields

    def get_sha256(self, row: RejectedEvent) -> str:
        return bytes(row.digest).hex()


class UsageEventSerializer(serializers.ModelSerializer[UsageEvent]):
    """`charge` is what was booked with the call; `current_charge` what it costs now."""

    charge = UsdField(source="charge_nanos", read_only=True)
    current_charge = UsdField(source="current_nanos", read_only=True)
    price_rule = serializers.SerializerMethodField()

    class Meta:
        model = UsageEvent
        fields = [
            "id",
            "agent",
            "team",
            "project",
            "session",
            "user",
            "model",
            "provider",
            "node",
            "skill",
            "endpoint",
            "sidecar",
            "source",
            "started_at",
            "received_at",
            "input_tokens",
            "cached_input_tokens",
            "cache_write_tokens",
            "output_tokens",
            "reasoning_tokens",
            "cache_write_long_tokens",
            "input_audio_tokens",
            "input_image_tokens",
            "output_audio_tokens",
            "service_tier",
            "gpu_ms",
            "tool_calls",
            "charge",
            "current_charge",
            "price_version",
            "price_rule",
            "outcome",
            "stream",
            "tags",
            "parts",
            "attempt",
            "duration_ms",
            "ttft_ms",
            "finish_reason",
            "stopped_by",
            "upstream_id",
            "presumed",
            "estimated",
        ]
        read_only_fields = fields

    def get_price_rule(self, event: UsageEvent) -> str:
        """The rule of its price version that its model matched; empty if nothing priced it."""
        return matched(event.price_version) if event.price_version else ""


class RefusalSerializer(serializers.ModelSerializer[Refusal]):
    class Meta:
        model = Refusal
        fields = ["id", "agent", "model", "budget", "code", "count", "message", "at"]
        read_only_fields = fields


class UsageSumSerializer(serializers.Serializer[Any]):
    """Use of one group, or of all."""

    calls = serializers.IntegerField()
    cut_calls = serializers.IntegerField()
    input_tokens = serializers.IntegerField()
    cached_input_tokens = serializers.IntegerField()
    output_tokens = serializers.IntegerField()
    reasoning_tokens = serializers.IntegerField()
    charge = UsdField(source="charge_nanos")


class UsageGroupSerializer(UsageSumSerializer):
    """`key` names the group by each grouping, in the order that was asked; `names` for people."""

    key = serializers.DictField(child=serializers.CharField(allow_null=True))
    names = serializers.DictField(child=serializers.CharField())


class UsageSummarySerializer(serializers.Serializer[Any]):
    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
    group_by = serializers.ListField(child=serializers.CharField())
    total = UsageSumSerializer()
    groups = UsageGroupSerializer(many=True)


class SummaryQuerySerializer(StrictSerializer):
    """Parameters of a usage summary: half-open `[since, until)`, at most 400 days."""

    since = serializers.DateTimeField(required=False)
    until = serializers.DateTimeField(required=False)
    group_by = serializers.CharField(default="agent", help_text="one or more, with commas")
    agent = serializers.UUIDField(required=False)
