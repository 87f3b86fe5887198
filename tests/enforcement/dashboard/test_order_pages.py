from datetime import timedelta

import pytest
from django.utils import timezone

from enforcement.dashboard.orders import receipts_of, summary_of
from enforcement.models import Order, OrderAcknowledgement
from tests.budgets.world import World, make_balance, make_budget, make_lease
from tests.enforcement.dashboard.fleet import make_sidecar, make_spool, session
from tests.visitors import Visitors


def test_a_kill_needs_a_reason(world: World, visitors: Visitors) -> None:
    response = visitors.admin.post(f"/agents/{world.agent.id}/kill/", {"reason": "  "})
    assert response.status_code == 422
    assert Order.objects.count() == 0


def test_a_kill_leads_to_its_receipt(world: World, visitors: Visitors) -> None:
    response = visitors.admin.post(f"/agents/{world.agent.id}/kill/", {"reason": "it loops"})
    order = Order.objects.get()
    assert response.headers["Location"] == f"/orders/{order.id}/"
    assert (order.kind, order.scope_id, order.actor) == ("kill", world.agent.id, "Acme Admin")
    world.agent.refresh_from_db()
    assert (world.agent.state, world.agent.state_reason) == ("killed", "it loops")
    assert b"it loops" in visitors.viewer.get(f"/orders/{order.id}/").content


def test_a_resume_takes_the_kill_back(world: World, visitors: Visitors) -> None:
    visitors.owner.post(f"/agents/{world.agent.id}/kill/", {"reason": "it loops"})
    visitors.owner.post(f"/agents/{world.agent.id}/resume/", {"reason": "mended"})
    world.agent.refresh_from_db()
    assert world.agent.state == "active"


def test_an_order_that_the_state_does_not_allow_is_told(world: World, visitors: Visitors) -> None:
    response = visitors.owner.post(f"/agents/{world.agent.id}/resume/", {"reason": "why not"})
    assert response.status_code == 422
    assert "cannot be given the order to resume" in str(response.context["form"].non_field_errors())


@pytest.mark.parametrize("kind", ["throttle", "explode"])
def test_there_is_no_page_for_other_orders(world: World, visitors: Visitors, kind: str) -> None:
    assert visitors.owner.get(f"/agents/{world.agent.id}/{kind}/").status_code == 404


def test_the_question_tells_what_will_be_stopped(world: World, visitors: Visitors) -> None:
    gone = timezone.now() - timedelta(minutes=5)
    make_spool(make_sidecar(world, "near"), sessions=[session(world, running=2)])
    make_spool(make_sidecar(world, "far", last_seen_at=gone), last_sync_at=gone)
    context = visitors.owner.get(f"/agents/{world.agent.id}/kill/").context
    assert (context["running_requests"], context["online"], context["unreachable"]) == (2, 1, 1)


def test_a_receipt_tells_who_answered_and_what_the_others_can_still_spend(
    world: World, visitors: Visitors
) -> None:
    near, far = (make_spool(make_sidecar(world, name)) for name in ("near", "far"))
    make_lease(make_balance(make_budget(world)), amount=400_000_000, spool=far.id)
    visitors.owner.post(f"/agents/{world.agent.id}/kill/", {"reason": "it loops"})
    order = Order.objects.get()
    OrderAcknowledgement.objects.create(
        order=order,
        spool=near,
        streams_cut=3,
        tokens_after=1,
        last_byte_ms=20,
        at=order.created_at + timedelta(milliseconds=70),
    )
    rows = receipts_of(order, now=order.created_at + timedelta(seconds=1))
    assert [(row.name, row.state, row.after_ms) for row in rows] == [
        ("near/0", "acknowledged", 70),
        ("far/0", "waiting", None),
    ]
    assert rows[1].note.endswith("within $0.40 that it has leased")
    assert summary_of(rows) == {
        "expected": 2,
        "acknowledged": 1,
        "is_complete": False,
        "streams_cut": 3,
        "tokens_after": 1,
        "last_byte_ms": 20,
        "slowest_ms": 70,
    }


def test_strangers_read_no_receipt(world: World, visitors: Visitors) -> None:
    visitors.owner.post(f"/agents/{world.agent.id}/kill/", {"reason": "it loops"})
    assert visitors.stranger.get(f"/orders/{Order.objects.get().id}/").status_code == 404


def test_one_session_is_killed_from_the_page_and_the_agent_goes_on(
    world: World, visitors: Visitors
) -> None:
    url = f"/agents/{world.agent.id}/kill/"
    asked = visitors.admin.get(f"{url}?session=run-7")
    assert asked.context["form"]["session"].value() == "run-7"
    visitors.admin.post(url, {"reason": "it loops", "session": "run-7", "drain": "on"})
    order = Order.objects.get()
    assert (order.scope_kind, order.scope_session, order.drain) == ("session", "run-7", True)
    world.agent.refresh_from_db()
    assert world.agent.state == "active"
    receipt = visitors.viewer.get(f"/orders/{order.id}/").content.decode()
    assert f"Kill {world.agent.name}, session run-7, letting calls end" in receipt
