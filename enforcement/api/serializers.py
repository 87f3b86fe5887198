"""What the API says of orders, sidecars and their books."""

from datetime import datetime
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from budgets.api.fields import AMOUNT_SCHEMA, amount_out
from budgets.enums import choices_of
from controlplane.api import StrictSerializer
from controlplane.identity.api.serializers import SHOWN_ONCE
from enforcement.models import Order, OrderAcknowledgement, Sidecar, Spool
from enforcement.queries import Exposure, waiting_for
from enforcement.rules.policy import OrderKind, ScopeKind, Unit


class OrderReasonSerializer(StrictSerializer):
    reason = serializers.CharField(max_length=500, help_text="Why: it stands in the audit trail.")


class StopSerializer(OrderReasonSerializer):
    drain = serializers.BooleanField(
        default=False, help_text="Running calls may end within their holds; new ones are refused."
    )
    session = serializers.CharField(
        max_length=256, required=False, help_text="Only this session of the agent."
    )


class ResumeSerializer(OrderReasonSerializer):
    session = serializers.CharField(
        max_length=256, required=False, help_text="Only this session of the agent."
    )


class AcknowledgementSerializer(serializers.ModelSerializer[OrderAcknowledgement]):
    """A book's receipt. `after_ms` is the time from the order to its arrival here."""

    sidecar = serializers.UUIDField(source="spool.sidecar_id", read_only=True)
    sidecar_name = serializers.CharField(source="spool.sidecar.name", read_only=True)
    book = serializers.CharField(source="spool.book", read_only=True)
    after_ms = serializers.SerializerMethodField()

    class Meta:
        model = OrderAcknowledgement
        fields = [
            "spool", "book", "sidecar", "sidecar_name", "streams_cut", "tokens_after",
            "last_byte_ms", "at", "after_ms",
        ]  # fmt: skip
        read_only_fields = fields

    def get_after_ms(self, row: OrderAcknowledgement) -> int:
        return milliseconds_between(row.order.created_at, row.at)


class WaitingBookSerializer(serializers.ModelSerializer[Spool]):
    """A book that has not acknowledged; it stops by itself at `policy_valid_until` (L12)."""

    spool = serializers.UUIDField(source="id", read_only=True)
    sidecar_name = serializers.CharField(source="sidecar.name", read_only=True)

    class Meta:
        model = Spool
        fields = ["spool", "book", "sidecar", "sidecar_name", "last_sync_at", "policy_valid_until"]
        read_only_fields = fields


class OrderSerializer(serializers.ModelSerializer[Order]):
    kind = serializers.ChoiceField(choices=choices_of(OrderKind), read_only=True)
    scope_kind = serializers.ChoiceField(choices=choices_of(ScopeKind), read_only=True)

    class Meta:
        model = Order
        fields = [
            "id", "cursor", "kind", "scope_kind", "scope_id", "scope_session", "drain", "actor",
            "reason", "created_at",
        ]  # fmt: skip
        read_only_fields = fields


class OrderReceiptSerializer(OrderSerializer):
    """An order with who has acknowledged it, and which live books have not."""

    acknowledgements = serializers.SerializerMethodField()
    waiting = serializers.SerializerMethodField()
    streams_cut = serializers.SerializerMethodField()

    class Meta(OrderSerializer.Meta):
        fields = [*OrderSerializer.Meta.fields, "streams_cut", "acknowledgements", "waiting"]
        read_only_fields = fields

    @extend_schema_field(AcknowledgementSerializer(many=True))
    def get_acknowledgements(self, order: Order) -> Any:
        return AcknowledgementSerializer(self._received(order), many=True).data

    @extend_schema_field(WaitingBookSerializer(many=True))
    def get_waiting(self, order: Order) -> Any:
        return WaitingBookSerializer(waiting_for(order), many=True).data

    def get_streams_cut(self, order: Order) -> int:
        return sum(row.streams_cut for row in self._received(order))

    def _received(self, order: Order) -> list[OrderAcknowledgement]:
        if not hasattr(self, "_rows"):
            rows = order.acknowledgements.select_related("order", "spool__sidecar")
            self._rows = list(rows.order_by("at", "id"))
        return self._rows


class RefusedNodeSerializer(serializers.Serializer[dict[str, str]]):
    """A node that a sidecar named and does not speak for."""

    name = serializers.CharField()
    why = serializers.CharField()


class SidecarSerializer(serializers.ModelSerializer[Sidecar]):
    token_prefix = serializers.CharField(source="token.prefix", read_only=True)
    revoked_at = serializers.DateTimeField(source="token.revoked_at", read_only=True)
    refused_nodes = RefusedNodeSerializer(many=True, read_only=True)

    class Meta:
        model = Sidecar
        fields = [
            "id", "name", "version", "created_at", "last_seen_at", "token_prefix", "revoked_at",
            "refused_nodes",
        ]  # fmt: skip
        read_only_fields = fields


class SidecarEnrolSerializer(StrictSerializer):
    name = serializers.CharField(max_length=100)


class EnrolledSidecarSerializer(SidecarSerializer):
    secret = serializers.CharField(read_only=True, allow_null=True, help_text=SHOWN_ONCE)

    class Meta(SidecarSerializer.Meta):
        fields = [*SidecarSerializer.Meta.fields, "secret"]
        read_only_fields = fields


class ExposureSerializer(serializers.Serializer[Exposure]):
    """Amounts of one budget at a book."""

    budget = serializers.UUIDField()
    budget_name = serializers.CharField()
    unit = serializers.ChoiceField(choices=choices_of(Unit))
    leased = serializers.SerializerMethodField(help_text="what it may still spend by itself")
    open = serializers.SerializerMethodField(help_text="of that, held by running requests")
    suspense = serializers.SerializerMethodField(help_text="leases that ran out unaccounted for")

    @extend_schema_field(AMOUNT_SCHEMA)
    def get_leased(self, row: Exposure) -> str | int:
        return amount_out(row.unit, row.leased)

    @extend_schema_field(AMOUNT_SCHEMA)
    def get_open(self, row: Exposure) -> str | int:
        return amount_out(row.unit, row.open)

    @extend_schema_field(AMOUNT_SCHEMA)
    def get_suspense(self, row: Exposure) -> str | int:
        return amount_out(row.unit, row.suspense)


class SpoolSerializer(serializers.ModelSerializer[Spool]):
    """A book: one worker of a sidecar, with its journal, its epoch and its live exposure."""

    sidecar_name = serializers.CharField(source="sidecar.name", read_only=True)
    exposure = serializers.SerializerMethodField()

    class Meta:
        model = Spool
        fields = [
            "id", "book", "sidecar", "sidecar_name", "epoch", "incarnation", "waived_for",
            "policy_revision", "policy_valid_until", "last_sync_at", "health", "sessions",
            "exposure",
        ]  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(ExposureSerializer(many=True))
    def get_exposure(self, book: Spool) -> Any:
        rows: Any = self.context["exposures"].get(book.pk, [])
        return ExposureSerializer(rows, many=True).data


def milliseconds_between(start: datetime, end: datetime) -> int:
    return max(0, int((end - start).total_seconds() * 1000))
