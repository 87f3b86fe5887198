"""What a scrape of the control plane tells of gathering."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial

import pytest
from prometheus_client.metrics_core import Metric

from enforcement.domain.drift import keep_reconciled
from enforcement.domain.readingcounts import Ended, count_readings
from enforcement.metrics import of_bills, of_drift, of_readings
from enforcement.models import BillAccount, Reconciliation, ServingNode
from enforcement.rules.readings import Outcome
from enforcement.rules.reconcile import CauseKind
from tests.budgets.world import NOW, World, make_world
from tests.enforcement.domain.bills.pages import completions, costs
from tests.enforcement.domain.bills.test_bills import MODEL, READ_AT, call, keep, whole_day
from tests.enforcement.domain.nodes import make_node
from tests.enforcement.domain.test_reconciliation import HOUR, START, read_often
from tests.races.crowd import at_once

SETTLED_AT = START + HOUR + timedelta(minutes=15)
Samples = dict[tuple[str, ...], float]


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def node(world: World) -> ServingNode:
    return make_node(world)


def samples(families: Iterable[Metric]) -> Samples:
    return {
        (sample.name.removeprefix("comptroller_"), *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def drift(now: datetime) -> Samples:
    found = samples(of_drift(now=now))
    found.pop(("reconciliation_age_seconds",), None)
    return found


def test_an_engine_that_counted_more_than_was_metered_is_told_by_its_cause(
    world: World, node: ServingNode
) -> None:
    read_often(node, 200)
    read_often(make_node(make_world("other"), "gpu-b"), 100)
    early = SETTLED_AT - timedelta(minutes=1)
    keep_reconciled(now=early)
    assert drift(early) == {}
    keep_reconciled(now=SETTLED_AT)
    told = {("drift_tokens_last_day", "engine", "unmetered", "past_sidecars"): 1_800.0}
    assert drift(SETTLED_AT) == told


def test_drift_is_told_for_a_day_after_it_was_found(world: World, node: ServingNode) -> None:
    read_often(node, 200)
    keep_reconciled(now=SETTLED_AT)
    found_at = Reconciliation.objects.get().computed_at
    assert len(drift(found_at + timedelta(hours=23))) == 1
    assert drift(found_at + timedelta(hours=24)) == {}


def test_a_bill_drifts_in_tokens_and_in_dollars(world: World) -> None:
    make_node(world, "openai-eu", metrics_path="", provider="openai")
    call(world)
    keep(world, whole_day(completions(MODEL, 900, 120), costs(0.5, f"{MODEL}, input")))
    assert drift(READ_AT + HOUR) == {
        ("drift_tokens_last_day", "bill", "unmetered", "past_sidecars"): 900.0,
        ("drift_dollars_last_day", "unmetered", "past_sidecars"): 0.48,
    }


def test_a_bill_that_is_too_small_differs_the_other_way(world: World) -> None:
    make_node(world, "openai-eu", metrics_path="", provider="openai")
    for _ in range(10):
        call(world)
    keep(world, whole_day(completions(MODEL, 500, 200), costs(0.2, f"{MODEL}, input")))
    assert drift(READ_AT + HOUR) == {
        ("drift_tokens_last_day", "bill", "uncounted", "not_billed"): 500.0
    }


def test_no_number_of_nodes_makes_more_series_than_there_are_causes(world: World) -> None:
    Reconciliation.objects.bulk_create(
        Reconciliation(
            organization_id=world.id,
            node=f"gpu-{n}",
            starts_at=START,
            ends_at=START + HOUR,
            calls=1,
            metered_prompt_tokens=1_000,
            metered_cached_tokens=0,
            metered_generation_tokens=1_000,
            charge_nanos=1,
            produced_prompt_tokens=0,
            produced_generation_tokens=2_000,
            billed_prompt_tokens=2_000,
            billed_generation_tokens=0,
            billed_nanos=n % 3,
            verdict="drifts",
            cause_kind=kind,
            computed_at=SETTLED_AT,
        )
        for n, kind in enumerate([*CauseKind, ""] * 10)
    )
    assert len(drift(SETTLED_AT)) == (4 + 2) * (len(CauseKind) + 1)


def test_the_age_of_the_comparison_is_told_once_there_is_one(
    world: World, node: ServingNode
) -> None:
    assert samples(of_drift(now=SETTLED_AT)) == {}
    keep_reconciled(now=SETTLED_AT)
    later = SETTLED_AT + timedelta(minutes=7)
    assert samples(of_drift(now=later))["reconciliation_age_seconds",] == 420


# ------------------------------------------------------------------------------- readings


def test_readings_are_told_by_how_they_ended(world: World) -> None:
    count_readings([Ended(Outcome.READ, timedelta(seconds=2.5)), Ended(Outcome.SILENT)])
    count_readings([Ended(Outcome.READ, -timedelta(seconds=1)), Ended(Outcome.READ)])
    told = samples(of_readings(now=NOW))
    assert told["node_readings_total", "read"] == 3
    assert told["node_readings_total", "silent"] == 1
    assert told["node_readings_total", "too_large"] == 0
    assert told["node_readings_late_seconds_total",] == 2.5


def test_batches_that_count_at_once_lose_nothing(transactional_db: None) -> None:
    both = [Ended(Outcome.READ), Ended(Outcome.SILENT)]
    at_once([partial(count_readings, both[:: 1 - 2 * (n % 2)]) for n in range(8)])
    told = samples(of_readings(now=NOW))
    assert told["node_readings_total", "read"] == told["node_readings_total", "silent"] == 8


def test_nodes_are_told_by_their_health_and_gone_ones_are_not(world: World) -> None:
    make_node(world, "new")
    make_node(world, "well", last_scraped_at=NOW)
    make_node(world, "ill", last_error="x")
    make_node(world, "van", last_error="x", patience_s=60)
    make_node(world, "old", state="gone")
    make_node(world, "out", state="draining")
    told = samples(of_readings(now=NOW + timedelta(seconds=30)))
    health = {key[1]: value for key, value in told.items() if key[0] == "nodes"}
    assert health == {"active": 1, "draining": 1, "unscraped": 1, "away": 1, "failing": 1}


def test_bills_tell_how_old_they_are(world: World) -> None:
    account = {"organization": world.organization, "due_at": NOW}
    BillAccount.objects.create(
        provider="openai", created_at=NOW - 9 * HOUR, succeeded_at=NOW - HOUR, **account
    )
    BillAccount.objects.create(
        provider="anthropic", account="a", created_at=NOW - 2 * HOUR, attempts=3, **account
    )
    assert samples(of_bills(now=NOW)) == {
        ("bill_age_seconds", "anthropic", "a"): 7_200,
        ("bill_age_seconds", "openai", ""): 3_600,
        ("bill_attempts", "anthropic", "a"): 3,
        ("bill_attempts", "openai", ""): 0,
    }
