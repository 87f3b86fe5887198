"""Usage events are facts: they are added, never edited."""

from uuid import uuid4

import pytest

from budgets.domain.usage import book_usage
from budgets.models import Refusal, UsageEvent, UsageRollup, UsageValue
from tests.budgets.constraints.attack import refused_by, sql
from tests.budgets.world import NOW, World, call


@pytest.fixture
def event(world: World) -> UsageEvent:
    book_usage(organization_id=world.id, sidecar_id=None, events=[call(world)], now=NOW)
    return UsageEvent.objects.get()


def test_never_edited(event: UsageEvent) -> None:
    with refused_by("usage_event_append_only"):
        sql("UPDATE budgets_usageevent SET charge_nanos = 0 WHERE id = %s", event.id)
    with refused_by("usage_event_append_only"):
        sql("DELETE FROM budgets_usageevent WHERE id = %s", event.id)


@pytest.mark.parametrize(
    "column",
    [
        "input_tokens",
        "cached_input_tokens",
        "cache_write_tokens",
        "output_tokens",
        "reasoning_tokens",
        "charge_nanos",
    ],
)
def test_counts_are_not_negative(event: UsageEvent, column: str) -> None:
    event.pk = uuid4()
    setattr(event, column, -1)
    with refused_by("usage_amounts_not_negative"):
        event.save(force_insert=True)


def test_outcomes_are_known(event: UsageEvent) -> None:
    event.pk = uuid4()
    event.outcome = "vanished"
    with refused_by("usage_outcome_known"):
        event.save(force_insert=True)


def test_sources_are_known(event: UsageEvent) -> None:
    event.pk = uuid4()
    event.source = "hearsay"
    with refused_by("usage_source_known"):
        event.save(force_insert=True)


def test_a_refusal_counts_something(world: World) -> None:
    with refused_by("refusal_count_positive"):
        Refusal.objects.create(organization=world.organization, code="x", count=0, at=NOW)


def test_an_hour_is_folded_once_for_each_key(world: World) -> None:
    row = UsageRollup(
        hour=NOW, organization_id=world.id, agent_id=world.agent.id, model="m", provider="p"
    )
    row.save()
    row.pk = None
    with refused_by("rollup_one_for_each_key"):
        row.save(force_insert=True)


def test_a_value_has_one_number(world: World) -> None:
    values = {"organization_id": world.id, "dimension": 5, "value": "gemma"}
    UsageValue.objects.create(**values)
    with refused_by("usage_value_once"):
        UsageValue.objects.create(**values)
