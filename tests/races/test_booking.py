"""Usage that many processes report at once is booked once, and to every budget there is."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from threading import Event
from uuid import UUID

import pytest
from django.db import connection, transaction

from budgets.domain.budgets import create_budget
from budgets.domain.incarnation import current_incarnation
from budgets.domain.priceimport import import_catalogue
from budgets.domain.rerate import rerate
from budgets.domain.rollups import Folded, fold_usage
from budgets.domain.usage import Booked, book_usage
from budgets.domain.verify import verify
from budgets.models import (
    Balance,
    Budget,
    LedgerIncarnation,
    PriceVersion,
    Rating,
    UsageEvent,
    UsageRollup,
)
from enforcement.rules.policy import Mode, Per, ScopeKind
from enforcement.rules.wire import UsageEvent as WireEvent
from tests.budgets.domain.test_priceimport import CATALOGUE
from tests.budgets.domain.test_rerate import LATER, NEW, NEW_NANOS, OLD, OLD_NANOS, price, wish
from tests.budgets.world import ACTOR, NOW, World, amounts, call, make_budget, spec
from tests.races.crowd import PATIENCE_S, apart, at_once

CROWD = 16
MONTH = {"window_kind": "calendar", "period": "month"}


def book(world: World, *events: WireEvent) -> Booked:
    return book_usage(organization_id=world.id, sidecar_id=None, events=events, now=NOW)


def test_one_batch_from_everywhere_is_booked_once(world: World) -> None:
    hard = make_budget(world, limit_amount=4_000)
    each = make_budget(world, name="each", mode=Mode.SOFT, per=Per.SESSION)
    events = [call(world, session=f"s{number % 3}") for number in range(6)]
    orders = [events[number % 6 :] + events[: number % 6] for number in range(CROWD)]
    booked = at_once([partial(book, world, *order) for order in orders])
    assert sum(result.accepted for result in booked) == 6
    assert sum(result.duplicates for result in booked) == 6 * CROWD - 6
    assert amounts(hard) == (4_000, 0, 0, 5_000)
    assert [amounts(each, f"s{number}")[0] for number in range(3)] == [3_000, 3_000, 3_000]
    assert verify().holds


@pytest.mark.parametrize("fails", [False, True])
def test_a_booking_waits_for_a_twin_and_books_what_that_leaves(world: World, fails: bool) -> None:
    budget = make_budget(world, mode=Mode.SOFT)
    events = sorted((call(world) for _ in range(9)), key=lambda event: event.id)
    booked, done = Event(), Event()

    def hold_a_booking() -> None:
        with transaction.atomic():
            book(world, *events[3:6])
            booked.set()
            assert done.wait(PATIENCE_S)
            transaction.set_rollback(fails)

    booking = apart(hold_a_booking)
    assert booked.wait(PATIENCE_S)
    twin = apart(partial(book, world, *events))
    _wait_until_blocked()
    done.set()
    booking()
    assert twin() == (Booked(9, 0) if fails else Booked(6, 3))
    assert amounts(budget)[0] == 1_500 * 9
    assert fold_usage(now=NOW + timedelta(minutes=1)) == Folded(hours=1)
    assert UsageRollup.objects.get().calls == UsageEvent.objects.count() == 9
    assert verify().holds


def test_runs_at_once_charge_calls_again_once(world: World) -> None:
    budget = make_budget(world, mode=Mode.SOFT)
    hard = make_budget(world, name="hard", limit_amount=10**9)
    old = price(world, OLD)
    events = [call(world, charge_nanos=OLD_NANOS, price_version=str(old.id)) for _ in range(CROWD)]
    book(world, *events[:-1])
    price(world, NEW, at=LATER)
    runs = [
        partial(rerate, wish(world), actor=ACTOR, reason="again", now=LATER, batch=3)
        for _ in range(2)
    ]
    at_once([*runs, *runs, partial(book, world, events[-1])])
    rerate(wish(world), actor=ACTOR, reason="the last one", now=LATER)
    assert Rating.objects.count() == CROWD
    assert [amounts(one)[0] for one in (budget, hard)] == [CROWD * NEW_NANOS] * 2
    assert verify().holds


def test_different_events_on_one_balance_lose_nothing(world: World) -> None:
    hard = make_budget(world, limit_amount=20_000)
    batches = [[call(world, charge_nanos=100 + number)] for number in range(CROWD)]
    at_once([partial(book, world, *batch) for batch in batches * 2])
    assert amounts(hard) == (sum(100 + number for number in range(CROWD)), 0, 0, 0)
    assert Balance.objects.count() == 1


def test_many_balances_in_any_order_never_deadlock(world: World) -> None:
    for number in range(5):
        make_budget(world, name=f"b{number}", mode=Mode.SOFT, per=Per.SESSION)
    sessions = [f"s{number}" for number in range(8)]
    batches = [
        [call(world, session=name) for name in (sessions if number % 2 else sessions[::-1])]
        for number in range(CROWD)
    ]
    at_once([partial(book, world, *batch) for batch in batches])
    assert Balance.objects.count() == 5 * 8
    assert set(Balance.objects.values_list("spent_amount", flat=True)) == {1_500 * CROWD}


def test_a_new_budget_waits_for_a_running_booking(world: World) -> None:
    """The booking does not know the budget; the budget must find the event."""
    booked, done = Event(), Event()

    def hold_a_booking() -> None:
        with transaction.atomic():
            book(world, call(world))
            booked.set()
            assert done.wait(PATIENCE_S)

    def make() -> Budget:
        return create_budget(
            organization_id=world.id, spec=spec(world, **MONTH), actor=ACTOR, now=NOW
        )

    booking = apart(hold_a_booking)
    assert booked.wait(PATIENCE_S)
    making = apart(make)
    _wait_until_blocked()
    done.set()
    booking()
    assert amounts(making()) == (1_500, 0, 0, 0)


def test_a_booking_waits_for_a_budget_being_made(world: World) -> None:
    """The budget does not see the event; the booking must find the budget."""
    made, done = Event(), Event()

    def hold_a_making() -> Budget:
        with transaction.atomic():
            budget = create_budget(
                organization_id=world.id, spec=spec(world, **MONTH), actor=ACTOR, now=NOW
            )
            made.set()
            assert done.wait(PATIENCE_S)
            return budget

    making = apart(hold_a_making)
    assert made.wait(PATIENCE_S)
    booking = apart(partial(book, world, call(world)))
    _wait_until_blocked()
    done.set()
    assert booking() == Booked(1, 0)
    assert amounts(making()) == (1_500, 0, 0, 0)


def test_budgets_made_while_calls_pour_in_miss_none(world: World) -> None:
    def make(number: int) -> UUID:
        everyone = {"scope_kind": ScopeKind.ORGANIZATION, "scope_id": world.id}
        wish = spec(world, name=f"b{number}", mode=Mode.SOFT, **MONTH, **everyone)
        return create_budget(organization_id=world.id, spec=wish, actor=ACTOR, now=NOW).id

    calls = [partial(book, world, call(world)) for _ in range(CROWD)]
    makers = [partial(make, number) for number in range(4)]
    jobs: list[Callable[[], object]] = [*calls[:8], *makers, *calls[8:]]
    at_once(jobs)
    truth = 1_500 * UsageEvent.objects.count()
    assert truth == 1_500 * CROWD
    for budget in Budget.objects.all():
        assert amounts(budget) == (truth, 0, 0, 0)
    assert verify().holds


def test_one_worker_folds_the_other_leaves(world: World) -> None:
    fold_usage(now=NOW - timedelta(days=1))  # the watermark exists
    book(world, *[call(world) for _ in range(5)])
    folded = at_once([partial(fold_usage, now=NOW)] * 4)
    assert folded.count(Folded(hours=1)) == 1, "the others found it busy, or nothing left"
    row = UsageRollup.objects.get()
    assert (row.calls, row.charge_nanos) == (5, 7_500)


def test_an_event_committed_after_a_fold_is_folded_by_the_next(world: World) -> None:
    booked, done = Event(), Event()

    def hold_a_booking() -> None:
        with transaction.atomic():
            book(world, call(world))
            booked.set()
            assert done.wait(PATIENCE_S)

    booking = apart(hold_a_booking)
    assert booked.wait(PATIENCE_S)
    assert fold_usage(now=NOW + timedelta(seconds=1)) == Folded(hours=0)
    done.set()
    booking()
    assert fold_usage(now=NOW + timedelta(seconds=16)) == Folded(hours=1)
    assert UsageRollup.objects.get().calls == 1


def test_a_catalogue_is_imported_once(world: World) -> None:
    diffs = at_once([partial(import_catalogue, now=NOW, catalogue=CATALOGUE)] * 4)
    assert sorted(len(diff.added) for diff in diffs) == [0, 0, 0, 2]
    assert PriceVersion.objects.count() == 3


def test_there_is_one_current_incarnation(world: World) -> None:
    found = at_once([partial(current_incarnation, now=NOW)] * CROWD)
    assert len({incarnation.id for incarnation in found}) == 1
    assert LedgerIncarnation.objects.count() == 1


def _wait_until_blocked() -> None:
    """Until some session of this database waits for a lock."""
    for _ in range(PATIENCE_S * 100):
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND wait_event_type = 'Lock'"
            )
            if cursor.fetchone() != (0,):
                return
            cursor.execute("SELECT pg_sleep(0.01)")
    raise AssertionError("nobody waits")
