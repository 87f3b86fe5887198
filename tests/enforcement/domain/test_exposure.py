"""What is out of a budget, with whom, and the bound that a user can compute again."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from budgets.models import PriceVersion
from enforcement.domain.exposure import budget_exposure
from enforcement.rules.policy import HoldMode, Mode, Unit
from tests.budgets.api.conftest import client_of
from tests.budgets.world import NOW, World, make_balance, make_budget, make_lease, make_world
from tests.enforcement.dashboard.fleet import make_sidecar, make_spool


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def viewer(world: World) -> APIClient:
    return client_of(world, ["read"])


def running(world: World, count: int, *, model: str = "gemma") -> None:
    """A book that spoke a moment ago and has so many calls of the agent in flight."""
    spool = make_spool(make_sidecar(world, "gpu"))
    spool.last_sync_at = timezone.now()
    session = {"agent": str(world.agent.id), "session": "s1", "model": model, "node": "n1"}
    numbers = {"running": count, "output_tokens": 5, "charge_nanos": 1, "age_ms": 10}
    spool.sessions = [session | numbers]
    spool.save()


def test_who_holds_what_until_when(world: World, viewer: APIClient) -> None:
    budget = make_budget(world)
    balance = make_balance(budget, spent_amount=250_000_000, suspense_amount=50_000_000)
    spool = make_spool(make_sidecar(world, "gpu"))
    lease = make_lease(balance, amount=100_000_000, spool=spool.id, open_amount=30_000_000)
    make_lease(balance, amount=10_000_000, spool=uuid4(), expires_at=NOW + timedelta(hours=1))
    body = viewer.get(f"/api/v1/budgets/{budget.id}/exposure").json()
    (row,) = body["balances"]
    assert (row["balance"]["held"], row["balance"]["suspense"]) == ("0.11", "0.05")
    first, gone = row["holders"]
    assert (first["lease"], first["sidecar"], first["amount"], first["open"]) == (
        str(lease.id),
        "gpu",
        "0.10",
        "0.03",
    )
    assert (gone["sidecar"], gone["amount"]) == ("", "0.01")
    assert (body["past_cap"], body["running_streams"]) == ("0.00", 0)


def test_the_bound_of_metered_streams_is_the_formula(world: World, viewer: APIClient) -> None:
    PriceVersion.objects.create(
        model="gemma", output_nanos_per_mtok=2_000_000_000, valid_from=NOW, source="test"
    )
    budget = make_budget(world, hold_mode=HoldMode.METERED)
    running(world, 3)
    url = f"/api/v1/budgets/{budget.id}/exposure"
    calm = viewer.get(url).json()
    assert (calm["running_streams"], calm["past_cap"]) == (3, "0.00")
    # Each stream: 2 $/M × (2,000/s × 1 s + 1 − 64 tokens) = 3,874,000 nano-dollars
    rough = viewer.get(f"{url}?tokens_per_second=2000&stop_ms=1000").json()
    assert rough["past_cap"] == "0.011622"
    assert rough["assumptions"] == {
        "tokens_per_second": 2_000,
        "stop_ms": 1_000,
        "chunk_tokens": 1,
        "margin_tokens": 64,
    }


@pytest.mark.parametrize(
    ("filters", "streams"),
    [
        ({"node": ["n2"]}, 0),
        ({"node": ["n1"]}, 3),
        ({"tag:env": ["x"]}, 3),  # books do not tell the tags: the bound counts them in
        ({"tag:env": ["x"], "node": ["n2"]}, 0),
    ],
)
def test_streams_that_the_budget_cannot_count_add_nothing(
    world: World, filters: dict[str, list[str]], streams: int
) -> None:
    running(world, 3)
    budget = make_budget(world, hold_mode=HoldMode.METERED)
    budget.filters = filters
    assert budget_exposure(budget, now=timezone.now()).running_streams == streams


@pytest.mark.parametrize("changes", [{"mode": Mode.SOFT}, {"mode": Mode.OBSERVE}])
def test_what_enforces_nothing_has_no_bound(world: World, changes: dict[str, Mode]) -> None:
    assert budget_exposure(make_budget(world, **changes), now=NOW).past_cap is None


def test_a_strict_budget_of_any_unit_is_bounded_by_nothing(world: World) -> None:
    assert budget_exposure(make_budget(world, unit=Unit.TOKENS), now=NOW).past_cap == 0


def test_strangers_and_bad_assumptions(world: World, viewer: APIClient) -> None:
    url = f"/api/v1/budgets/{make_budget(world).id}/exposure"
    assert client_of(make_world("other"), ["read"]).get(url).status_code == 404
    assert viewer.get(f"{url}?stop_ms=-1").status_code == 400
    assert viewer.get(f"{url}?colour=red").status_code == 400
