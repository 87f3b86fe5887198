"""Recorded calls at another price: the difference is booked wherever the call was charged."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from budgets.domain.prices import set_own_price
from budgets.domain.ratings import charge_at
from budgets.domain.rerate import Rerating, Wish, preview, rerate
from budgets.domain.rollups import fold_usage
from budgets.domain.usage import book_usage
from budgets.domain.verify import verify
from budgets.errors import RerateError
from budgets.models import (
    Balance,
    Budget,
    Notification,
    PriceVersion,
    Rating,
    Transfer,
    UsageEvent,
    UsageRollup,
)
from budgets.queries.spending import spend_total
from controlplane.audit.models import AuditEntry
from enforcement.rules.money import TokenUsage, charge_nanos
from enforcement.rules.policy import Mode, Per, Rates, ScopeKind, Unit
from enforcement.rules.wire import Part
from tests.budgets.world import (
    ACTOR,
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

HOUR = timedelta(hours=1)
LATER = NOW + HOUR
# 100 input + 20 output tokens at 5 and 50 dollars a million: 1,500,000 nano-dollars a call.
OLD, NEW = Rates(input=5 * 10**9, output=50 * 10**9), Rates(input=10**9, output=2 * 10**9)
OLD_NANOS, NEW_NANOS = 1_500_000, 140_000


def price(world: World, rates: Rates, *, at: Any = NOW, model: str = "gemma") -> PriceVersion:
    return set_own_price(
        organization_id=world.id, model=model, rates=rates, actor=ACTOR, now=at, valid_from=at
    )


def book(world: World, version: PriceVersion, **changes: Any) -> str:
    values: dict[str, Any] = {"charge_nanos": OLD_NANOS, "price_version": str(version.id)}
    event = call(world, **values | changes)
    book_usage(organization_id=world.id, sidecar_id=None, events=[event], now=NOW)
    return event.id


def wish(world: World, **changes: Any) -> Wish:
    values: dict[str, Any] = {"organization_id": world.id, "model": "gemma"}
    return Wish(**values | {"since": NOW - HOUR, "until": LATER} | changes)


def run(world: World, **changes: Any) -> Rerating:
    return rerate(wish(world, **changes), actor=ACTOR, reason="wrong list", now=LATER)


def test_the_difference_is_booked_with_event_prices_actor_and_reason(world: World) -> None:
    budget, old = make_budget(world, mode=Mode.SOFT), price(world, OLD)
    event, new = book(world, old), price(world, NEW, at=LATER)
    result = run(world)
    assert (result.calls, result.total.calls, result.total.delta_nanos) == (1, 1, -1_360_000)
    assert amounts(budget) == (NEW_NANOS, 0, 0, 0)
    rating = Rating.objects.get()
    assert (rating.old_price_version_id, rating.price_version_id) == (old.id, new.id)
    assert (rating.old_charge_nanos, rating.charge_nanos) == (OLD_NANOS, NEW_NANOS)
    moved = Transfer.objects.get(kind="correction")
    assert (moved.amount, str(moved.usage_event_id), moved.rating) == (1_360_000, event, rating)
    assert (moved.actor, moved.reason) == ("Olive Owner", f"{old.id} → {new.id}: wrong list")
    assert UsageEvent.objects.get().charge_nanos == OLD_NANOS
    entry = AuditEntry.objects.get(action="price.rerate")
    assert (entry.before, entry.reason) == ({"charge_nanos": OLD_NANOS}, "wrong list")
    assert verify().holds


def test_a_second_run_books_nothing_and_a_third_price_starts_from_the_second(world: World) -> None:
    budget = make_budget(world, mode=Mode.OBSERVE)
    book(world, price(world, OLD))
    price(world, NEW, at=LATER)
    run(world)
    again = run(world)
    assert (again.unchanged, again.total.calls, Rating.objects.count()) == (1, 0, 1)
    assert AuditEntry.objects.filter(action="price.rerate").count() == 1
    price(world, OLD, at=LATER + HOUR)
    rerate(wish(world), actor=ACTOR, reason="back", now=LATER + HOUR)
    assert list(Rating.objects.order_by("number").values_list("number", "charge_nanos")) == [
        (1, NEW_NANOS),
        (2, OLD_NANOS),
    ]
    assert amounts(budget) == (OLD_NANOS, 0, 0, 0)
    assert verify().holds


def test_a_preview_tells_the_same_and_books_nothing(world: World) -> None:
    budget = make_budget(world, limit_amount=OLD_NANOS)
    book(world, price(world, OLD))
    price(world, Rates(input=10**11, output=0), at=LATER)
    told = preview(wish(world), now=LATER)
    assert (Rating.objects.count(), amounts(budget)) == (0, (OLD_NANOS, 0, 0, 0))
    assert told == run(world)
    (change,) = told.balances.values()
    assert (change.spent_nanos, change.overrun_nanos) == (0, 8_500_000)
    assert {name: one.delta_nanos for name, one in told.models.items()} == {"gemma": 8_500_000}


def test_more_than_a_hard_limit_has_room_for_is_overrun_and_alarmed(world: World) -> None:
    budget = make_budget(world, limit_amount=2_000_000)
    book(world, price(world, OLD))
    price(world, Rates(input=40 * 10**9, output=0), at=LATER)
    run(world)
    assert amounts(budget) == (2_000_000, 0, 0, 2_000_000)
    assert Notification.objects.get().title == "gemma costs more: 1 balances are past their limit"
    assert verify().holds


def test_a_call_that_was_paid_from_a_lease_is_corrected_on_that_balance(world: World) -> None:
    budget = make_budget(world)
    balance = make_balance(budget)
    lease = make_lease(balance, amount=OLD_NANOS)
    Balance.objects.update(held_amount=0, spent_amount=OLD_NANOS)
    Transfer.objects.create(
        organization_id=world.id,
        balance=balance,
        lease=lease,
        kind="settle",
        amount=OLD_NANOS,
        at=NOW,
    )
    part = Part(str(budget.id), "", str(lease.id), OLD_NANOS)
    book(world, price(world, OLD), parts=[part])
    price(world, NEW, at=LATER)
    run(world)
    assert amounts(budget) == (NEW_NANOS, 0, 0, 0)


def test_every_level_follows_and_other_units_do_not(world: World) -> None:
    mine = make_budget(world)
    top = {"scope_kind": ScopeKind.ORGANIZATION, "scope_id": world.id}
    month = make_budget(world, name="m", window_kind="calendar", period="month", **top)
    each = make_budget(world, name="e", mode=Mode.SOFT, per=Per.MODEL, **top)
    rolls = make_budget(world, name="r", window_kind="rolling", rolling_s=86_400, **top)
    tokens = make_budget(world, name="t", unit=Unit.TOKENS)
    other = make_budget(world, name="o", scope_id=world.loner.id)
    book(world, price(world, OLD))
    price(world, NEW, at=LATER)
    assert len(run(world).balances) == 4
    assert [amounts(b)[0] for b in (mine, month, rolls)] == [NEW_NANOS] * 3
    assert amounts(each, "gemma")[0] == NEW_NANOS
    assert (amounts(tokens)[0], amounts(other)[0]) == (120, 0)
    assert verify().holds


def test_what_has_left_a_rolling_window_counts_nowhere(world: World) -> None:
    rolls = make_budget(world, window_kind="rolling", rolling_s=600, rolling_parts=10)
    book(world, price(world, OLD))
    price(world, NEW, at=LATER)
    assert run(world).total.calls == 1
    assert amounts(rolls) == (0, 0, 0, 0)
    assert verify().holds


def test_overrun_is_never_taken_back_the_call_is_left_as_it_is(world: World) -> None:
    soft = make_budget(world, name="soft", mode=Mode.SOFT)
    hard = make_budget(world, limit_amount=1_000_000)
    event = book(world, price(world, OLD))
    price(world, NEW, at=LATER)
    result = run(world)
    assert (result.short, result.total.calls) == (1, 0)
    assert result.left_out == [UUID(event)]
    assert (amounts(soft), amounts(hard)) == (
        (OLD_NANOS, 0, 0, 0),
        (1_000_000, 0, 0, 500_000),
    )


def test_a_budget_that_was_archived_before_the_call_is_not_touched(world: World) -> None:
    budget = make_budget(world, mode=Mode.SOFT)
    old = price(world, OLD)
    book(world, old)
    Budget.objects.update(archived_at=NOW + timedelta(seconds=1))
    event = call(world, charge_nanos=OLD_NANOS, price_version=str(old.id))
    later = NOW + timedelta(seconds=2)
    book_usage(organization_id=world.id, sidecar_id=None, events=[event], now=later)
    price(world, NEW, at=LATER)
    assert run(world).total.calls == 2
    assert amounts(budget) == (NEW_NANOS, 0, 0, 0)


def test_a_younger_budget_begins_with_what_calls_cost_now(world: World) -> None:
    book(world, price(world, OLD))
    price(world, NEW, at=LATER)
    run(world)
    day = {"window_kind": "calendar", "period": "day"}
    budget = make_budget(world, now=LATER, mode=Mode.SOFT, **day)
    assert amounts(budget) == (NEW_NANOS, 0, 0, 0)
    price(world, OLD, at=LATER + HOUR)
    rerate(wish(world), actor=ACTOR, reason="back", now=LATER + HOUR)
    assert amounts(budget) == (OLD_NANOS, 0, 0, 0)


def test_the_pages_figures_follow(world: World) -> None:
    book(world, price(world, OLD))
    fold_usage(now=NOW)
    price(world, NEW, at=LATER)
    run(world)
    span = {"organization_id": world.id, "since": NOW - HOUR, "until": LATER + 2 * HOUR}
    assert spend_total(**span).charge_nanos == NEW_NANOS  # from the events
    fold_usage(now=LATER + timedelta(seconds=1))
    assert UsageRollup.objects.get().charge_nanos == NEW_NANOS
    assert spend_total(**span).charge_nanos == NEW_NANOS


def test_a_call_without_a_price_gets_one_and_one_without_a_fitting_price_is_told(
    world: World,
) -> None:
    budget = make_budget(world, mode=Mode.SOFT)
    event = call(world, charge_nanos=0, model="new-model")
    book_usage(organization_id=world.id, sidecar_id=None, events=[event], now=NOW)
    assert run(world, model="new-*").unpriced == 1
    price(world, NEW, at=LATER, model="new-model")
    assert run(world, model="new-*").total.delta_nanos == NEW_NANOS
    assert amounts(budget) == (NEW_NANOS, 0, 0, 0)


def test_a_presumed_call_is_charged_its_whole_hold_again(world: World) -> None:
    old = price(world, OLD)
    # its window was part of the bound: all of it as prompt would cost most
    flat = Rates(input=50 * 10**9, output=5 * 10**9)
    book(world, old, presumed=True)
    price(world, flat, at=LATER)
    assert run(world).total.new_nanos == 100 * 50_000 + 20 * 5_000
    cheap = price(world, flat, at=LATER + HOUR, model="windowed")
    book(world, cheap, model="windowed", presumed=True, charge_nanos=120 * 50_000)
    price(world, Rates(input=2 * 10**9, output=10**9), at=LATER + 2 * HOUR, model="windowed")
    told = preview(wish(world, model="windowed"), now=LATER + 2 * HOUR)
    assert told.total.new_nanos == 120 * 2_000


def test_counts_that_contradict_each_other_are_left_as_they_are(world: World) -> None:
    book(world, price(world, OLD), cached_input_tokens=500)
    price(world, NEW, at=LATER)
    assert (run(world).contradictory, Rating.objects.count()) == (1, 0)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"model": " "}, "model"),
        ({"model": "*"}, "model"),
        ({"until": NOW - HOUR}, "until"),
        ({"price_version": UUID(int=1)}, "price_version"),
    ],
)
def test_what_cannot_be_meant_is_refused(world: World, wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(RerateError) as caught:
        preview(wish(world, **wrong), now=LATER)
    assert caught.value.field == field


def test_it_needs_a_reason_and_at_most_so_many_calls(world: World) -> None:
    old = price(world, OLD)
    book(world, old)
    book(world, old)
    with pytest.raises(RerateError, match="say why"):
        rerate(wish(world), actor=ACTOR, reason=" ", now=LATER)
    with pytest.raises(RerateError, match="more than 1 calls"):
        preview(wish(world), now=LATER, most=1)


def test_another_organization_is_not_touched(world: World) -> None:
    other = make_world("other")
    book(other, price(other, OLD))
    price(other, NEW, at=LATER)
    assert run(world).calls == 0
    foreign = price(other, OLD, at=LATER + HOUR)
    with pytest.raises(RerateError, match="no price version"):
        preview(wish(world, price_version=foreign.id), now=LATER)


rates = st.builds(
    Rates,
    input=st.integers(0, 10**11),
    cached_input=st.integers(0, 10**11),
    output=st.integers(0, 10**11),
    request=st.integers(0, 10**7),
)


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    calls=st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 2_000)), min_size=1, max_size=8),
    prices=st.lists(rates, min_size=2, max_size=4),
    limit=st.integers(1, 10**9),
    size=st.integers(1, 3),
)
def test_balances_are_the_sum_of_what_calls_cost_now(
    world: World,
    calls: list[tuple[int, int]],
    prices: list[Rates],
    limit: int,
    size: int,
) -> None:
    model = f"m-{UUID(int=len(PriceVersion.objects.all()))}"
    soft = make_budget(world, name=f"s {model}", mode=Mode.SOFT, filters={})
    hard = make_budget(world, name=f"h {model}", limit_amount=limit)
    first = price(world, prices[0], model=model)
    for tokens, output in calls:
        usage = TokenUsage(input_tokens=tokens, output_tokens=output)
        charge = charge_nanos(usage, first.to_policy())
        book(
            world, first, model=model, charge_nanos=charge, input_tokens=tokens,
            output_tokens=output,
        )  # fmt: skip
    for number, one in enumerate(prices[1:], start=1):
        at = NOW + number * HOUR
        price(world, one, at=at, model=model)
        wanted = wish(world, model=model, until=NOW + HOUR)
        rerate(wanted, actor=ACTOR, reason="again", now=at, batch=size)
    due = sum(
        (last.charge_nanos if last else event.charge_nanos)
        for event in UsageEvent.objects.filter(model=model)
        for last in [Rating.objects.filter(usage_event=event).order_by("-number").first()]
    )
    for budget in (soft, hard):
        spent, _, _, overrun = amounts(budget)
        assert spent + overrun == due
    assert verify().holds
    assert amounts(hard)[0] <= limit
    Budget.objects.filter(id__in=[soft.id, hard.id]).update(archived_at=NOW - HOUR)


def test_the_same_rule_as_the_first_charge(world: World) -> None:
    """At the price that a call was charged at, it costs what it was charged."""
    old = price(world, OLD)
    event = UsageEvent.objects.get(id=book(world, old, input_tokens=333, charge_nanos=2_665_000))
    assert charge_at(event, old.to_policy(), original=old.to_policy()) == 2_665_000
    assert ms(event.started_at) == ms(NOW) - 10_000
