"""Usage is booked once, to every balance that no lease pays."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from budgets.domain.usage import Booked, book_refusals, book_usage
from budgets.errors import UsageEventError
from budgets.models import Balance, Refusal, Transfer, UsageEvent
from controlplane.identity.ids import new_id
from enforcement.rules.policy import Mode, Per, ScopeKind, Unit
from enforcement.rules.wire import Outcome, Part, RefusalCount
from enforcement.rules.wire import UsageEvent as WireEvent
from tests.budgets.world import (
    NOW,
    World,
    amounts,
    call,
    make_balance,
    make_budget,
    make_lease,
    make_world,
    ms,
)


def book(world: World, *events: WireEvent, now: datetime = NOW) -> Booked:
    return book_usage(organization_id=world.id, sidecar_id=None, events=events, now=now)


# ------------------------------------------------------------------------------ storing


def test_an_event_is_stored_with_what_it_says(world: World) -> None:
    sidecar, price = uuid4(), uuid4()
    event = call(
        world,
        session="s1",
        user="u",
        provider="openai",
        node="n1",
        cached_input_tokens=40,
        reasoning_tokens=3,
        price_version=str(price),
        tags={"team": "x"},
        ttft_ms=12,
        duration_ms=34,
        stream=True,
        finish_reason="stop",
    )
    book_usage(organization_id=world.id, sidecar_id=sidecar, events=[event], now=NOW)
    row = UsageEvent.objects.get()
    assert str(row.id) == event.id
    assert (row.agent_id, row.project_id, row.team_id) == (
        world.agent.id,
        world.project.id,
        world.team.id,
    )
    assert (row.session, row.user, row.provider, row.node) == ("s1", "u", "openai", "n1")
    assert (row.input_tokens, row.cached_input_tokens, row.output_tokens) == (100, 40, 20)
    assert (row.charge_nanos, row.price_version_id, row.sidecar) == (1_500, price, sidecar)
    assert (row.started_at, row.received_at) == (NOW - timedelta(seconds=10), NOW)
    assert (row.tags, row.ttft_ms, row.duration_ms, row.stream) == ({"team": "x"}, 12, 34, True)


def test_a_second_report_changes_nothing(world: World) -> None:
    budget, event = make_budget(world, mode=Mode.SOFT), call(world)
    assert book(world, event) == Booked(1, 0)
    assert book(world, event, call(world)) == Booked(1, 1)
    assert book(world, event, event) == Booked(0, 2)
    assert UsageEvent.objects.count() == 2
    assert amounts(budget) == (3_000, 0, 0, 0)


def test_a_repeat_that_falls_on_another_day_is_a_duplicate(world: World) -> None:
    event = call(
        world, started_at_ms=ms(NOW + timedelta(hours=1))
    )  # replaced by the receipt's time
    assert book(world, event) == Booked(1, 0)
    assert book(world, event, now=NOW + timedelta(days=3)) == Booked(0, 1)
    assert UsageEvent.objects.get().started_at == NOW


def test_what_contradicts_a_booked_event_is_told_apart(world: World) -> None:
    budget, event, other = make_budget(world, mode=Mode.SOFT), call(world), make_world("other")
    assert book(world, event) == Booked(1, 0)
    assert book(world, event, call(world, id=event.id, charge_nanos=9)) == Booked(0, 1, 0, (1,))
    assert book(other, call(other, id=event.id)) == Booked(0, 0, 0, (0,))
    twins = [call(world, id=str(new_id()), charge_nanos=nanos) for nanos in (1, 2)]
    twins[1] = call(world, id=twins[0].id, charge_nanos=2)
    assert book(world, *twins) == Booked(1, 0, 0, (1,))
    assert amounts(budget) == (1_501, 0, 0, 0)


def test_nothing_is_nothing(world: World) -> None:
    assert book(world) == Booked(0, 0)


@pytest.mark.parametrize(
    ("started", "kept"),
    [
        (NOW + timedelta(hours=1), NOW),
        (NOW - timedelta(days=400), NOW),
        (NOW - timedelta(days=300), NOW - timedelta(days=300)),
        (datetime(1960, 1, 1, tzinfo=UTC), NOW),
    ],
)
def test_a_wild_clock_is_kept_within_reason(
    world: World, started: datetime, kept: datetime
) -> None:
    book(world, call(world, started_at_ms=ms(started)))
    assert UsageEvent.objects.get().started_at == kept


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "x"},
        {"agent": "x"},
        {"input_tokens": -1},
        {"charge_nanos": -1},
        {"charge_nanos": 2**63},
        {"output_tokens": 2**80},
        {"parts": [Part("b", "", "", -1)]},
    ],
)
def test_what_cannot_be_true_books_nothing(world: World, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageEventError):
        book(world, call(world), call(world, **wrong))
    assert UsageEvent.objects.count() == 0


def test_text_that_no_column_can_keep_is_mended(world: World) -> None:
    book(world, call(world, session="a\x00b" + "x" * 300, tags={"k\x00": "v\x00"}))
    row = UsageEvent.objects.get()
    assert row.session.startswith("a\ufffdb")
    assert len(row.session) == 200
    assert row.tags == {"k\ufffd": "v\ufffd"}


# ------------------------------------------------------------------------------ charging


@pytest.mark.parametrize(
    ("unit", "used"), [(Unit.USD, 1_500), (Unit.TOKENS, 120), (Unit.REQUESTS, 1)]
)
def test_each_unit_counts_its_own(world: World, unit: Unit, used: int) -> None:
    budget = make_budget(world, mode=Mode.OBSERVE, unit=unit)
    book(world, call(world))
    assert amounts(budget) == (used, 0, 0, 0)


def test_a_call_that_reached_no_model_is_no_request(world: World) -> None:
    budget = make_budget(world, mode=Mode.SOFT, unit=Unit.REQUESTS)
    failed = {"outcome": Outcome.UPSTREAM_FAILED, "charge_nanos": 0}
    book(world, call(world, input_tokens=0, output_tokens=0, **failed))
    assert amounts(budget) == (0, 0, 0, 0)
    book(world, call(world, **failed), call(world, input_tokens=0, output_tokens=0, presumed=True))
    assert amounts(budget) == (2, 0, 0, 0)


def test_every_level_above_counts_it(world: World) -> None:
    scopes = {
        ScopeKind.ORGANIZATION: world.id,
        ScopeKind.TEAM: world.team.id,
        ScopeKind.PROJECT: world.project.id,
        ScopeKind.AGENT: world.agent.id,
    }
    budgets = {
        kind: make_budget(world, name=kind, mode=Mode.SOFT, scope_kind=kind, scope_id=scope)
        for kind, scope in scopes.items()
    }
    book(world, call(world), call(world, agent=str(world.loner.id), charge_nanos=7))
    assert {kind.value: amounts(budget)[0] for kind, budget in budgets.items()} == {
        "organization": 1_507,
        "team": 1_500,
        "project": 1_500,
        "agent": 1_500,
    }


def test_a_split_budget_has_a_balance_for_each_value(world: World) -> None:
    each: dict[str, Any] = {
        "scope_kind": ScopeKind.ORGANIZATION,
        "scope_id": world.id,
        "mode": Mode.SOFT,
    }
    by_agent = make_budget(world, name="agents", per=Per.AGENT, **each)
    by_session = make_budget(world, name="sessions", per=Per.SESSION, **each)
    book(
        world,
        call(world, session="s1"),
        call(world, session="s2", charge_nanos=10),
        call(world, session="s1", agent=str(world.loner.id), charge_nanos=100),
    )
    assert amounts(by_agent, str(world.agent.id))[0] == 1_510
    assert amounts(by_agent, str(world.loner.id))[0] == 100
    assert amounts(by_session, "s1")[0] == 1_600
    assert amounts(by_session, "s2")[0] == 10


def test_values_beyond_the_most_share_one_balance(world: World) -> None:
    budget = make_budget(world, mode=Mode.SOFT, per=Per.SESSION, max_values=2)
    book(world, *[call(world, session=f"s{i}", charge_nanos=i + 1) for i in range(4)])
    book(
        world, call(world, session="s1", charge_nanos=50), call(world, session="s9", charge_nanos=9)
    )
    found = dict(Balance.objects.filter(budget=budget).values_list("value", "spent_amount"))
    assert found == {"s0": 1, "s1": 52, "*": 3 + 4 + 9}


def test_a_charge_belongs_to_the_window_of_its_start(world: World) -> None:
    budget = make_budget(world, mode=Mode.SOFT, window_kind="calendar", period="day")
    midnight = datetime(2026, 5, 13, tzinfo=UTC)
    book(
        world,
        call(world, started_at_ms=ms(midnight) - 1, charge_nanos=1),
        call(world, started_at_ms=ms(midnight), charge_nanos=2),
    )
    days = Balance.objects.filter(budget=budget).order_by("window_start")
    assert [(row.window_start, row.window_end, row.spent_amount) for row in days] == [
        (midnight - timedelta(days=1), midnight, 1),
        (midnight, midnight + timedelta(days=1), 2),
    ]


def test_what_a_lease_pays_is_not_booked_again(world: World) -> None:
    hard, soft = make_budget(world), make_budget(world, name="soft", mode=Mode.SOFT)
    lease = make_lease(make_balance(hard), amount=5_000)
    book(world, call(world, parts=[Part(str(hard.id), "", str(lease.id), 1_500)]))
    assert amounts(hard) == (0, 5_000, 0, 0)
    assert amounts(soft) == (1_500, 0, 0, 0)


def test_a_hard_budget_counts_calls_that_are_older_than_it(world: World) -> None:
    hard = make_budget(world)
    event = call(world)
    book(world, event)
    assert amounts(hard) == (1_500, 0, 0, 0)
    row = Transfer.objects.get()
    assert (row.kind, row.amount, str(row.usage_event_id)) == ("usage", 1_500, event.id)


def test_what_a_hard_limit_has_no_room_for_is_overrun(world: World) -> None:
    hard = make_budget(world, limit_amount=2_000)
    book(world, call(world), call(world))
    assert amounts(hard) == (2_000, 0, 0, 1_000)
    book(world, call(world, charge_nanos=7))
    assert amounts(hard) == (2_000, 0, 0, 1_007)
    assert sorted(Transfer.objects.values_list("kind", "amount")) == [
        ("overrun", 7),
        ("overrun", 1_000),
        ("usage", 500),
        ("usage", 1_500),
    ]


def test_a_soft_budget_gets_one_row_for_a_batch(world: World) -> None:
    soft = make_budget(world, mode=Mode.SOFT)
    book(world, call(world), call(world), call(world, charge_nanos=0))
    row = Transfer.objects.get()
    assert (row.amount, row.usage_event_id, row.reason) == (3_000, None, "2 calls")
    event = call(world)
    book(world, event)
    assert Transfer.objects.filter(usage_event_id=UUID(event.id)).count() == 1
    assert amounts(soft) == (4_500, 0, 0, 0)


def test_held_money_is_no_room(world: World) -> None:
    hard = make_budget(world, limit_amount=2_000)
    make_lease(make_balance(hard), amount=1_900)
    book(world, call(world))
    assert amounts(hard) == (100, 1_900, 0, 1_400)


def test_what_no_lease_could_pay_is_overrun(world: World) -> None:
    hard = make_budget(world)
    lease = make_lease(make_balance(hard), amount=1_000)
    parts = [Part(str(hard.id), "", str(lease.id), 1_000), Part(str(hard.id), "", "", 500)]
    book(world, call(world, parts=parts))
    assert amounts(hard) == (0, 1_000, 0, 500)


def test_an_archived_budget_counts_no_more(world: World) -> None:
    budget = make_budget(world, mode=Mode.SOFT)
    budget.archived_at = NOW
    budget.save()
    book(world, call(world))
    assert amounts(budget) == (0, 0, 0, 0)


def test_no_event_moves_rows_of_another_organization(world: World) -> None:
    other = make_world("other")
    foreign = make_budget(other, mode=Mode.SOFT)
    book(
        world,
        call(world, agent=str(other.agent.id), parts=[Part(str(foreign.id), "", "", 1_500)]),
    )
    assert amounts(foreign) == (0, 0, 0, 0)
    row = UsageEvent.objects.get()
    assert (row.organization_id, row.team_id, row.project_id) == (world.id, None, None)


def test_an_own_budget_that_does_not_match_takes_no_overrun(world: World) -> None:
    loner = make_budget(world, scope_id=world.loner.id)
    book(world, call(world, parts=[Part(str(loner.id), "", "", 1_500)]))
    assert amounts(loner) == (0, 0, 0, 0)


def test_a_young_month_counts_what_was_used_before_it(world: World) -> None:
    april = datetime(2026, 4, 30, 23, tzinfo=UTC)
    book(
        world,
        call(world, charge_nanos=1, started_at_ms=ms(april)),
        call(world, charge_nanos=600),
        call(world, charge_nanos=700, agent=str(world.loner.id)),
        now=NOW - timedelta(seconds=5),
    )
    month: dict[str, Any] = {"window_kind": "calendar", "period": "month"}
    everyone: dict[str, Any] = {"scope_kind": ScopeKind.ORGANIZATION, "scope_id": world.id}
    assert amounts(make_budget(world, **month)) == (600, 0, 0, 0)
    assert amounts(make_budget(world, name="all", **month, **everyone)) == (1_300, 0, 0, 0)
    each = make_budget(world, name="each", per=Per.AGENT, unit=Unit.REQUESTS, **month, **everyone)
    assert amounts(each, str(world.loner.id)) == (1, 0, 0, 0)
    assert amounts(make_budget(world, name="lifetime")) == (0, 0, 0, 0)


def test_a_month_that_begins_above_its_limit_has_its_use_as_cap(world: World) -> None:
    book(world, call(world, charge_nanos=900))
    budget = make_budget(world, limit_amount=100, window_kind="calendar", period="month")
    balance = Balance.objects.get(budget=budget)
    assert (balance.spent_amount, balance.limit_amount, balance.cap_amount) == (900, 100, 900)
    row = Transfer.objects.get(balance=balance)
    assert (row.kind, row.amount, row.reason) == (
        "usage",
        900,
        "used in this window before the budget was made",
    )


# ------------------------------------------------------------------------------ property


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_replay_books_each_event_once(world: World, data: st.DataObject) -> None:
    """However reports are cut into batches, doubled and reordered: truth, to the nano-dollar."""
    hard = make_budget(world, name=f"hard {new_id()}", limit_amount=5_000)
    soft = make_budget(world, name=f"soft {new_id()}", mode=Mode.SOFT, unit=Unit.TOKENS)
    charges = data.draw(st.lists(st.integers(0, 3_000), min_size=1, max_size=6))
    events = [call(world, charge_nanos=charge, input_tokens=charge) for charge in charges]
    batches = data.draw(st.lists(st.lists(st.sampled_from(events), max_size=5), max_size=6))
    accepted = sum(book(world, *batch).accepted for batch in [*batches, events])
    assert accepted == len(events)
    spent, held, suspense, overrun = amounts(hard)
    assert (spent, overrun) == (min(5_000, sum(charges)), max(0, sum(charges) - 5_000))
    assert (held, suspense) == (0, 0)
    assert amounts(soft) == (sum(charges) + 20 * len(charges), 0, 0, 0)


# ------------------------------------------------------------------------------ refusals


def test_refusals_are_booked_once(world: World) -> None:
    refusal = RefusalCount(
        id=str(new_id()),
        agent=str(world.agent.id),
        code="budget_exhausted",
        count=3,
        last_at_ms=ms(NOW),
        budget=str(uuid4()),
        message="spent\x00",
    )
    empty = RefusalCount(id=str(new_id()), agent="", code="x", count=0, last_at_ms=0)
    for _ in range(2):
        book_refusals(organization_id=world.id, refusals=[refusal, empty], now=NOW)
    row = Refusal.objects.get()
    assert (row.count, row.code, row.message, row.at) == (
        3,
        "budget_exhausted",
        "spent\ufffd",
        NOW,
    )
    assert row.agent == world.agent
