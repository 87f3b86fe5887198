"""Reconciliation keeps itself current, and people are told of drift once a day for each node."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from budgets.domain.rollups import fold_usage
from budgets.domain.usage import book_usage
from budgets.models import Notification
from controlplane.identity.ids import new_id
from enforcement.domain.drift import keep_reconciled
from enforcement.models import Reconciliation, ServingNode
from tests.budgets.world import NOW, World, call, make_world, ms
from tests.enforcement.domain.nodes import make_node, meter, read
from tests.enforcement.domain.test_reconciliation import HOUR, START, read_often

NEXT_DAY = timedelta(days=1)


def told() -> list[tuple[str, str]]:
    return list(Notification.objects.order_by("created_at", "title").values_list("title", "body"))


def test_drift_is_told_with_its_cause_when_its_hour_has_settled(
    world: World, node: ServingNode
) -> None:
    read_often(node, 200)
    keep_reconciled(now=START + HOUR + timedelta(minutes=14))
    assert told() == []
    keep_reconciled(now=START + HOUR + timedelta(minutes=15))
    assert told() == [
        (
            "gpu-a: the engine counted 1,000 tokens more than were metered",
            (
                "From 2026-05-13 10:00 to 2026-05-13 11:00 UTC."
                " Calls reach this engine without passing a sidecar."
            ),
        )
    ]


def test_a_node_is_told_of_once_a_day_and_then_all_its_hours(
    world: World, node: ServingNode
) -> None:
    read_often(node, 200)
    keep_reconciled(now=START + 2 * HOUR)
    for hour in (3, 4):
        for _ in range(10):
            meter(world, START + hour * HOUR)
    for step in range(13, 61):
        at = START + step * timedelta(minutes=5)
        read_at_rest(node, at)
    keep_reconciled(now=START + 6 * HOUR)
    assert len(told()) == 1
    keep_reconciled(now=START + 2 * HOUR + NEXT_DAY)
    assert told()[1:] == [
        (
            "gpu-a: 2,000 tokens were metered that the engine did not count",
            (
                "2 times, lastly from 2026-05-13 14:00 to 2026-05-13 15:00 UTC. Sidecars metered more than the engine"
                " counted: does another node have this name?"
            ),
        )
    ]


def read_at_rest(node: ServingNode, at: datetime) -> None:
    read(node, 200, at=at, prompt_tokens=1000, cached_tokens=0)


def test_organizations_are_told_of_their_own_nodes_only(world: World, node: ServingNode) -> None:
    other = make_world("other")
    read_often(make_node(other, "gpu-b"), 200)
    keep_reconciled(now=START + 2 * HOUR)
    notified = Notification.objects.values_list("organization_id", "title")
    assert [(key, title.split(":")[0]) for key, title in notified] == [(other.id, "gpu-b")]


def test_an_old_hour_is_computed_anew_when_an_event_of_it_comes_late(
    world: World, node: ServingNode
) -> None:
    read_often(node, 20)
    late = START + timedelta(days=5)
    keep_reconciled(now=START + HOUR)
    assert [row.metered_generation_tokens for row in Reconciliation.objects.all()] == [0]
    keep_reconciled(now=late)
    meter_late(world, late)
    keep_reconciled(now=late + timedelta(minutes=5))
    assert [row.metered_generation_tokens for row in Reconciliation.objects.all()] == [20]


def meter_late(world: World, at: datetime) -> None:
    """A call of the hour, reported days later."""
    event = call(world, node="gpu-a", started_at_ms=ms(NOW))
    book_usage(organization_id=world.id, sidecar_id=new_id(), events=[event], now=at)
    fold_usage(now=at)


def test_what_is_borne_is_a_setting(world: World, node: ServingNode, settings: Any) -> None:
    settings.DRIFT_PER_MILLE, settings.DRIFT_FLOOR_TOKENS = 1000, 0
    read_often(node, 200)
    keep_reconciled(now=START + 2 * HOUR)
    assert told() == []
    assert [row.verdict for row in Reconciliation.objects.all()] == ["agrees"]


@pytest.mark.parametrize("days", [399, 401])
def test_rows_are_kept_for_more_than_a_year(world: World, node: ServingNode, days: int) -> None:
    read_often(node, 200)
    keep_reconciled(now=START + 2 * HOUR)
    keep_reconciled(now=START + timedelta(days=days))
    assert Reconciliation.objects.count() == (1 if days < 400 else 0)
