from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from enforcement.rules.policy import HoldMode, Mode, Per
from tests.budgets.world import World, make_balance, make_budget, make_lease
from tests.enforcement.dashboard.fleet import make_sidecar, make_spool
from tests.visitors import Visitors

Queries = Callable[[int], AbstractContextManager[Any]]


def test_the_page_tells_the_counters_and_who_holds_what(world: World, visitors: Visitors) -> None:
    budget = make_budget(world)
    balance = make_balance(budget, spent_amount=250_000_000, suspense_amount=50_000_000)
    spool = make_spool(make_sidecar(world, "gpu"))
    make_lease(balance, amount=100_000_000, spool=spool.id, open_amount=30_000_000)
    make_lease(balance, amount=10_000_000, spool=uuid4())
    context = visitors.viewer.get(f"/budgets/{budget.id}/").context
    now = context["exposure"]
    assert (now.limit, now.spent, now.held) == (1_000_000_000, 250_000_000, 110_000_000)
    assert (now.suspense, now.overrun, now.free) == (50_000_000, 0, 590_000_000)
    holders = {row.holder: (row.amount, row.open) for row in context["leases"]}
    assert holders == {
        "gpu/0": (100_000_000, 30_000_000),
        "a sidecar that is gone": (10_000_000, 0),
    }


def test_a_budget_without_balance_says_so(world: World, visitors: Visitors) -> None:
    page = visitors.viewer.get(f"/budgets/{make_budget(world).id}/")
    assert page.context["exposure"] is None
    assert "No balance in this window yet" in page.content.decode()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "0 past the limit: each call holds its worst case first"),
        ({"hold_mode": HoldMode.METERED}, "one margin for each running stream"),
        ({"mode": Mode.SOFT}, "Soft: let calls pass, tell that the limit is crossed"),
    ],
)
def test_the_published_bound_is_told(
    world: World, visitors: Visitors, changes: dict[str, Any], words: str
) -> None:
    budget = make_budget(world, **changes)
    assert words in visitors.viewer.get(f"/budgets/{budget.id}/").content.decode()


@pytest.mark.parametrize("count", [1, 3])
def test_the_page_asks_as_often_for_three_leases_as_for_one(
    world: World, visitors: Visitors, count: int, django_assert_num_queries: Queries
) -> None:
    budget = make_budget(world, per=Per.AGENT)
    for index in range(count):
        balance = make_balance(budget, value=f"value-{index}")
        spool = make_spool(make_sidecar(world, f"gpu-{index}"))
        make_lease(balance, amount=10, spool=spool.id)
    with django_assert_num_queries(18):
        assert visitors.viewer.get(f"/budgets/{budget.id}/").status_code == 200


def test_finished_leases_follow_the_live_ones(world: World, visitors: Visitors) -> None:
    budget = make_budget(world)
    balance = make_balance(budget)
    make_lease(
        balance,
        amount=5,
        used_amount=5,
        state="settled",
        closed_at=balance.updated_at + timedelta(seconds=1),
    )
    make_lease(balance, amount=7)
    leases = visitors.viewer.get(f"/budgets/{budget.id}/").context["leases"]
    assert [(row.amount, row.is_final) for row in leases] == [(7, False), (5, True)]
