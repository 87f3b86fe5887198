"""Amounts on the wire of the API: dollars as decimal strings, everything else as integers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from budgets.errors import BudgetValidationError, PriceError, RerateError
from budgets.models import (
    ApprovalRequest,
    Balance,
    Budget,
    BudgetChange,
    BudgetOverride,
    Delegation,
    Lease,
    ThresholdFiring,
    Transfer,
)
from enforcement.rules.money import parse_usd, usd_text
from enforcement.rules.policy import Unit

_API_NAMES = {"limit_amount": "limit", "window_kind": "window"}
AMOUNT_SCHEMA = {
    "oneOf": [
        {"type": "string", "description": "dollars, of a budget in usd", "example": "12.50"},
        {"type": "integer", "description": "tokens, requests, milliseconds …", "example": 100000},
    ]
}


def amount_out(unit: str, amount: int) -> str | int:
    """An amount as the API says it."""
    return usd_text(amount) if unit == Unit.USD else amount


def amount_in(unit: str, given: object) -> int:
    """An amount as the API is told it.

    Raises:
        serializers.ValidationError: a float, a bare number of dollars, a fraction of a token.
    """
    if unit == Unit.USD:
        if not isinstance(given, str):
            raise serializers.ValidationError('give dollars as a decimal string, like "12.50"')
        try:
            return parse_usd(given)
        except ValueError as error:
            raise serializers.ValidationError(str(error)) from error
    if not isinstance(given, int) or isinstance(given, bool):
        raise serializers.ValidationError(f"give {unit} as an integer")
    return given


def unit_of(
    row: Budget
    | BudgetOverride
    | BudgetChange
    | Balance
    | Lease
    | Transfer
    | ThresholdFiring
    | ApprovalRequest
    | Delegation,
) -> str:
    """The unit that a row's amounts are in."""
    if isinstance(row, Budget):
        return row.unit
    return row.balance.budget.unit if isinstance(row, Lease | Transfer) else row.budget.unit


@extend_schema_field(AMOUNT_SCHEMA)
class AmountField(serializers.Field[Any, Any, Any, Any]):
    """An amount in the unit of its row's budget; `column` names the attribute."""

    def __init__(self, column: str, **options: Any) -> None:
        self.column = column
        super().__init__(read_only=True, source="*", **options)

    def to_representation(self, value: Any) -> str | int | None:
        amount = getattr(value, self.column)
        return None if amount is None else amount_out(unit_of(value), amount)


@extend_schema_field(AMOUNT_SCHEMA)
class GivenAmountField(serializers.Field[Any, Any, Any, Any]):
    """An amount as given; the serializer knows the unit and calls `amount_in`."""

    def to_internal_value(self, data: object) -> object:
        return data

    def to_representation(self, value: Any) -> Any:
        return value


@extend_schema_field(OpenApiTypes.STR)
class RateField(serializers.Field[int, Any, str, Any]):
    """Dollars per million tokens (or per request), as a decimal string; nano-dollars inside."""

    def to_internal_value(self, data: Any) -> int:
        return amount_in(Unit.USD, data)

    def to_representation(self, value: int) -> str:
        return usd_text(value)


@contextmanager
def errors_by_field() -> Iterator[None]:
    """Domain errors that name an argument become the field errors of the form."""
    try:
        yield
    except (BudgetValidationError, PriceError, RerateError) as error:
        name = _API_NAMES.get(error.field, error.field)
        raise serializers.ValidationError({name: [error.message]}) from error
