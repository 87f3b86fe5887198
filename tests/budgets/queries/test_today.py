from datetime import UTC, datetime, timedelta

from budgets import queries
from budgets.domain.usage import book_refusals, book_usage
from budgets.models import Balance
from controlplane.identity.ids import new_id
from enforcement.rules.policy import Mode, ScopeKind, Unit
from enforcement.rules.wire import Outcome, RefusalCount
from tests.budgets.constraints.attack import sql
from tests.budgets.world import (
    NOW,
    World,
    call,
    make_balance,
    make_budget,
    make_lease,
    make_world,
    ms,
)

MIDNIGHT = datetime(2026, 5, 13, tzinfo=UTC)


def test_today_begins_at_the_organizations_midnight(world: World) -> None:
    world.organization.time_zone = "Asia/Kolkata"
    kolkata = datetime(2026, 5, 12, 18, 30, tzinfo=UTC)
    assert queries.day_start(world.organization, now=NOW) == kolkata
    starts = [kolkata - timedelta(milliseconds=1), kolkata, NOW]
    events = [call(world, started_at_ms=ms(start)) for start in starts]
    book_usage(organization_id=world.id, sidecar_id=None, events=events, now=NOW)
    assert queries.today(world.organization, now=NOW).calls == 2


def test_todays_figures(world: World) -> None:
    other = make_world("other")
    events = [
        call(world),
        call(world, outcome=Outcome.CUT),
        call(world, outcome=Outcome.CLAMPED),
        call(world, outcome=Outcome.KILLED),
        call(world, outcome=Outcome.CLIENT_GONE),
        call(world, started_at_ms=ms(MIDNIGHT) - 1),
    ]
    book_usage(organization_id=world.id, sidecar_id=None, events=events, now=NOW)
    book_usage(organization_id=other.id, sidecar_id=None, events=[call(other)], now=NOW)
    refusals = [
        RefusalCount(str(new_id()), str(world.agent.id), "budget_exhausted", count, at)
        for count, at in ((3, ms(NOW)), (4, ms(MIDNIGHT)), (50, ms(MIDNIGHT) - 1))
    ]
    book_refusals(organization_id=world.id, refusals=refusals, now=NOW)
    today = queries.today(world.organization, now=NOW)
    assert (today.calls, today.charge_nanos, today.tokens) == (5, 7_500, 600)
    assert (today.cut, today.refused, today.stopped) == (3, 7, 10)
    assert today.since == MIDNIGHT


def test_an_idle_organization_has_zeros(world: World) -> None:
    today = queries.today(world.organization, now=NOW)
    assert (today.calls, today.charge_nanos, today.tokens, today.stopped) == (0, 0, 0, 0)
    held = queries.held_now(world.organization)
    assert (held.nanos, held.suspense_nanos, held.leases) == (0, 0, 0)


def test_held_money_is_not_counted_once_for_each_level(world: World) -> None:
    """One call holds 500 on its agent's two budgets and on the organization's."""
    for name in ("month", "day"):
        make_lease(make_balance(make_budget(world, name=name)), amount=500)
    everyone = make_budget(world, name="all", scope_kind=ScopeKind.ORGANIZATION, scope_id=world.id)
    make_lease(make_balance(everyone), amount=700)
    tokens = make_budget(world, name="tokens", unit=Unit.TOKENS)
    make_lease(make_balance(tokens), amount=900_000)
    held = queries.held_now(world.organization)
    assert (held.nanos, held.leases) == (700, 4)


def test_suspense_is_told_apart(world: World) -> None:
    balance = make_balance(make_budget(world))
    lease = make_lease(balance, amount=500)
    sql("UPDATE budgets_lease SET state = 'suspended' WHERE id = %s", lease.id)
    Balance.objects.filter(id=balance.id).update(held_amount=0, suspense_amount=500)
    held = queries.held_now(world.organization)
    assert (held.nanos, held.suspense_nanos, held.leases) == (0, 500, 1)


def test_the_latest_stops_come_first(world: World) -> None:
    refusal = RefusalCount(
        str(new_id()), str(world.agent.id), "agent_killed", 2, ms(NOW) - 5_000, message="killed"
    )
    book_refusals(organization_id=world.id, refusals=[refusal], now=NOW)
    events = [call(world), call(world, outcome=Outcome.CUT)]
    book_usage(organization_id=world.id, sidecar_id=None, events=events, now=NOW)
    stops = queries.stops(world.organization)
    assert [(stop.word, stop.agent, stop.count, stop.note) for stop in stops] == [
        ("refused", "Reader", 2, "killed"),
        ("cut", "Reader", 1, "after 20 output tokens"),
    ]
    assert queries.stops(world.organization, agent_id=world.loner.id) == []
    assert len(queries.stops(world.organization, count=1)) == 1


def test_freshness(world: World) -> None:
    assert queries.freshness(world.organization).last_event_at is None
    make_budget(world, mode=Mode.SOFT)
    book_usage(organization_id=world.id, sidecar_id=None, events=[call(world)], now=NOW)
    fresh = queries.freshness(world.organization)
    assert (fresh.last_event_at, fresh.folded_at) == (NOW - timedelta(seconds=10), None)
    assert fresh.catalogue == ""
