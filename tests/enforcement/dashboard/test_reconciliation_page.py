"""The page of reconciliation: three counts side by side, filters, and what an empty one says."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from enforcement.models import BillAccount, Reconciliation
from tests.budgets.world import World, make_world
from tests.visitors import Visitors

Queries = Callable[[int], AbstractContextManager[Any]]


def row(world: World, node: str = "gpu-a", **changes: Any) -> Reconciliation:
    start = timezone.now().replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    values: dict[str, Any] = {
        "model": "gemma",
        "starts_at": start,
        "ends_at": start + timedelta(hours=1),
        "calls": 3,
        "metered_prompt_tokens": 1_100,
        "metered_cached_tokens": 0,
        "metered_generation_tokens": 20,
        "charge_nanos": 2_000_000_000,
        "produced_prompt_tokens": 1_100,
        "produced_cached_tokens": 0,
        "produced_generation_tokens": 900,
        "billed_prompt_tokens": 1_000,
        "billed_cached_tokens": 0,
        "billed_generation_tokens": 20,
        "billed_nanos": 3_000_000_000,
        "verdict": "drifts",
        "cause_kind": "past_sidecars",
        "cause": "Calls reach this engine without passing a sidecar.",
        "computed_at": start,
    }
    return Reconciliation.objects.create(
        organization=world.organization, node=node, **values | changes
    )


def test_three_counts_stand_side_by_side(world: World, visitors: Visitors) -> None:
    row(world)
    answer = visitors.viewer.get("/reconciliation/")
    text = " ".join(answer.content.decode().split())
    for shown in ("1,100 + 20", "1,100 + 900", "1,000 + 20", "880 apart", "−100 apart"):
        assert shown in text
    for shown in ("$2.00", "$3.00", "Drifts", "without passing a sidecar"):
        assert shown in text
    assert answer.context["figures"]["drifts"] == 1


def test_an_empty_page_says_what_will_stand_there(visitors: Visitors) -> None:
    text = visitors.viewer.get("/reconciliation/").content.decode()
    assert "Nothing to compare yet" in text
    filtered = visitors.viewer.get("/reconciliation/?verdict=drifts").content.decode()
    assert "Nothing matches" in filtered


@pytest.mark.parametrize(
    ("query", "nodes"),
    [
        ("", ["gpu-a", "gpu-b"]),
        ("?verdict=agrees", ["gpu-b"]),
        ("?q=GPU-A", ["gpu-a"]),
        ("?q=gem", ["gpu-a", "gpu-b"]),
        ("?verdict=nonsense", ["gpu-a", "gpu-b"]),
        ("?page=99", ["gpu-a", "gpu-b"]),
    ],
)
def test_rows_are_filtered(world: World, visitors: Visitors, query: str, nodes: list[str]) -> None:
    row(world, "gpu-a")
    row(world, "gpu-b", verdict="agrees")
    row(make_world("stranger"), "gpu-c")
    shown = visitors.viewer.get(f"/reconciliation/{query}").context["rows"]
    assert [view.row.node for view in shown] == nodes


@pytest.mark.parametrize("count", [1, 5])
def test_the_page_asks_as_often_for_five_rows_as_for_one(
    world: World, visitors: Visitors, count: int, django_assert_num_queries: Queries
) -> None:
    for number in range(count):
        row(world, f"gpu-{number}")
    with django_assert_num_queries(8):
        visitors.viewer.get("/reconciliation/")


def test_the_table_is_had_as_csv(world: World, visitors: Visitors) -> None:
    row(world, produced_generation_tokens=None, verdict="alone")
    head, line = visitors.viewer.get("/reconciliation/export.csv").content.decode().splitlines()
    assert head.startswith("node,provider,model,starts_at,ends_at,verdict,calls,")
    assert line.startswith("gpu-a,,gemma,20")
    assert ",20,,20,2000000000,3000000000,past_sidecars," in line


def test_how_fresh_bills_are_is_told(world: World, visitors: Visitors) -> None:
    now = timezone.now()
    account: dict[str, Any] = {"organization": world.organization, "created_at": now, "due_at": now}
    assert (
        "Bills that are asked for" not in visitors.viewer.get("/reconciliation/").content.decode()
    )
    BillAccount.objects.create(provider="openai", succeeded_at=now, **account)
    error = "/v1/organization/costs answered 401"
    BillAccount.objects.create(
        provider="anthropic", account="a-b", attempts=2, error=error, asked_at=now, **account
    )
    text = " ".join(visitors.viewer.get("/reconciliation/").content.decode().split())
    for said in ("Current", "anthropic/a-b", "Not told", "answered 401", "2 attempts"):
        assert said in text
