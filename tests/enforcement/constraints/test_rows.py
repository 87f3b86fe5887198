"""What rows of sidecars, nodes and orders may never become, whoever writes them."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import models

from controlplane.identity.domain.credentials import issue_api_token
from controlplane.identity.models import ApiToken
from enforcement.models import (
    BillAccount,
    BillLine,
    DeviceSample,
    NodeActivity,
    NodeCost,
    NodeSample,
    NodeUsage,
    Order,
    OrderAcknowledgement,
    ReadingCount,
    Reconciliation,
    ServingNode,
    Sidecar,
    Spool,
    StoppedSession,
)
from tests.budgets.constraints.attack import refused_by, sql
from tests.budgets.world import ACTOR, NOW, World, make_world


@pytest.fixture
def world(db: None) -> World:
    return make_world()


def token(world: World, name: str) -> ApiToken:
    issued = issue_api_token(
        organization_id=world.id, name=name, scopes=["read"], actor=ACTOR, now=NOW
    )
    return issued.token


@pytest.fixture
def sidecar(world: World) -> Sidecar:
    return Sidecar.objects.create(
        organization=world.organization, name="s1", token=token(world, "s1"), created_at=NOW
    )


@pytest.fixture
def spool(world: World, sidecar: Sidecar) -> Spool:
    return Spool.objects.create(
        id=uuid4(),
        organization=world.organization,
        sidecar=sidecar,
        boot="b",
        incarnation=uuid4(),
        policy_valid_until=NOW,
        last_sync_at=NOW,
    )


@pytest.fixture
def node(world: World) -> ServingNode:
    return ServingNode.objects.create(
        organization=world.organization, name="n1", base_url="http://n", created_at=NOW
    )


@pytest.fixture
def order(world: World) -> Order:
    return Order.objects.create(
        organization=world.organization,
        kind="kill",
        scope_kind="agent",
        scope_id=world.agent.id,
        actor="a",
        reason="r",
        created_at=NOW,
    )


def again(row: models.Model, **changes: Any) -> Callable[[], None]:
    """Insert a row once more, with another key."""
    row.pk = uuid4() if isinstance(row._meta.pk, models.UUIDField) else None
    for name, value in changes.items():
        setattr(row, name, value)
    return lambda: row.save(force_insert=True)


def test_names_and_tokens_are_given_once(world: World, sidecar: Sidecar) -> None:
    with refused_by("sidecar_name_unique"):
        again(sidecar, token=token(world, "s2"))()
    sidecar.token = ApiToken.objects.get(name="s1")
    with refused_by("enforcement_sidecar_token_id_key"):
        again(sidecar, name="s2")()


def test_an_epoch_is_above_zero(spool: Spool) -> None:
    with refused_by("spool_epoch_positive"):
        sql("UPDATE enforcement_spool SET epoch = 0 WHERE id = %s", spool.id)


def test_a_node_has_its_own_name_and_a_known_state(node: ServingNode) -> None:
    with refused_by("node_state_known"):
        sql("UPDATE enforcement_servingnode SET state = 'lost' WHERE id = %s", node.id)
    for wrong in (-1, 2_592_001):
        with refused_by("node_patience_plausible"):
            sql("UPDATE enforcement_servingnode SET patience_s = %s", wrong)
    with refused_by("node_removed_is_gone"):
        sql("UPDATE enforcement_servingnode SET removed_at = %s WHERE id = %s", NOW, node.id)
    with refused_by("node_name_unique"):
        again(node)()


def test_a_node_is_sampled_once_an_instant_and_summed_once_an_hour(node: ServingNode) -> None:
    sample = NodeSample.objects.create(
        node=node, at=NOW, prompt_tokens_total=1, generation_tokens_total=1
    )
    with refused_by("sample_one_for_each_instant"):
        again(sample)()
    device = DeviceSample.objects.create(node=node, at=NOW, device="GPU-a")
    with refused_by("device_sample_one_for_each_instant"):
        again(device)()
    usage = NodeUsage.objects.create(node=node, hour=NOW)
    with refused_by("node_usage_one_for_each_hour"):
        again(usage)()


def test_a_cost_of_a_node_is_plausible_and_never_edited(node: ServingNode) -> None:
    cost = NodeCost.objects.create(
        node=node, valid_from=NOW, cost_per_hour_nanos=1, recorded_by="a", recorded_at=NOW
    )
    for statement in ("UPDATE {} SET cost_per_hour_nanos = 2", "DELETE FROM {}"):
        with refused_by("node_cost_append_only"):
            sql(statement.format("enforcement_nodecost"))
    for wrong in (-1, 100_000_000_000_001):
        with refused_by("node_cost_plausible"):
            again(cost, cost_per_hour_nanos=wrong)()
    cost.cost_per_hour_nanos = 1
    for name, count in (("", 1), ("H100", 0), ("H100", -1), ("H100", 10_001)):
        with refused_by("node_cost_counts_what_it_names"):
            again(cost, accelerator=name, accelerator_count=count)()
    cost.accelerator, cost.accelerator_count = "H100", 1
    for watts in (0, -1, 10_000_001):
        with refused_by("node_cost_watts_plausible"):
            again(cost, watts=watts)()
    with refused_by("node_cost_says_who"):
        again(cost, watts=None, recorded_by="")()


def test_a_node_works_and_waits_no_longer_than_an_hour_has(node: ServingNode) -> None:
    row = NodeActivity.objects.create(node=node, hour=NOW, busy_ms=3_600_000, running_ms=3_600_000)
    with refused_by("activity_one_for_each_hour"):
        again(row)()
    for change in ("idle_ms = 1", "busy_ms = -1", "running_ms = 0", "prefill_ms = -1"):
        with refused_by("activity_fits_its_hour"):
            sql(f"UPDATE enforcement_nodeactivity SET {change}")


def test_readings_are_counted_up_by_known_outcomes(world: World) -> None:
    ReadingCount.objects.create(outcome="read", readings=1)
    for change in ("readings = -1", "late_ms = -1"):
        with refused_by("reading_count_counts_up"):
            sql(f"UPDATE enforcement_readingcount SET {change}")
    with refused_by("reading_count_outcome_known"):
        sql("UPDATE enforcement_readingcount SET outcome = 'gpu-a is away'")


def test_an_hour_is_reconciled_once_and_drift_has_two_sides(world: World) -> None:
    row = Reconciliation.objects.create(
        organization=world.organization,
        node="n1",
        model="m",
        starts_at=NOW,
        ends_at=NOW + timedelta(hours=1),
        calls=1,
        metered_prompt_tokens=1,
        metered_cached_tokens=0,
        metered_generation_tokens=1,
        charge_nanos=1,
        verdict="alone",
        computed_at=NOW,
    )
    with refused_by("reconciled_once"):
        again(row)()
    with refused_by("reconciled_verdict_known"):
        sql(
            "UPDATE enforcement_reconciliation SET verdict = 'fine', produced_generation_tokens = 1"
        )
    with refused_by("reconciled_compares_something"):
        sql("UPDATE enforcement_reconciliation SET verdict = 'drifts'")
    with refused_by("reconciled_takes_time"):
        sql("UPDATE enforcement_reconciliation SET ends_at = starts_at")


def test_a_line_of_a_bill_is_said_once_and_tells_tokens_or_money(world: World) -> None:
    line = BillLine.objects.create(
        organization=world.organization,
        provider="openai",
        kind="cost",
        starts_at=NOW,
        ends_at=NOW + timedelta(days=1),
        cost_nanos=-1,
        source="bill.csv",
        read_at=NOW,
    )
    with refused_by("bill_line_said_once"):
        again(line)()
    with refused_by("bill_line_takes_time"):
        sql("UPDATE enforcement_billline SET ends_at = starts_at")
    for change in ("cost_nanos = NULL", "prompt_tokens = 1", "kind = 'usage'", "kind = 'other'"):
        with refused_by("bill_line_is_of_a_kind"):
            sql(f"UPDATE enforcement_billline SET {change}")
    usage = "kind = 'usage', cost_nanos = NULL, cached_tokens = 0, generation_tokens = 0"
    for change in ("prompt_tokens = NULL", "prompt_tokens = -1"):
        with refused_by("bill_line_is_of_a_kind"):
            sql(f"UPDATE enforcement_billline SET {usage}, {change}")


def test_an_account_that_is_asked_stands_there_once(world: World) -> None:
    account = BillAccount.objects.create(
        organization=world.organization, provider="openai", created_at=NOW, due_at=NOW
    )
    with refused_by("bill_account_known_once"):
        again(account)()
    with refused_by("bill_account_attempts_counted"):
        sql("UPDATE enforcement_billaccount SET attempts = -1")


def test_orders_are_never_edited_and_have_their_own_cursor(order: Order) -> None:
    for statement in ("UPDATE enforcement_order SET reason = 'x'", "DELETE FROM enforcement_order"):
        with refused_by("order_append_only"):
            sql(statement)
    order.refresh_from_db()
    with refused_by("enforcement_order_cursor_key"):
        again(order)()


def test_an_order_is_acknowledged_once_and_for_good(order: Order, spool: Spool) -> None:
    receipt = OrderAcknowledgement.objects.create(
        order=order, spool=spool, streams_cut=1, tokens_after=0, last_byte_ms=3, at=NOW
    )
    for statement in ("UPDATE {} SET streams_cut = 2", "DELETE FROM {}"):
        with refused_by("acknowledgement_append_only"):
            sql(statement.format("enforcement_orderacknowledgement"))
    with refused_by("acknowledged_once"):
        again(receipt)()


@pytest.mark.parametrize(
    "scope", [("session", ""), ("agent", "run-1"), ("organization", "run-1")], ids=str
)
def test_an_order_names_a_session_if_it_is_for_one(order: Order, scope: tuple[str, str]) -> None:
    kind, session = scope
    with refused_by("order_names_its_session"):
        again(order, scope_kind=kind, scope_session=session, cursor=order.cursor + 1)()


def test_a_session_is_stopped_once_by_its_name(world: World) -> None:
    stopped = StoppedSession.objects.create(
        organization=world.organization,
        agent=world.agent,
        session="run-1",
        state="paused",
        reason="r",
        at=NOW,
    )
    with refused_by("stopped_once"):
        again(stopped)()
    with refused_by("stopped_session_named"):
        sql("UPDATE enforcement_stoppedsession SET session = ''")
    with refused_by("stopped_state_known"):
        sql("UPDATE enforcement_stoppedsession SET state = 'active'")
