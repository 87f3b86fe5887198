"""Serializer fields of the card's own format."""

from typing import Any, ClassVar

import msgspec
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from controlplane.api import StrictSerializer, UsdField
from enforcement.rules.cardformat import Capabilities, Caps, CardBudget, Source
from enforcement.rules.dsse import DsseError, convert


class _StructField(serializers.Field[Any, Any, Any, Any]):
    """A part of the card as JSON, checked by the card's own format; unknown fields are named."""

    struct: ClassVar[type[msgspec.Struct]]

    def to_internal_value(self, data: Any) -> Any:
        try:
            return convert(data, self.struct, what=self.field_name or "value")
        except DsseError as error:
            raise serializers.ValidationError(str(error)) from None

    def to_representation(self, value: Any) -> Any:
        return msgspec.to_builtins(value)


@extend_schema_field(
    {
        "type": "object",
        "description": "Tools by exact name or `prefix*`, tools that are denied under any "
        "spelling, and network, file, environment, MCP, sub-agent and model capabilities.",
        "properties": {
            "tools": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": {"type": "string"}, "args": {"type": "object"}},
                },
            },
            "denied_tools": {"type": "array", "items": {"type": "string"}},
        },
    }
)
class CapabilitiesField(_StructField):
    struct = Capabilities


@extend_schema_field(
    {
        "type": "object",
        "properties": {name: {"type": "string"} for name in ("repo", "commit", "path")},
    }
)
class SourceField(_StructField):
    struct = Source


class CapsSerializer(StrictSerializer):
    """Ceilings; what is left out is not capped by the card."""

    tokens = serializers.IntegerField(min_value=0, required=False, allow_null=True)
    usd = UsdField(source="usd_nanos", required=False, allow_null=True)
    seconds = serializers.IntegerField(min_value=0, required=False, allow_null=True)
    tool_calls = serializers.IntegerField(min_value=0, required=False, allow_null=True)


class CardBudgetSerializer(StrictSerializer):
    per_activation = CapsSerializer(required=False)
    per_day = CapsSerializer(required=False)


def budget_of(data: dict[str, Any]) -> CardBudget:
    """The card's budget from validated data."""
    return CardBudget(**{name: Caps(**caps) for name, caps in data.items()})
