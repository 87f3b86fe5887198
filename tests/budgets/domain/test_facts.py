"""Filters and splits count the same use, whether it came before the budget or after it."""

from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from budgets.domain.usage import book_usage
from budgets.models import Balance, Budget
from enforcement.rules.policy import Mode, Per, Unit
from tests.budgets.world import NOW, World, call, make_budget, make_world

DAILY = {"window_kind": "calendar", "period": "day", "mode": Mode.SOFT}


def book(world: World, **facts: Any) -> None:
    event = call(world, **facts)
    book_usage(organization_id=world.id, sidecar_id=None, events=[event], now=NOW)


def spent(budget: Budget) -> dict[str, int]:
    rows = Balance.objects.filter(budget=budget)
    return {row.value: row.spent_amount for row in rows if row.spent_amount}


FACTS = st.fixed_dictionaries(
    {
        "user": st.sampled_from(["", "ann", "anna", "bob"]),
        "model": st.sampled_from(["gemma", "gpt"]),
        "node": st.sampled_from(["", "n1"]),
        "skill": st.sampled_from(["", "pdf"]),
        "session": st.sampled_from(["", "s1"]),
        "tags": st.sampled_from([{}, {"env": "prod"}, {"a__b": "x y", "env": "test"}]),
        "gpu_ms": st.integers(0, 50),
        "tool_calls": st.integers(0, 3),
        "cached_input_tokens": st.integers(0, 20),
        "reasoning_tokens": st.integers(0, 20),
    }
)
FILTERS = st.dictionaries(
    st.sampled_from(["user", "skill", "tag:env", "tag:a__b"]),
    st.lists(st.sampled_from(["*", "ann", "ann*", "pdf", "prod", "x*"]), min_size=1, max_size=2),
    max_size=2,
)
PERS = st.sampled_from([*(per for per in Per), "tag:env", "tag:a__b"])
UNITS = st.sampled_from([unit for unit in Unit if unit is not Unit.CONCURRENCY])


@pytest.mark.django_db
@settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(st.lists(FACTS, min_size=1, max_size=5), FILTERS, PERS, UNITS)
def test_earlier_and_later_use_count_alike(
    db: None, calls: list[dict[str, Any]], filters: dict[str, list[str]], per: str, unit: Unit
) -> None:
    with transaction.atomic():
        earlier, later = (_spent(calls, filters, per, unit, first=first) for first in (True, False))
        transaction.set_rollback(True)
    assert earlier == later


def _spent(
    calls: list[dict[str, Any]],
    filters: dict[str, list[str]],
    per: str,
    unit: Unit,
    *,
    first: bool,
) -> dict[str, int]:
    """What a budget counts in a world of its own; `first`: the calls came before it."""
    world = make_world(f"first-{first}".lower())
    for facts in calls if first else ():
        book(world, **facts)
    budget = make_budget(world, **DAILY, filters=filters, per=per, unit=unit)
    for facts in calls if not first else ():
        book(world, **facts)
    names = {str(getattr(world, kind).id): kind for kind in ("team", "project", "agent")}
    return {names.get(value, value): used for value, used in spent(budget).items()}
