"""`GET /api/v1/budgets/explain`: what would become of a request, and who could change that."""

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.generics import GenericAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from budgets.api.fields import AMOUNT_SCHEMA, amount_out
from budgets.enums import choices_of
from budgets.queries.explain import ExplainedBudget, Wish, explain_request
from controlplane.api import StrictSerializer, caller_of
from controlplane.identity.queries import find_agent
from enforcement.rules.explain import Fate

MAX_TOKENS = 1_000_000_000


class WishSerializer(StrictSerializer):
    """A request to explain. Without sizes: no prompt, and 4,096 tokens of output."""

    agent = serializers.CharField(max_length=63, help_text="id or slug")
    session = serializers.CharField(max_length=128, default="", allow_blank=True)
    user = serializers.CharField(max_length=200, default="", allow_blank=True)
    model = serializers.CharField(max_length=200, default="", allow_blank=True)
    provider = serializers.CharField(max_length=64, default="", allow_blank=True)
    node = serializers.CharField(max_length=200, default="", allow_blank=True)
    skill = serializers.CharField(max_length=200, default="", allow_blank=True)
    tags = serializers.CharField(
        max_length=2_000, default="", allow_blank=True, help_text="NAME=VALUE, separated by commas"
    )
    input_tokens = serializers.IntegerField(min_value=0, max_value=MAX_TOKENS, default=0)
    output_tokens = serializers.IntegerField(min_value=1, max_value=MAX_TOKENS, default=4_096)
    gpu_ms = serializers.IntegerField(min_value=0, max_value=MAX_TOKENS, default=0)
    tool_calls = serializers.IntegerField(min_value=0, max_value=MAX_TOKENS, default=0)

    def validate_tags(self, text: str) -> dict[str, str]:
        try:
            return parse_tags(text)
        except ValueError as error:
            raise serializers.ValidationError(str(error)) from error


def parse_tags(text: str) -> dict[str, str]:
    """`a=1,b=2` as a mapping.

    Raises:
        ValueError: an item is no `NAME=VALUE`.
    """
    tags = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise ValueError(f"{item!r}: write NAME=VALUE")
        tags[name] = value
    return tags


@extend_schema_field(AMOUNT_SCHEMA)
class _Amount(serializers.Field[Any, Any, Any, Any]):
    """An amount of a line, in its budget's unit."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(read_only=True, source="*")

    def to_representation(self, value: ExplainedBudget) -> str | int | None:
        line = value.line
        amount = line.need if self.name == "need" else getattr(line.standing, self.name)
        return None if amount is None else amount_out(value.budget.unit, amount)


class ExplainedBudgetSerializer(serializers.Serializer[ExplainedBudget]):
    """One budget, in the order in which holds are placed."""

    id = serializers.UUIDField(source="budget.id")
    name = serializers.CharField(source="budget.name")
    scope_kind = serializers.CharField(source="budget.scope_kind")
    scope_id = serializers.UUIDField(source="budget.scope_id")
    mode = serializers.CharField(source="budget.mode")
    state = serializers.CharField(source="budget.state")
    unit = serializers.CharField(source="budget.unit")
    per = serializers.CharField(source="budget.per")
    value = serializers.CharField(source="line.value")
    window_start = serializers.DateTimeField()
    window_end = serializers.DateTimeField(allow_null=True)
    limit = _Amount("limit")
    spent = _Amount("spent")
    held = _Amount("held")
    suspense = _Amount("suspense")
    overrun = _Amount("overrun")
    free = _Amount("free")
    need = _Amount("need")
    outcome = serializers.ChoiceField(choices=choices_of(Fate), source="line.fate")


class RaiserSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    email = serializers.EmailField()
    role = serializers.CharField()


class ExplainedSerializer(serializers.Serializer[Any]):
    """The answer: what the caller would get, by which budget, and all budgets behind it."""

    outcome = serializers.ChoiceField(choices=choices_of(Fate), source="explanation.fate")
    status = serializers.IntegerField(source="explanation.status")
    reason = serializers.SerializerMethodField()
    message = serializers.SerializerMethodField()
    decided_by = serializers.CharField(source="explanation.decided_by")
    price_version = serializers.SerializerMethodField()
    budgets = ExplainedBudgetSerializer(many=True)
    can_raise = RaiserSerializer(many=True, source="raisers")

    def get_reason(self, found: Any) -> str:
        refusal = found.explanation.refusal
        return refusal.key if refusal else ""

    def get_message(self, found: Any) -> str:
        refusal = found.explanation.refusal
        return refusal.message if refusal else ""

    def get_price_version(self, found: Any) -> str | None:
        return found.price.id if found.price else None


class ExplainView(GenericAPIView[Any]):
    """Every budget that a request matches, what is free, what would happen, who can raise it."""

    serializer_class = ExplainedSerializer

    @extend_schema(parameters=[WishSerializer], responses=ExplainedSerializer)
    def get(self, request: Request) -> Response:
        """Explain one request as of now. Nothing is held."""
        given = WishSerializer(data=request.query_params.dict())
        given.is_valid(raise_exception=True)
        values = dict(given.validated_data)
        name = values.pop("agent")
        agent = find_agent(caller_of(request).organization_id, name)
        if agent is None:
            raise serializers.ValidationError({"agent": [f"no agent {name!r}"]})
        found = explain_request(Wish(agent=agent, **values), now=timezone.now())
        return Response(ExplainedSerializer(found).data)
